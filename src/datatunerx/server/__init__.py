"""The embedded API server: the Kubernetes REST protocol over the store."""

"""The fused loop: many adapters on one frozen base, each as if trained alone."""

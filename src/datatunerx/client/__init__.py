"""How anyone reaches the API: transports, informer, keyed work queue, kubeconfig."""

"""A Kubernetes of our own: the programs, an API server for tests, and a node (see k8s/cluster)."""

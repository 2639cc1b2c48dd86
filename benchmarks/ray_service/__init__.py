"""The service on a Ray cluster, with models that only take time: what more replicas bring, and where clicks go."""

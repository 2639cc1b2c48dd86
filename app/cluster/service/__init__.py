"""`box2mask serve --ray`: the service on a Ray cluster, by Ray Serve."""

"""Many machines: a folder's images, and the service, on a Ray cluster."""

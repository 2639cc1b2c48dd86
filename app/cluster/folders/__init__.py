"""`box2mask run --ray`: a folder's images on a Ray cluster, by Ray Data."""

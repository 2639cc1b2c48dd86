"""The models at work: found, loaded, queued for, and what is remembered of images."""

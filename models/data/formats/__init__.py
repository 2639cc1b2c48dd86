"""Annotation formats: each is found by its own content, read, and most of them written."""

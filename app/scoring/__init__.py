"""The story of a request, without HTTP."""

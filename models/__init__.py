"""The models: know tensors and files, nothing of HTTP."""

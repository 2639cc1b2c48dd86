"""SAM on an NVIDIA GPU."""

"""Checks what is written for NVIDIA GPUs against its plain twins, and times both: see `gpu.sh`."""

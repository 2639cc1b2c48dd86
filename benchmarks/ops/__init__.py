"""`python -m benchmarks.ops`: mmcv's ops in plain torch beside its compiled ones."""

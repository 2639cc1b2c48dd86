"""The demo weights: the scenes they learn from, their training, their evaluation."""

"""Promptable segmenters: an RGB image and prompts to masks."""

"""Detectors: an RGB image to boxes."""

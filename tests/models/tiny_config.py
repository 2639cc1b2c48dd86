"""The config of a YOLOF a hundredth the size of the demo's."""

from __future__ import annotations

from pathlib import Path

DEMO_CONFIG = Path(__file__).parents[2] / "weights" / "demo" / "yolof" / "yolof_r18_demo.py"


def tiny_config(*more: tuple[str, str]) -> str:
    """Its text. more: what else of the demo's is replaced, and by what."""
    source = DEMO_CONFIG.read_text()
    for old, new in (
        ("base_channels=32", "base_channels=4"),
        ("in_channels=256", "in_channels=32"),
        ("out_channels=128", "out_channels=32"),
        ("block_mid_channels=64", "block_mid_channels=8"),
        ("in_channels=128", "in_channels=32"),
        ("scale=(256, 256)", "scale=(64, 64)"),
        *more,
    ):
        assert old in source
        source = source.replace(old, new)
    return source

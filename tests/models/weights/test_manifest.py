"""The manifest of the weights that are known by name."""

from __future__ import annotations

from pathlib import Path

from models import weights


def test_the_repositorys_manifest_pins_everything_it_downloads():
    models = weights.load_manifest()
    newer = [*(f"sam2.1-{size}" for size in ("tiny", "small", "base-plus", "large")), "edgetam"]
    newer += [*(f"sam-hq-{size}" for size in ("base", "large", "huge")), "sam3"]
    assert list(models) == ["yolof", "sam-huge", "sam-large", "sam-base", *newer, "demo-yolof", "demo-sam"]
    assert [name for name, model in models.items() if model.accept_at] == ["sam3"]
    for model in models.values():
        names = [file.name for file in model.files]
        assert len(names) == len(set(names))
        for file in model.files:
            assert (file.url is None) != (file.copied_from is None)
            if Path(file.name).suffix in (".pth", ".safetensors"):
                assert file.sha256 or model.name in newer  # of which nobody here knows a hash: the server states it
            if file.url and "huggingface" in file.url:
                revision = file.url.split("/resolve/")[1].split("/")[0]
                pinned = len(revision) == 40 and set(revision) <= set("0123456789abcdef")
                assert pinned or (revision == "main" and model.name in newer)
                assert file.sha256 is None or len(file.sha256) == 64
    yolof = models["yolof"].files[1]
    assert yolof.sha256 and yolof.name.endswith(f"-{yolof.sha256}.pth")

"""Images as MMDetection's own data preprocessor leaves them, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.detector import mmcv_ops
from models.detector.known_normalizing import KnownNormalizing

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's own


def preprocessor(**settings: Any) -> Any:
    mmcv_ops.install()
    from mmdet.models.data_preprocessors import DetDataPreprocessor

    usual = {"mean": [103.53, 116.28, 123.675], "std": [1.0, 57.12, 58.395], "pad_size_divisor": 32}
    return DetDataPreprocessor(**(usual | settings))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings", [{}, {"bgr_to_rgb": True}, {"rgb_to_bgr": True, "pad_value": 7.5}, {"pad_size_divisor": 1}]
)
def test_it_is_the_preprocessor_bit_for_bit(settings: dict[str, Any], dtype: torch.dtype) -> None:
    from mmdet.structures import DetDataSample

    theirs = preprocessor(**settings)
    ours = KnownNormalizing.find(theirs)
    assert ours is not None
    torch.manual_seed(0)
    # Channels last in memory, as `KnownResize` leaves them, and first.
    images = [
        torch.randint(256, (45, 70, 3), dtype=torch.uint8).permute(2, 0, 1),
        torch.randint(256, (3, 64, 33), dtype=torch.uint8),
    ]
    data_samples = [DetDataSample(), DetDataSample()]
    truth = theirs({"inputs": images, "data_samples": data_samples}, False)
    pixels, noted = ours(images, dtype)
    assert torch.equal(pixels, truth["inputs"].to(dtype))
    assert noted == [sample.metainfo for sample in truth["data_samples"]]


def test_another_preprocessor_is_left_alone() -> None:
    mmcv_ops.install()
    from mmdet.models.data_preprocessors import BatchFixedSizePad, DetDataPreprocessor

    class Other(DetDataPreprocessor):
        pass

    assert KnownNormalizing.find(preprocessor(mean=None, std=None)) is None
    assert KnownNormalizing.find(preprocessor(mean=[127.0], std=[50.0])) is None
    assert KnownNormalizing.find(Other(mean=[0, 0, 0], std=[1, 1, 1])) is None
    assert KnownNormalizing.find(BatchFixedSizePad((8, 8))) is None

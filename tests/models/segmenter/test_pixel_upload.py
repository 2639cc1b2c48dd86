from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from models.segmenter.pixel_upload import normalize, upload
from models.square_images import IMAGENET_MEAN, IMAGENET_STD, resized_size

SIDE = 64
MEAN, STD = (torch.tensor(values) for values in (IMAGENET_MEAN, IMAGENET_STD))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalised_on_the_device_as_on_the_cpu(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    fitted = []
    for size_hw in ((100, 61), (64, 64), (3, 200)):
        height, width = resized_size(size_hw, SIDE)
        image = Image.fromarray(rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8))
        fitted.append(np.array(image.resize((width, height), Image.Resampling.BILINEAR)))
    expected = torch.zeros(len(fitted), 3, SIDE, SIDE)
    for image, its_expected in zip(fitted, expected, strict=True):
        pixels = torch.from_numpy(image).permute(2, 0, 1) / 255
        its_expected[:, : image.shape[0], : image.shape[1]] = (pixels - MEAN[:, None, None]) / STD[:, None, None]

    pixels, sizes = upload(fitted, SIDE, torch.device("cpu"))
    assert pixels.dtype == torch.uint8
    normalized = normalize(pixels, sizes, MEAN, STD, dtype)
    torch.testing.assert_close(normalized, expected.to(dtype), rtol=0, atol=0)


def test_what_is_beyond_an_image_never_shows() -> None:
    sizes = torch.tensor([[10, 20]], dtype=torch.int32)
    pixels = torch.full((1, SIDE, SIDE, 3), 7, dtype=torch.uint8)
    one = normalize(pixels, sizes, MEAN, STD, torch.float32)
    pixels[:, 10:], pixels[:, :, 20:] = 255, 99
    other = normalize(pixels, sizes, MEAN, STD, torch.float32)
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert one[..., :10, :20].abs().min() > 0

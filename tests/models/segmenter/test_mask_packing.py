from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.segmenter import mask_packing
from models.segmenter.mask_packing import pack_bits, pack_masks, unpack_bits
from models.square_images import resized_size


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64, 1001])
def test_bits_are_numpys(width: int) -> None:
    mask = np.random.default_rng(width).random((2, 3, 5, width)) < 0.5
    packed = pack_bits(torch.from_numpy(mask))
    np.testing.assert_array_equal(packed.numpy(), np.packbits(mask, axis=-1))
    unpacked = unpack_bits(packed.numpy(), width)
    assert unpacked.dtype == np.bool_
    np.testing.assert_array_equal(unpacked, mask)


def test_every_byte_can_be_packed() -> None:
    every = np.unpackbits(np.arange(256, dtype=np.uint8)).astype(bool)
    np.testing.assert_array_equal(pack_bits(torch.from_numpy(every)).numpy(), np.arange(256))


@pytest.mark.parametrize(
    ("size_hw", "count", "many"), [((77, 130), 3, 3), ((300, 40), 2, 1), ((1, 9), 1, 1), ((64, 64), 7, 3)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_are_those_of_plain_post_processing(
    size_hw: tuple[int, int], count: int, many: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_packing, "MASKS_AT_ONCE", 4)
    torch.manual_seed(0)
    logits = torch.randn(count, many, 16, 16).to(dtype)
    resized_hw = resized_size(size_hw, 64)
    packed = pack_masks(logits, 64, resized_hw, size_hw)
    assert packed.shape == (count, many, size_hw[0], (size_hw[1] + 7) // 8)

    masks = []
    for one in logits.float():
        square = F.interpolate(one[None], (64, 64), mode="bilinear", align_corners=False)
        cropped = square[..., : resized_hw[0], : resized_hw[1]]
        masks.append(F.interpolate(cropped, size_hw, mode="bilinear", align_corners=False)[0] > 0)
    expected = torch.stack(masks).numpy()
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(unpack_bits(packed.numpy(), size_hw[1]), expected)

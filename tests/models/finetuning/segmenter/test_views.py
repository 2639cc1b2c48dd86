"""Views of an image: what is on them lies where the image has it."""

from __future__ import annotations

import numpy as np
import torch

from models.finetuning.segmenter.averaging import AveragedWeights
from models.finetuning.segmenter.losses import hard_iou, mask_losses, prompt_loss
from models.finetuning.segmenter.views import Frame, frames, views
from models.rle import encode_rle
from models.square_images import Sample, resized


def preprocess(image: np.ndarray) -> Sample:
    return resized(image, 64, stretched=False)


def picture() -> tuple[np.ndarray, np.ndarray]:
    """White where the thing is, which lies left of the middle."""
    mask = np.zeros((48, 80), bool)
    mask[8:40, 10:30] = True
    return np.repeat(np.uint8(255) * mask[..., None], 3, axis=2), mask


def test_masks_and_boxes_move_with_the_pixels() -> None:
    image, mask = picture()
    box = np.array([[10.0, 8, 30, 40]])
    for number in range(20):
        of_frames = frames((48, 80), box, 6, np.random.default_rng(number))
        assert of_frames[0] == Frame(0, 0, 80, 48) and of_frames[1] == Frame(0, 0, 80, 48, mirrored=True)
        assert all(one.left <= 10 and one.right >= 30 and one.top <= 8 and one.bottom >= 40 for one in of_frames)
        found = views(image, [encode_rle(mask)], of_frames, preprocess, 64, 16)
        assert len(found) == 6
        for view in found:
            (truth,), (x1, y1, x2, y2) = view.truths / 255, view.boxes_xyxy[0]
            shown = np.zeros((64, 64))
            shown[: view.sample.image.shape[0], : view.sample.image.shape[1]] = view.sample.image[..., 0] / 255
            seen = shown.reshape(16, 4, 16, 4).mean((1, 3))
            assert np.abs(seen - truth).max() < 0.3 and np.abs(seen - truth).mean() < 0.02
            columns, rows = np.flatnonzero(shown.max(0) > 0.5), np.flatnonzero(shown.max(1) > 0.5)
            assert np.abs([x1 - columns[0], x2 - columns[-1] - 1, y1 - rows[0], y2 - rows[-1] - 1]).max() <= 1


def test_what_a_part_hardly_shows_does_not_count_there() -> None:
    image, mask = picture()
    cut, whole = Frame(25, 0, 80, 48), Frame(0, 0, 80, 48)
    assert len(views(image, [encode_rle(mask)], [cut], preprocess, 64, 16)) == 0
    assert len(views(image, [encode_rle(mask)], [whole], preprocess, 64, 16)) == 1


def test_the_loss_falls_as_masks_get_better_and_takes_the_best_of_three() -> None:
    truth = torch.zeros(1, 16, 16)
    truth[0, 4:9, 4:12] = 1
    right, wrong = 8 * (2 * truth - 1), -8 * (2 * truth - 1)
    assert mask_losses(right, truth) < 0.01 < 1 < mask_losses(wrong, truth)
    assert hard_iou(right, truth) == 1 and hard_iou(wrong, truth) == 0
    three = torch.stack([right, wrong, right, wrong], dim=1)
    scores = hard_iou(three, truth[:, None].expand_as(three))
    assert prompt_loss(three, scores, truth, first=True) < 0.02, "two bad ones of three do not matter"
    worse = torch.stack([wrong, right, right, right], dim=1)
    assert prompt_loss(worse, scores, truth, first=True) > 1, "the single mask does"


def test_weights_are_a_mean_of_late_steps_mixed_with_the_first() -> None:
    first = {"a": torch.zeros(2)}
    average = AveragedWeights(first, old_share=0.25)
    for step in range(1, 301):
        average.add({"a": torch.full((2,), 4.0)}, step)
    assert torch.allclose(average.mean["a"], torch.full((2,), 4.0), atol=0.02)
    assert torch.allclose(average.result()["a"], torch.full((2,), 3.0), atol=0.02)
    assert torch.equal(first["a"], torch.zeros(2))

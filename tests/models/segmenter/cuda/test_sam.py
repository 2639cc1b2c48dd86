"""On a CPU nothing is captured and no kernel is used, but what surrounds them is the same."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import SamConfig, SamModel
from transformers.models.sam.modeling_sam import SamVisionAttention

from models.segmenter.cuda import cuda_graphs, sam
from models.segmenter.cuda.sam import CudaDecoder, CudaEncoder
from models.segmenter.decoder import encode_prompts, predict_masks
from models.square_images import IMAGENET_MEAN, IMAGENET_STD

SIDE = 64
MEAN, STD = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)


@pytest.fixture(scope="module")
def model() -> SamModel:
    vision = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 48, "image_size": SIDE,
        "patch_size": 8, "output_channels": 32, "num_pos_feats": 16, "window_size": 3, "global_attn_indexes": [1],
    }  # fmt: skip
    prompt = {"hidden_size": 32, "image_size": SIDE, "patch_size": 8, "image_embedding_size": 8}
    decoder = {"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Embedding):
                module.reset_parameters()
            elif isinstance(module, SamVisionAttention):
                module.rel_pos_h.normal_()
                module.rel_pos_w.normal_()
        model.vision_encoder.pos_embed.normal_()
    return model


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes captured, by something that runs a function again on the same tensors instead of CUDA."""
    captured: list[int] = []

    def capture(function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> object:
        captured.append(len(inputs[0]))
        return lambda: function(*inputs)

    make = cuda_graphs.Graphs

    def graphs(function: Callable[..., tuple[Tensor, ...]], sizes: tuple[int, ...], limit: int = 8) -> object:
        return make(function, sizes, limit, capture)

    monkeypatch.setattr(sam, "Graphs", graphs)
    return captured


@torch.inference_mode()
def test_encoder_takes_any_number_of_images(model: SamModel, replayed: list[int]) -> None:
    encoder = CudaEncoder(model.vision_encoder, MEAN, STD)
    assert encoder.attention == "folded"
    pixels = torch.randn(9, 3, SIDE, SIDE)
    expected = model.vision_encoder(pixels).last_hidden_state
    calls: list[int] = []
    for count in (1, 3, 8, 9, 2):
        found = encoder(pixels[:count], lambda: calls.append(1))
        torch.testing.assert_close(found, expected[:count], rtol=1e-4, atol=1e-4)
    assert sorted(replayed) == [1, 2, 4, 8]  # nine are more than any graph takes
    assert len(calls) == 5


@torch.inference_mode()
def test_encoder_normalises_bytes(model: SamModel, replayed: list[int]) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in ((SIDE, 40, 3), (20, SIDE, 3), (SIDE, 1, 3))]
    pixels = torch.zeros(3, 3, SIDE, SIDE)
    for its_pixels, image in zip(pixels, images, strict=True):
        normalized = (image / 255 - IMAGENET_MEAN) / IMAGENET_STD
        its_pixels[:, : image.shape[0], : image.shape[1]] = torch.from_numpy(normalized).permute(2, 0, 1)
    expected = model.vision_encoder(pixels).last_hidden_state
    encoder = CudaEncoder(model.vision_encoder, MEAN, STD)
    torch.testing.assert_close(encoder.encode_images(images), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoder.encode_images(images[1:2]), expected[1:2], rtol=1e-4, atol=1e-4)
    assert replayed == [4, 1]


@torch.inference_mode()
@pytest.mark.parametrize("multimask", [False, True])
def test_decoder_takes_any_number_of_prompts(model: SamModel, replayed: list[int], multimask: bool) -> None:
    decoder = CudaDecoder(model)
    torch.manual_seed(1)
    images = torch.randn(2, 32, 8, 8)
    wanted = slice(1, None) if multimask else slice(0, 1)
    for count, tokens, image in ((1, 2, 0), (3, 2, 1), (4, 2, 0), (16, 3, 0), (66, 2, 1)):
        points_xy = SIDE * torch.rand(count, tokens, 2)
        labels = torch.randint(-1, 4, (count, tokens))
        prompts = encode_prompts(model.prompt_encoder, points_xy, labels)
        image_of = torch.full((count,), image)
        expected = predict_masks(model, images, prompts, image_of, wanted=wanted)
        found = decoder(images[image], points_xy, labels, multimask=multimask)
        assert found[0].shape == (count, 3 if multimask else 1, 32, 32)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert replayed == [1, 4, 16, 64]  # 66 are 64 and 2


def test_without_a_gpu_there_are_no_kernels_and_no_complaint(model: SamModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        encoder = CudaEncoder(model.vision_encoder, MEAN, STD)
    assert encoder.attention == "folded"
    assert not caplog.records


@torch.inference_mode()
def test_after_warming_up_nothing_is_captured(model: SamModel, replayed: list[int]) -> None:
    encoder, decoder = CudaEncoder(model.vision_encoder, MEAN, STD), CudaDecoder(model)
    encoder.warm_up()
    decoder.warm_up(torch.zeros(32, 8, 8))
    assert replayed == [1, 2, 4, 8, *(size for size in (1, 4, 8, 16, 32, 64) for _ in range(4))]
    captured = len(replayed)
    features = encoder.encode_images([np.full((SIDE, 9, 3), 7, np.uint8)] * 5)[4]
    boxes, corners = SIDE * torch.rand(7, 2, 2), torch.tensor([[2, 3]]).expand(7, -1)
    for multimask in (False, True):
        decoder(features, boxes, corners, multimask=multimask)
    assert len(replayed) == captured

"""The decoder against Hugging Face's own modules, whose weights it uses, on random weights and features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import SamConfig, SamModel

from models.segmenter import decoder as decoder_module
from models.segmenter.decoder import BOX_CORNERS, Images, PlaceTables, encode_prompts, predict_masks
from models.segmenter.protocol import DecodeRequest, RawMasks
from models.segmenter.ready_images import ReadyPhotos
from models.segmenter.sam import FACTORED_TOKENS, Sam
from models.types import Embedding, Prompts

DEMO = Path(__file__).parents[3] / "weights" / "demo" / "sam"
GRID, SIZE = 8, 64  # places along a side of the grid, pixels along a side of the model's input


def random_sam(seed: int = 0, layers: int = 2) -> SamModel:
    """A SAM whose decoder attends sharply, so that what it attends to shows, and whose norms all do something."""
    torch.manual_seed(seed)
    model = SamModel(
        SamConfig(
            vision_config={
                "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16, "image_size": SIZE,
                "patch_size": SIZE // GRID, "output_channels": 32, "num_pos_feats": 16, "window_size": 0,
                "global_attn_indexes": [0], "use_rel_pos": False,
            },
            prompt_encoder_config={
                "hidden_size": 32, "image_size": SIZE, "patch_size": SIZE // GRID, "image_embedding_size": GRID,
            },
            mask_decoder_config={
                "hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 4,
                "num_hidden_layers": layers,
            },
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(("mask_decoder", "prompt_encoder")):
                if "norm" in name:
                    weight.normal_(1 if name.endswith("weight") else 0, 0.3)
                elif weight.ndim > 1:
                    weight.normal_(0, 1.5 * weight[0].numel() ** -0.5 if "embed" not in name else 1)
                else:
                    weight.normal_(0, 0.3)
        place = model.shared_image_embedding.positional_embedding.normal_(0, 1)
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(place)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> SamModel:
    return random_sam()


def random_embedding(seed: int, size_hw: tuple[int, int] = (48, 64)) -> Embedding:
    features = torch.randn(32, GRID, GRID, generator=torch.Generator().manual_seed(seed))
    return Embedding(features, size_hw, (SIZE * size_hw[0] // max(size_hw), SIZE * size_hw[1] // max(size_hw)))


def random_prompts(seed: int, count: int, points: int = 0, boxes: bool = False) -> Prompts:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 48, (count, 2, 2)), axis=1).reshape(count, 4) if boxes else None
    if not points:
        return Prompts(boxes_xyxy=corners)
    labels = rng.choice([1, 0, -1, -10], (count, points))
    return Prompts(rng.uniform(0, 48, (count, points, 2)), labels, corners)


def mixed_requests() -> list[DecodeRequest]:
    """Requests that differ in image, number and kind of prompts, and wanted masks; two images come twice."""
    wide, high, other = random_embedding(1), random_embedding(2, (100, 50)), random_embedding(3, (64, 64))
    return [
        DecodeRequest(wide, random_prompts(1, 5, boxes=True), False),
        DecodeRequest(high, random_prompts(2, 2, points=1), True),
        DecodeRequest(wide, random_prompts(3, 3, points=4), False),
        DecodeRequest(other, Prompts(), True),
        DecodeRequest(high, random_prompts(4, 1, points=2, boxes=True), False),
        DecodeRequest(wide, random_prompts(5, 2, points=1, boxes=True), True),
        DecodeRequest(other, Prompts(), False),
    ]


def assert_equal(ours: RawMasks, theirs: RawMasks, atol: float) -> None:
    assert ours.logits.dtype == torch.float32 and ours.iou_scores.dtype == np.float32
    assert (ours.size_hw, ours.resized_hw) == (theirs.size_hw, theirs.resized_hw)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=atol * float(theirs.logits.std()))
    np.testing.assert_allclose(ours.iou_scores, theirs.iou_scores, rtol=0, atol=atol * 10)


# --- results -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize(("points", "boxes"), [(0, True), (1, False), (3, False), (1, True), (4, True), (0, False)])
def test_results_equal_hugging_faces_own(
    model: SamModel, points: int, boxes: bool, count: int, multimask: bool
) -> None:
    prompts = random_prompts(count, count, points, boxes)
    ours, theirs = (
        Sam(model, fast=fast).decode(random_embedding(0), prompts, multimask=multimask) for fast in (True, False)
    )
    assert ours.logits.shape == (len(prompts), 3 if multimask else 1, 4 * GRID, 4 * GRID)
    assert_equal(ours, theirs, 2e-5)


def test_prompts_of_many_points_are_decoded_as_published(model: SamModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """For these the fast form would take time and memory by the square of their points."""
    segmenter, plain = Sam(model), Sam(model, fast=False)
    requests = [
        DecodeRequest(random_embedding(0), random_prompts(seed, 2, points), False)
        for seed, points in enumerate((1, FACTORED_TOKENS, 2, 40))
    ]
    together = segmenter.decode_batch(requests)
    monkeypatch.setattr(segmenter, "_decoder", lambda requests: None)
    for request, raw in zip(requests, together, strict=True):
        assert_equal(raw, plain.decode(request.embedding, request.prompts, multimask=False), 2e-5)
    segmenter.decode_batch([requests[1], requests[3]])  # without the fast form
    with pytest.raises(TypeError):
        segmenter.decode_batch([requests[0]])


def test_what_the_references_show_depends_on_all_of_the_input(model: SamModel) -> None:
    """Else equality with them would prove nothing."""
    segmenter = Sam(model, fast=False)
    logits = [
        segmenter.decode(random_embedding(image), random_prompts(seed, 1, 1, True), multimask=True).logits
        for image, seed in ((0, 0), (0, 1), (1, 0))
    ]
    assert logits[0].std() > 0.1
    for changed in logits[1:]:
        assert (changed - logits[0]).std() > 0.1 * logits[0].std()


@pytest.mark.parametrize("layers", [1, 3])
def test_any_number_of_layers(layers: int) -> None:
    model = random_sam(layers, layers)
    for count in (1, 5):
        ours, theirs = (
            Sam(model, fast=fast).decode(random_embedding(0), random_prompts(0, count, 2), multimask=True)
            for fast in (True, False)
        )
        assert_equal(ours, theirs, 5e-5)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_a_ragged_batch_is_decoded_as_each_prompt_alone(model: SamModel, at_once: int, mixed: bool) -> None:
    segmenter = Sam(model)
    segmenter.prompts_at_once = at_once
    segmenter.mix_images = mixed  # as on a GPU
    requests = mixed_requests()
    together = segmenter.decode_batch(requests)
    assert len(together) == len(requests)
    for request, raw in zip(requests, together, strict=True):
        for i in range(len(request.prompts)):
            points, labels, boxes = (
                None if array is None else array[i : i + 1]
                for array in (request.prompts.points_xy, request.prompts.point_labels, request.prompts.boxes_xyxy)
            )
            alone = segmenter.decode(request.embedding, Prompts(points, labels, boxes), multimask=request.multimask)
            one = replace(raw, logits=raw.logits[i : i + 1], iou_scores=raw.iou_scores[i : i + 1])
            assert_equal(one, alone, 2e-5)
    for raw, plain in zip(together, Sam(model, fast=False).decode_batch(requests), strict=True):
        assert_equal(raw, plain, 2e-5)
    assert segmenter.decode_batch([]) == []


def test_tokens_that_are_not_present_change_nothing(model: SamModel) -> None:
    features, tokens = random_embedding(0).features[None], torch.randn(2, 3, 32)
    image_of = torch.zeros(2, dtype=torch.long)
    with torch.inference_mode():
        alone = predict_masks(model, features, tokens, image_of)
        for filling in (0.0, 100.0):
            filled = torch.cat([tokens, torch.full((2, 2, 32), filling)], dim=1)
            present = torch.arange(5).expand(2, -1) < 3
            for ours, expected in zip(predict_masks(model, features, filled, image_of, present), alone, strict=True):
                torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_only_wanted_masks_are_computed(model: SamModel) -> None:
    features, tokens = random_embedding(0).features[None], torch.randn(1, 2, 32)
    with torch.inference_mode():
        logits, scores = predict_masks(model, features, tokens)
        assert logits.shape == (1, 4, 4 * GRID, 4 * GRID) and scores.shape == (1, 4)
        for wanted in (slice(0, 1), slice(1, None), slice(2, 3)):
            some_logits, some_scores = predict_masks(model, features, tokens, wanted=wanted)
            torch.testing.assert_close(some_logits, logits[:, wanted])
            torch.testing.assert_close(some_scores, scores[:, wanted])


@pytest.mark.parametrize("upscaled", [1, 3 * GRID, 10**6])
@pytest.mark.parametrize("projected", [False, True])
def test_neither_portions_nor_the_order_of_products_matter(
    model: SamModel, projected: bool, upscaled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, tokens = torch.randn(3, 32, GRID, GRID), torch.randn(5, 2, 32)
    image_of = torch.tensor([2, 0, 0, 1, 2])
    with torch.inference_mode():
        expected, _ = predict_masks(model, features, tokens, image_of)
        monkeypatch.setattr(decoder_module, "UPSCALED_AT_ONCE", upscaled)
        images = Images(model, features, PlaceTables(model), projected=projected)
        ours, _ = images.decode(tokens, image_of, None, slice(None))
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5 * float(expected.std()))


def test_prompts_are_encoded_as_by_hugging_face(model: SamModel) -> None:
    rng = np.random.default_rng(0)
    points, boxes = (torch.from_numpy(rng.uniform(0, SIZE, (1, 6, n, 2))) for n in (4, 2))
    labels = torch.tensor([1, 0, -1, -10]).expand(1, 6, -1)
    theirs, _ = model.prompt_encoder(points, labels, boxes.flatten(2), None)
    corners = torch.tensor(BOX_CORNERS).expand(6, -1)
    ours = encode_prompts(model.prompt_encoder, torch.cat([points, boxes], 2)[0], torch.cat([labels[0], corners], 1))
    torch.testing.assert_close(ours, theirs[0], rtol=0, atol=1e-5)


# --- portions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [False, True])
def test_no_more_prompts_at_once_than_allowed_and_a_call_between(
    model: SamModel, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Sam(model, fast=fast)
    segmenter.prompts_at_once = 4
    happened: list[int | str] = []
    name = "_decoder" if fast else "_hugging_faces_decoder"
    make: Callable[[Sequence[DecodeRequest]], Callable[[list], tuple[Tensor, Tensor]]] = getattr(segmenter, name)

    def counted(requests: Sequence[DecodeRequest]) -> Callable[[list], tuple[Tensor, Tensor]]:
        decode = make(requests)

        def count(portion: list) -> tuple[Tensor, Tensor]:
            logits, scores = decode(portion)
            happened.append(len(logits))
            return logits, scores

        return count

    monkeypatch.setattr(segmenter, name, counted)
    requests = [DecodeRequest(random_embedding(0), random_prompts(0, 10, boxes=True), False)]
    segmenter.decode_batch(requests, between=lambda: happened.append("between"))
    assert happened == [4, "between", 4, "between", 2]


def test_an_image_is_made_ready_once_for_all_portions_and_clicks(
    model: SamModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Tensor] = []
    make = Images.__init__

    def counted(images: Images, model: SamModel, features: Tensor, *rest: PlaceTables, projected: bool) -> None:
        made.append(features)
        make(images, model, features, *rest, projected=projected)

    monkeypatch.setattr(Images, "__init__", counted)
    segmenter, image, other = Sam(model), random_embedding(0), random_embedding(1)
    segmenter.prompts_at_once = 2
    segmenter.decode_batch(
        [
            DecodeRequest(image, random_prompts(seed, 5, points, True), multimask)
            for seed, points, multimask in ((0, 0, False), (1, 2, True), (2, 1, False))
        ]
    )
    assert len(made) == 1
    for embedding, already in ((image, 1), (other, 2), (image, 2), (other, 2), (image, 2)):
        click = random_prompts(7, 1, 1)
        assert_equal(
            segmenter.decode(embedding, click, multimask=True),
            Sam(model, fast=False).decode(embedding, click, multimask=True),
            2e-5,
        )
        assert len(made) == already


def test_many_images_are_not_kept(model: SamModel) -> None:
    segmenter = Sam(model)
    segmenter.mix_images, segmenter.prompts_at_once = True, 64
    segmenter.decode_batch([DecodeRequest(random_embedding(i), random_prompts(i, 1, 1), True) for i in range(3)])
    assert len(segmenter.ready) == 0


def test_images_are_kept_ready_as_far_as_they_fit(model: SamModel) -> None:
    segmenter, click = Sam(model), random_prompts(0, 1, 1)
    images = [random_embedding(seed) for seed in range(4)]
    for _ in range(3):  # then its projections are there too, and it has its full size
        segmenter.decode(images[0], click, multimask=False)
    (full,) = (ready.nbytes for ready in segmenter.ready._ready.values())
    own = sum(
        value.numel() * value.element_size() for value in vars(segmenter.ready.of([images[0].features], 1))["bases"]
    )
    assert full > own + images[0].features.numel() * 4
    made: list[Tensor] = []
    make = segmenter._made_ready

    def counted(features: list[Tensor]) -> Images:
        made.extend(features)
        return make(features)

    segmenter.ready = ReadyPhotos(counted, 2 * full)
    for number, already in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4), (3, 5)):
        for _ in range(3):
            segmenter.decode(images[number], click, multimask=False)
        assert len(made) == already and len(segmenter.ready) <= 2
    segmenter.ready = ReadyPhotos(counted, 0)  # the newest one stays, or a row of clicks on it would make it each time
    for _ in range(3):
        segmenter.decode(images[0], click, multimask=False)
    assert len(made) == 6 and len(segmenter.ready) == 1


# --- training and other numbers ----------------------------------------------------------------------


def test_gradients_equal_hugging_faces_own() -> None:
    model = random_sam(3)
    torch.manual_seed(0)
    features = torch.randn(2, 32, GRID, GRID)
    points, labels = torch.rand(2, 3, 2, 2) * SIZE, torch.tensor([1, 0]).expand(2, 3, -1)
    boxes = torch.rand(2, 3, 4) * SIZE
    target = torch.randn(2, 3, 4, 4 * GRID, 4 * GRID)

    def gradients(forward: Callable[[Tensor], tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        model.zero_grad()
        of_features = features.clone().requires_grad_()
        logits, scores = forward(of_features)
        ((logits * target).mean() + scores.square().mean()).backward()
        assert of_features.grad is not None
        return {"features": of_features.grad} | {
            name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
        }

    def ours(features: Tensor) -> tuple[Tensor, Tensor]:
        xy = torch.cat([points, boxes.unflatten(-1, (2, 2))], 2).flatten(0, 1)
        kinds = torch.cat([labels, torch.tensor(BOX_CORNERS).expand(2, 3, -1)], 2).flatten(0, 1)
        tokens = encode_prompts(model.prompt_encoder, xy, kinds)
        logits, scores = predict_masks(model, features, tokens, torch.arange(2).repeat_interleave(3))
        return logits.unflatten(0, (2, 3)), scores.unflatten(0, (2, 3))

    def theirs(features: Tensor) -> tuple[Tensor, Tensor]:
        sparse, dense = model.prompt_encoder(points, labels, boxes, None)
        place = model.get_image_wide_positional_embeddings().expand(2, -1, -1, -1)
        parts = [model.mask_decoder(features, place, sparse, dense, multimask) for multimask in (False, True)]
        logits, scores = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
        return logits, scores

    expected, found = gradients(theirs), gradients(ours)
    untouched = ("not_a_point_embed", "positional_embedding")  # which are no part of these prompts, or not learnt
    assert {name for name in expected if not name.endswith(untouched)} <= set(found)
    decoder = {f"mask_decoder.{name}" for name, _ in model.mask_decoder.named_parameters()}
    assert decoder <= set(found)
    for name, gradient in expected.items():
        # The bias of keys that softmax leaves out has none, but for what rounding makes of it.
        scale = max(float(gradient.abs().max()), 2e-3)
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=3e-4 * scale, msg=name)


def test_bfloat16_agrees_with_float32() -> None:
    """On the demo weights, whose decoder has learnt; as well as Hugging Face's does, or better."""
    boxes = np.array([[40.0, 40.0, 200.0, 220.0], [100.0, 30.0, 180.0, 130.0], [10.0, 120.0, 90.0, 250.0]])
    full, half, plain = (
        Sam.load(DEMO, dtype=dtype, fast=fast)
        for dtype, fast in ((torch.float32, False), (torch.bfloat16, True), (torch.bfloat16, False))
    )
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(32, 0).repeat(32, 1)
    (embedding,) = full.embed([full.preprocess(image)])
    errors = []
    expected = full.decode(embedding, Prompts(boxes_xyxy=boxes), multimask=True)
    for segmenter in (half, plain):
        raw = segmenter.decode(embedding, Prompts(boxes_xyxy=boxes), multimask=True)
        assert raw.logits.dtype == torch.float32 and raw.iou_scores.dtype == np.float32
        np.testing.assert_allclose(raw.iou_scores, expected.iou_scores, rtol=0, atol=0.05)
        errors.append(float((raw.logits - expected.logits).std()))
    assert errors[0] < 0.05 * float(expected.logits.std())
    assert errors[0] < 1.5 * errors[1]


def test_embeddings_of_another_dtype_are_moved(model: SamModel) -> None:
    embedding, prompts = random_embedding(0), random_prompts(0, 2, boxes=True)
    stored = replace(embedding, features=embedding.features.bfloat16())
    for fast in (True, False):
        segmenter = Sam(model, fast=fast)
        expected = segmenter.decode(replace(stored, features=stored.features.float()), prompts, multimask=False)
        assert_equal(segmenter.decode(stored, prompts, multimask=False), expected, 1e-6)


def test_places_are_encoded_in_float32_whatever_the_weights() -> None:
    segmenter = Sam(random_sam(), dtype=torch.bfloat16)
    for module in (segmenter._model.shared_image_embedding, segmenter._model.prompt_encoder.shared_embedding):
        assert module.positional_embedding.dtype == torch.float32
    assert all(
        weight.dtype == torch.bfloat16
        for module in segmenter._model.mask_decoder.modules()
        if isinstance(module, nn.Linear)
        for weight in module.parameters()
    )


def test_a_part_of_the_grid_has_the_places_of_that_part(model: SamModel) -> None:
    whole = PlaceTables(model)
    size = model.prompt_encoder.image_embedding_size[0]
    rows, columns = slice(1, size - 1), slice(2, size)
    part = PlaceTables(model, (rows, columns))
    expected = whole.grid.unflatten(0, (size, size))[rows, columns].flatten(0, 1)
    torch.testing.assert_close(part.grid, expected)
    for linear, table in part.tables.items():
        expected = whole.tables[linear].unflatten(-1, (size, size))[..., rows, columns].flatten(-2)
        torch.testing.assert_close(table, expected)

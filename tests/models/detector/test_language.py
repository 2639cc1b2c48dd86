"""MMDetection's open-vocabulary detectors, narrow and with random weights, beside MMDetection's own inference."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.checkpoints import ModelFilesError
from models.detector.glip_layer import GlipTextLayer
from models.detector.mmdetection import MMDetector
from models.types import Detections, TextsError
from tests.models.detector import texts_folder
from tests.models.detector.test_zoo import picture

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own

TEXTS = ("can", "milk carton", "milk_can (of tin)")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any) -> None:
        raise AssertionError("a socket was connected")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def theirs(folder: Path, texts: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """mmdet's own detector with its own BertModel, by files in the place of a name."""
    import transformers
    from mmdet.apis import inference_detector
    from mmdet.models.language_models.bert import BertModel
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope
    from mmengine.runner import load_checkpoint

    from models.detector.configs import read_config
    from models.detector.files import forget_downloads

    bert = folder / "bert-base-uncased"
    config = read_config(folder / "config.py")
    forget_downloads(config.model)
    config.model.language_model.name = str(bert)
    if "lang_model_name" in config.model.bbox_head:
        config.model.bbox_head.lang_model_name = str(bert)
    transformers.BertModel(transformers.BertConfig.from_pretrained(bert)).save_pretrained(folder / "whole")
    for file in bert.iterdir():
        shutil.copy(file, folder / "whole")
    config.model.language_model.name = str(folder / "whole")
    # What transformers 5 took away, as it was.
    kind = transformers.PreTrainedTokenizerBase
    monkeypatch.setattr(kind, "batch_encode_plus", kind.__call__, raising=False)
    whole = transformers.BertModel.forward
    monkeypatch.setattr(
        transformers.BertModel,
        "forward",
        lambda self, attention_mask, **inputs: whole(
            self, attention_mask=attention_mask[:, None] if attention_mask.dim() == 3 else attention_mask, **inputs
        ),
    )
    init_default_scope("mmdet")  # as mmdet's own `init_detector` does
    model = MODELS.build(config.model)
    assert isinstance(model.language_model, BertModel)
    load_checkpoint(model, str(folder / "weights.pth"), strict=True)
    config.test_dataloader.dataset.pipeline[-1].meta_keys += ("text", "custom_entities")
    model.cfg = config
    image = np.ascontiguousarray(picture()[..., ::-1])
    return inference_detector(model.eval(), image, text_prompt=tuple(texts), custom_entities=True).pred_instances


def assert_same(ours: Detections, theirs: Any) -> None:
    order = torch.argsort(theirs.scores, descending=True, stable=True)
    assert len(ours) == len(theirs.scores) > 5 and np.ptp(ours.scores) > 1e-3
    np.testing.assert_allclose(ours.scores, theirs.scores[order], atol=1e-3)
    np.testing.assert_allclose(ours.boxes_xyxy, theirs.bboxes[order].numpy().clip(0, [150, 101, 150, 101]), atol=1e-3)
    np.testing.assert_array_equal(ours.labels, theirs.labels[order])


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", texts_folder.KINDS)
def test_texts_are_found_as_by_mmdetection_itself(
    kind: str, chunked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = texts_folder.write(tmp_path, kind, chunked_size=2 if chunked else -1)
    detector = MMDetector.load(folder)
    assert detector.takes_texts and detector.class_names == ()
    [ours] = detector.detect([picture()], texts=TEXTS)
    assert len(set(ours.labels)) > 1
    assert_same(ours, theirs(folder, TEXTS, monkeypatch))


@pytest.mark.parametrize("chunked", [-1, 2])
@pytest.mark.parametrize("kind", ["mm_grounding_dino", "glip_fused"])
def test_texts_of_other_requests_change_nothing(kind: str, chunked: int, tmp_path: Path) -> None:
    detector = MMDetector.load(texts_folder.write(tmp_path, kind, chunked_size=chunked))
    asked = [("can",), TEXTS, ("bottle", "milk carton", "can", "milk"), ("can",)]
    samples = [detector.preprocess(picture(), texts) for texts in asked]
    for texts, together in zip(asked, detector.forward(samples), strict=True):
        [alone] = detector.detect([picture()], texts=texts)
        found = detector.postprocess(together)
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
        np.testing.assert_array_equal(found.labels, alone.labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts_folder.write(tmp_path_factory.mktemp("texts"), "mm_grounding_dino")


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ((), "got no texts"),
        (("can. milk",), r"without \. and \?, at which this detector parts them, got 'can. milk'"),
        (("can", "(tin)"), r"words outside of brackets, got '\(tin\)'"),
        (("can", "\u200b\u200b"), "tokenizer knows"),
        (("milk " * 300,), "at most 256 tokens for all texts together, got 30[0-9]"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(folder: Path, texts: tuple[str, ...], reason: str) -> None:
    with pytest.raises(TextsError, match=reason):
        MMDetector.load(folder).preprocess(picture(), texts)


def test_more_texts_fit_in_portions(tmp_path: Path) -> None:
    detector = MMDetector.load(texts_folder.write(tmp_path, "grounding_dino", chunked_size=100))
    texts = ["milk " * (number % 5 + 1) + "can" * (number % 2) for number in range(250)]
    with pytest.raises(TextsError, match="at most 256 tokens for 100 texts together, got"):
        detector.preprocess(picture(), texts)
    detector = MMDetector.load(texts_folder.write(tmp_path, "grounding_dino", chunked_size=30))
    [found] = detector.detect([picture()], texts=texts)
    assert found.labels.min() < 30 and found.labels.max() >= 240


def test_the_tokenizer_lies_beside_the_config_too_and_counts_as_a_file(folder: Path, tmp_path: Path) -> None:
    inner = {"bert-base-uncased/config.json", "bert-base-uncased/vocab.txt", "bert-base-uncased/tokenizer_config.json"}
    assert set(MMDetector.files(folder)) == {"config.py", "weights.pth", *inner}
    flat = tmp_path / "flat"
    shutil.copytree(folder, flat)
    for file in (flat / "bert-base-uncased").iterdir():
        shutil.move(file, flat)
    assert "vocab.txt" in MMDetector.files(flat) and MMDetector.find(flat) == flat
    for one, other in zip(
        *(MMDetector.load(where).detect([picture()], texts=TEXTS) for where in (flat, folder)), strict=True
    ):
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("config.json", "language model 'bert-base-uncased', of which nothing is fetched: expected config.json, tok"),
        ("vocab.txt", "tokenizer.json or vocab.txt of it in .*bert-base-uncased. Bring them"),
    ],
)
def test_what_is_missing_is_said(folder: Path, tmp_path: Path, missing: str, reason: str) -> None:
    copied = shutil.copytree(folder, tmp_path / "copied")
    (copied / "bert-base-uncased" / missing).unlink()
    for read in (MMDetector.load, MMDetector.files):
        with pytest.raises(ModelFilesError, match=reason):
            read(copied)


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "copied")
    path = copied / "bert-base-uncased" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 5}))
    with pytest.raises(ModelFilesError, match="vocab_size: expected at least the [0-9]+ tokens"):
        MMDetector.load(copied)


def test_glips_layer_is_berts() -> None:
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_attention_heads=4, intermediate_size=48, attn_implementation="eager")
    bert, ours = BertLayer(config).eval(), GlipTextLayer(config).eval()
    for weight in bert.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    ours.load_state_dict(bert.state_dict())
    hidden, masks = torch.randn(2, 7, 32), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    unseen = (1.0 - masks[:, None, None].float()) * torch.finfo(torch.float32).min
    expected = bert(hidden, unseen)
    expected = expected[0] if isinstance(expected, tuple) else expected
    found = ours({"visual": None, "lang": {"hidden": hidden, "masks": masks}})["lang"]["hidden"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

"""Folders of MMDetection's open-vocabulary detectors: narrow, with random weights, a tiny BERT and few words."""

from __future__ import annotations

import json
from pathlib import Path

from tests.models.detector.test_zoo import folder_of

_SWIN = "embed_dims=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]"
_DINO = (
    f"num_queries=20, backbone=dict({_SWIN}), neck=dict(in_channels=[24, 48, 96]), encoder=dict(num_layers=1), "
    "decoder=dict(num_layers=2), test_cfg=dict(max_per_img=20, chunked_size={chunked})"
)
_GLIP = (
    f"backbone=dict({_SWIN}), neck=dict(in_channels=[24, 48, 96]), bbox_head=dict(num_dyhead_blocks=1), "
    "test_cfg=dict(score_thr=0.01, chunked_size={chunked})"
)
KINDS = {
    "grounding_dino": ("grounding_dino/grounding_dino_swin-t_pretrain_obj365_goldg_cap4m.py", _DINO),
    "mm_grounding_dino": ("mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py", _DINO),
    "glip": ("glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py", _GLIP),
    "glip_fused": ("glip/glip_atss_swin-t_b_fpn_dyhead_pretrain_obj365.py", _GLIP),
}
_WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "can", "car", "##ton", "milk", "bottle", "of", "tin",
    "object",
)  # fmt: skip


def write(folder: Path, kind: str, chunked_size: int = -1) -> Path:
    """The folder of one of KINDS, with its language model in `bert-base-uncased`."""
    bert = folder / "bert-base-uncased"
    bert.mkdir(exist_ok=True)
    (bert / "vocab.txt").write_text("\n".join(_WORDS) + "\n")
    (bert / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    size = 768 if kind == "glip_fused" else 32  # which mmdet's fusion takes for granted
    content = {
        "model_type": "bert", "vocab_size": len(_WORDS), "hidden_size": size, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 32, "max_position_embeddings": 256,
    }  # fmt: skip
    (bert / "config.json").write_text(json.dumps(content))
    config, small = KINDS[kind]
    return folder_of(folder, config, f"model = dict({small.format(chunked=chunked_size)})")

"""Full-size models with random weights, as their publishers' files: YOLOF R50-C5, SAM ViT-B, ViT-H, SAM 2.1.

Times and memory are those of the real ones; what they see in a photo is not.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.detector import mmcv_ops

# Hugging Face's own defaults are the base model.
SAM_SIZES: dict[str, dict[str, Any]] = {
    "base": {},
    "huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "global_attn_indexes": [7, 15, 23, 31],
        "mlp_dim": 5120,
    },
}
# Hugging Face's own defaults are the tiny model.
SAM2_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
}
CONFIG = "yolof/yolof_r50-c5_8xb8-1x_coco.py"


def make_yolof(folder: Path) -> None:
    """A zoo folder: the stock config, and a `.pth` whose meta names the classes.

    The weights find things of every score in any picture, so that selecting among boxes costs what it costs.
    """
    mmcv_ops.install()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MMDetection's own
        import mmdet
        from mmdet.evaluation import get_classes
        from mmdet.registry import MODELS
        from mmengine.config import Config
        from mmengine.registry import DefaultScope

        config = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / "configs" / CONFIG)
        config.model.backbone.init_cfg = None
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(config.model)
    _settle(model)
    folder.mkdir(parents=True)
    config.dump(folder / Path(CONFIG).name)
    torch.save({"meta": {"CLASSES": get_classes("coco")}, "state_dict": model.state_dict()}, folder / "random.pth")


def _settle(model: Any) -> None:
    """Set the batch statistics by one pass over the picture, and the head so that its scores spread out."""
    from benchmarks.workload import picture

    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = 1.0
    pixels = torch.from_numpy(picture()[..., ::-1].copy()).permute(2, 0, 1)  # (3, H, W) BGR
    with torch.no_grad():
        batch = model.data_preprocessor({"inputs": [pixels]}, False)["inputs"]
        (features,) = model.extract_feat(batch)
        head = model.bbox_head
        towers = {"cls_score": head.cls_subnet, "object_pred": head.bbox_subnet, "bbox_pred": head.bbox_subnet}
        for name, spread, bias in (("cls_score", 1.5, -4.0), ("object_pred", 1.5, 0.0), ("bbox_pred", 0.3, 0.0)):
            convolution = getattr(head, name)
            nn.init.zeros_(convolution.bias)
            convolution.weight *= spread / convolution(towers[name](features)).std()
            nn.init.constant_(convolution.bias, bias)


def make_sam(folder: Path, size: str = "huge") -> None:
    """A Hugging Face folder in float32 safetensors: "base" takes 0.4 GB, "huge" 2.6 GB.

    transformers' own random weights are near 1e-10. What they compute is denormal, for which an Intel processor takes a
    hundred times as long as for other numbers.
    """
    from transformers import SamConfig, SamImageProcessorPil, SamModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    model = SamModel(SamConfig(vision_config=SAM_SIZES[size]))
    with torch.no_grad():
        model.vision_encoder.pos_embed.normal_(0, 0.5)
        for name, weight in model.vision_encoder.named_parameters():
            if "rel_pos" in name:
                weight.normal_(0, 0.1)
    _of_usual_size(model)
    model.save_pretrained(folder)
    SamImageProcessorPil().save_pretrained(folder)


def make_sam2(folder: Path, size: str = "tiny") -> None:
    """A Hugging Face folder of SAM 2.1 in float32, whose random weights let image, place and prompt reach the masks."""
    from transformers import Sam2Config, Sam2Model

    torch.manual_seed(0)
    config = Sam2Config()
    for name, value in SAM2_SIZES[size].items():
        setattr(config.vision_config.backbone_config, name, value)
    model = Sam2Model(config)
    with torch.no_grad():
        backbone = model.vision_encoder.backbone
        backbone.pos_embed.normal_(0, 0.5)
        backbone.pos_embed_window.normal_(0, 0.5)
    _of_usual_size(model)
    model.save_pretrained(folder)


@torch.no_grad()
def _of_usual_size(model: Any) -> None:
    """Give a SAM weights as torch draws them, and places that it can tell."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            module.reset_parameters()
    place = model.shared_image_embedding.positional_embedding.normal_(0, 1)
    model.prompt_encoder.shared_embedding.positional_embedding.copy_(place)

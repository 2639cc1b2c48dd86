"""The language model of MMDetection's open-vocabulary detectors (Grounding DINO, GLIP): its files, and what it reads.

MMDetection fetches BERT by its name. Here its tokenizer and its config.json lie in the detector's folder, its weights
in the detector's checkpoint, and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoints import ModelFilesError, read_json_object
from models.detector.glip_layer import GlipTextLayer
from models.detector.huggingface.network import CONFIG_ERRORS
from models.detector.huggingface.texts import FILES
from models.detector.single_image import name_of
from models.huggingface_folder import is_of
from models.types import TextsError

# Which transformers 5 no longer keeps in a checkpoint.
LEFT_OFF = ("language_model.*.position_ids",)
_CONFIG = "config.json"
# Tokens that GLIP assigns to texts.
_MAPPED = 256
_VOCABULARIES = ("tokenizer.json", "vocab.txt")


def language_files(config: Any, path: Path) -> dict[str, Path]:
    """What the language model of a detector's config is made from, by names in the detector's folder; {} without one.

    path: the config. Raises ModelFilesError where something is missing.
    """
    node = config.model.get("language_model")
    if not isinstance(node, Mapping):
        return {}
    folder = _folder(node, path)
    before = "" if folder == path.parent else f"{folder.name}/"
    return {before + name: folder / name for name in (_CONFIG, *FILES) if (folder / name).is_file()}


def from_folder(model: Any, path: Path) -> None:
    """Let a detector's `model` config, of the config at `path`, take its language model from files. Others stay as they
    are. Raises ModelFilesError."""
    node = model.get("language_model")
    if not isinstance(node, Mapping):
        return
    folder = _folder(node, path)
    options = {key: value for key, value in node.items() if key not in ("type", "name", "use_checkpoint")}
    model["language_model"] = dict(type=Bert, folder=str(folder), **options)
    head = model.get("bbox_head") or {}
    if name_of(head.get("type")) == "ATSSVLFusionHead":
        from mmdet.models.dense_heads import atss_vlfusion_head

        head.update(lang_model_name=str(folder), use_checkpoint=False)
        # Its own is made of parts that transformers 5 has elsewhere, or with other arguments.
        atss_vlfusion_head.BertEncoderLayer = GlipTextLayer


def _folder(node: Mapping[str, Any], path: Path) -> Path:
    """Where the language model's files lie: in a folder of its name beside the config, or beside the config itself."""
    name = str(node.get("name") or "bert-base-uncased")
    own = path.parent / Path(name).name
    places = [own, path.parent, *([Path(name)] if Path(name).is_absolute() else [])]
    for place in places:
        config = place / _CONFIG
        if config.is_file() and is_of(config, ("bert",)) and any((place / one).is_file() for one in _VOCABULARIES):
            return place
    raise ModelFilesError(
        f"{path}: it reads texts by the language model {name!r}, of which nothing is fetched: expected config.json, "
        f"tokenizer_config.json, and tokenizer.json or vocab.txt of it in {own}. Bring them from where it was "
        "published; its weights are in the detector's checkpoint"
    )


class Tokenizer:
    """A tokenizer of transformers for several threads, of which it would refuse all but one."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelFilesError."""
        from transformers import AutoTokenizer

        self._lock = Lock()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            self(["object"])
        except CONFIG_ERRORS as error:
            present = ", ".join(name for name in FILES if (folder / name).is_file())
            raise ModelFilesError(f"{folder}: its tokenizer ({present}) cannot be read: {error}") from error

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, texts: Sequence[str], **options: Any) -> Any:
        with self._lock:
            return self._tokenizer(list(texts), **options)

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """Their numbers."""
        with self._lock:
            return list(self._tokenizer.convert_tokens_to_ids(list(tokens)))


class Bert(nn.Module):
    """In place of mmdet 3.3.0's `BertModel`, with its weights' names: the same from a folder, by transformers 5."""

    def __init__(
        self,
        folder: str,
        max_tokens: int = 256,
        pad_to_max: bool = True,
        use_sub_sentence_represent: bool = False,
        special_tokens_list: Sequence[str] | None = None,
        add_pooling_layer: bool = False,
        num_layers_of_embedded: int = 1,
    ) -> None:
        """folder: of the tokenizer and config.json. The others: as there. Raises ModelFilesError."""
        super().__init__()
        from transformers import BertConfig, BertModel

        path = Path(folder) / _CONFIG
        self.tokenizer = Tokenizer(Path(folder))
        try:
            config = BertConfig.from_dict(read_json_object(path) | {"attn_implementation": "sdpa"})
            body = nn.Module()
            body.model = BertModel(config, add_pooling_layer=add_pooling_layer)
        except CONFIG_ERRORS as error:
            raise ModelFilesError(f"{path}: cannot build the language model: {error}") from error
        body.language_dim = config.hidden_size
        self.language_backbone = nn.Sequential()
        self.language_backbone.add_module("body", body)
        if len(self.tokenizer) > config.vocab_size:
            raise ModelFilesError(
                f"{path}: vocab_size: expected at least the {len(self.tokenizer)} tokens of the tokenizer beside it, "
                f"got {config.vocab_size}: bring both from where the detector's language model was published"
            )
        self.max_tokens = min(max_tokens, config.max_position_embeddings)
        self.pad_to_max = pad_to_max
        self._several = num_layers_of_embedded
        self.special_tokens = self.tokenizer.ids(special_tokens_list or ()) if use_sub_sentence_represent else None
        self.stops = frozenset(one for one in special_tokens_list or () if len(one) == 1 and use_sub_sentence_represent)

    def forward(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Captions -> their tokens' features, `embedded` and `hidden` (N, tokens, C), and which of them see which."""
        from mmdet.models.language_models.bert import generate_masks_with_special_tokens_and_transfer_map

        model: Any = self.language_backbone.get_submodule("body.model")
        tokenized = self.tokenizer(
            captions,
            max_length=self.max_tokens,
            padding="max_length" if self.pad_to_max else "longest",
            truncation=True,
            return_token_type_ids=True,
            return_tensors="pt",
        ).to(next(model.parameters()).device)
        places = types = None
        masks = seen = tokenized["attention_mask"]
        if self.special_tokens is not None:
            masks, places = generate_masks_with_special_tokens_and_transfer_map(tokenized, self.special_tokens)
            seen, types = masks[:, None], tokenized["token_type_ids"]  # transformers 5 takes four dimensions, or two
        outputs = model(
            input_ids=tokenized["input_ids"],
            attention_mask=seen,
            position_ids=places,
            token_type_ids=types,
            output_hidden_states=True,
        )
        layers = outputs.hidden_states[1:]
        # Divided twice, as there.
        features = torch.stack(layers[-self._several :], 1).mean(1) / self._several
        if places is None:
            return {"embedded": features * masks[..., None].float(), "masks": masks, "hidden": layers[-1]}
        return {
            "embedded": features,
            "masks": masks,
            "hidden": layers[-1],
            "position_ids": places,
            "text_token_mask": tokenized["attention_mask"].bool(),
        }


def takes_texts(model: Any) -> bool:
    """Whether a built model of MMDetection finds what texts name."""
    return isinstance(getattr(model, "language_model", None), Bert)


def is_chunked(model: Any) -> bool:
    """Whether it reads its texts in portions, which it does for one image at a time."""
    return takes_texts(model) and model.test_cfg.get("chunked_size", -1) > 0


def asked(model: Any, texts: Sequence[str]) -> dict[str, Any]:
    """What MMDetection is told of an image in which to find these texts. Raises TextsError for texts that it cannot
    read, of which it would make scores that are no numbers."""
    from mmdet.models.detectors.glip import clean_label_name

    texts = tuple(text.strip() for text in texts)
    language = model.language_model
    if not texts:
        raise TextsError('expected what to find, as ["can", "milk carton"], got no texts')
    for text in texts:
        if set(text) & language.stops:
            marks = " and ".join(sorted(language.stops))
            raise TextsError(f"expected texts without {marks}, at which this detector parts them, got {text!r:.80}")
        if not clean_label_name(text).strip():
            raise TextsError(f"expected texts with words outside of brackets, got {text!r:.80}")
    longest = min(language.max_tokens, getattr(model.bbox_head, "max_text_len", _MAPPED))
    at_once = model.test_cfg.get("chunked_size", -1) if is_chunked(model) else len(texts)
    for start in range(0, len(texts), at_once):
        cleaned = [clean_label_name(text) for text in texts[start : start + at_once]]
        caption, positive = model.to_plain_text_prompts(cleaned)
        tokenized = language.tokenizer([caption], return_tensors="pt")
        count = tokenized["input_ids"].shape[1]
        if count > longest:
            what = "all texts together" if at_once >= len(texts) else f"{at_once} texts together"
            raise TextsError(f"expected at most {longest} tokens for {what}, got {count}: make them fewer")
        of_texts, _ = model.get_positive_map(tokenized, positive)
        unread = [text for text, tokens in zip(cleaned, of_texts.values(), strict=True) if not tokens]
        if unread:
            raise TextsError(f"expected texts that the detector's tokenizer knows, got {unread[0]!r:.80}")
    return {"text": texts, "custom_entities": True}

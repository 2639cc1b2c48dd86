"""What a request wants found, as an open-vocabulary detector reads it: texts to tokens, and tokens back to texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from models.checkpoints import ModelFilesError
from models.detector.huggingface.model_types import SENTENCE
from models.detector.huggingface.network import CONFIG_ERRORS
from models.types import TextsError

# What a tokenizer may lie in.
FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt",
)  # fmt: skip


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """What of a tokenizer is in a folder, by name."""
    return {name: folder / name for name in FILES if (folder / name).is_file()}


@dataclass(frozen=True, eq=False)
class Tokens:
    """Texts as the network's inputs, for a batch of one.

    spans: where the network reads all texts as one sentence, for each text the places of its tokens; else None.
    """

    inputs: dict[str, Tensor]
    spans: tuple[tuple[int, ...], ...] | None


class TextReader:
    """The tokenizer in an open-vocabulary detector's folder."""

    def __init__(self, tokenizer: Any, model_type: str, longest: int) -> None:
        """longest: how many tokens the network reads at most, of one text or of the sentence of all."""
        self._tokenizer = tokenizer
        self._longest = longest
        self._lock = Lock()  # tokenizers refuse to work for two threads at once
        self.read = lru_cache(maxsize=64)(self._sentence if model_type in SENTENCE else self._separately)

    @classmethod
    def load(cls, folder: Path, config: Any) -> TextReader:
        """Raises ModelFilesError where there is no tokenizer in the folder."""
        from transformers import AutoTokenizer

        present = tokenizer_files(folder)
        if not {"tokenizer.json", "vocab.txt", "vocab.json"} & set(present):
            raise ModelFilesError(
                f"{folder}: expected the tokenizer by which it reads texts (tokenizer.json, vocab.txt, or vocab.json "
                "with merges.txt): bring it from where the model was published"
            )
        text_config = config.text_config
        longest = int(text_config.max_position_embeddings)
        if config.model_type in SENTENCE:
            longest = min(longest, int(config.max_text_len))
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            reader = cls(tokenizer, config.model_type, longest)
            reader.read(("object",))
        except CONFIG_ERRORS as error:
            raise ModelFilesError(f"{folder}: its tokenizer ({', '.join(present)}) cannot be read: {error}") from error
        return reader

    def _separately(self, texts: tuple[str, ...]) -> Tokens:
        """Each text for itself, filled up to the longest that the network reads."""
        with self._lock:
            for text in texts:
                self._check_length(len(self._tokenizer(text)["input_ids"]), f"the text {text!r:.80}")
            made = self._tokenizer(list(texts), padding="max_length", max_length=self._longest, return_tensors="pt")
        return Tokens({key: made[key] for key in ("input_ids", "attention_mask")}, None)

    def _sentence(self, texts: tuple[str, ...]) -> Tokens:
        """All texts in one sentence, each with a full stop after it, in small letters."""
        for text in texts:
            if set(text) & set(".?"):
                raise TextsError(f"expected texts without . and ?, at which this detector parts them, got {text!r:.80}")
        sentence = ". ".join(text.strip().lower() for text in texts) + "."
        with self._lock:
            made = self._tokenizer(sentence, return_tensors="pt", return_token_type_ids=True)
        ids = made["input_ids"][0].tolist()
        self._check_length(len(ids), "all texts together")
        spans = self._spans(ids)
        if len(spans) != len(texts) or not all(spans):
            raise TextsError(f"expected texts that the detector's tokenizer can tell apart, got {list(texts)!r:.200}")
        return Tokens(dict(made), spans)

    def _spans(self, ids: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The places of the tokens before each full stop."""
        stop = self._tokenizer.convert_tokens_to_ids(".")
        special = set(self._tokenizer.all_special_ids) - {self._tokenizer.unk_token_id}
        spans: list[list[int]] = [[]]
        for place, token in enumerate(ids):
            if token == stop:
                spans.append([])
            elif token not in special:
                spans[-1].append(place)
        return tuple(tuple(span) for span in spans[:-1])

    def _check_length(self, count: int, what: str) -> None:
        if count > self._longest:
            raise TextsError(f"expected at most {self._longest} tokens for {what}, got {count}: make them fewer")


def best_texts(probabilities: Tensor, spans: Sequence[Sequence[int]]) -> Tensor:
    """(N, tokens) -> (N,): the text whose most probable token is the most probable of all texts'."""
    of_texts = [probabilities[:, list(span)].amax(dim=1) for span in spans]
    return torch.stack(of_texts, dim=1).argmax(dim=1)

"""Captions as token ids: never cut in silence."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cprd_pipeline.errors import ModelError, SettingsError


class Caption(NamedTuple):
    """A caption as token ids.

    Args:
        ids: int64 [at least 1], cut at the maximum length, on the CPU.
        tokens: Number of tokens before cutting.
    """

    ids: Tensor
    tokens: int


def tokenize(tokenizer: Any, captions: Sequence[str], limit: int) -> list[Caption]:
    """Token ids of each caption, special tokens included.

    Args:
        tokenizer: Of transformers.
        captions: Texts.
        limit: Longest caption in tokens; the tokenizer, not a slice, cuts longer ones, so that they keep their last special token.

    Raises:
        ModelError: The tokenizer leaves nothing of a caption.
    """
    texts = list(captions)
    full = [len(ids) for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
    if 0 in full:
        raise ModelError(f"the tokenizer leaves nothing of the caption {texts[full.index(0)]!r}", expected="at least one token")
    cut = tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    return [Caption(torch.tensor(ids, dtype=torch.long), tokens) for ids, tokens in zip(cut, full, strict=True)]


def text_limit(tokenizer: Any, positions: int, wanted: int | None) -> int:
    """Longest caption in tokens: as wanted, or what tokenizer and position embeddings allow.

    Args:
        tokenizer: Of transformers.
        positions: Position embeddings that a caption may use.
        wanted: The setting; null for the model's own limit.

    Raises:
        SettingsError: More is wanted than they allow.
    """
    limit = min(int(tokenizer.model_max_length), positions)
    if wanted is not None and wanted > limit:
        raise SettingsError(f"teacher.max_text_tokens is {wanted}", expected=f"at most {limit}, this teacher's own limit")
    return wanted or limit

"""Which teacher a stage uses: settings alone, no heavy imports."""

from typing import Literal

from cprd_pipeline.settings import PositiveInt, Settings


class TeacherChoice(Settings):
    """A teacher and what shapes its scores.

    Args:
        model: Folder or hub name.
        adapter: Own adapter as `package.module:Class`; null finds the one for the model's family.
        score: What counts: `margin`, match minus no-match logit; `match_logit` alone; `match_logit+itc`, plus the cosine of
            the contrastive head, as in the published retrieval evaluations of BLIP and BLIP-2.
        first_token: BLIP's token 0: `cls` as in transformers, `enc` as in its published retrieval evaluation.
        max_text_tokens: Longest caption in tokens; null for the model's own limit.
        prompt: What a reranker is told before each pair; null for the model's own.
        dtype: What it computes with; part of the teacher's fingerprint, so no choice by machine.
    """

    model: str = "data/teacher"
    adapter: str | None = None
    score: Literal["margin", "match_logit", "match_logit+itc"] = "margin"
    first_token: Literal["cls", "enc"] = "cls"
    max_text_tokens: PositiveInt | None = None
    prompt: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"

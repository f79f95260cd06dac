"""Which teacher a stage uses: settings alone, no heavy imports."""

from typing import Literal

from cprd_pipeline.settings import PositiveInt, Settings


class TeacherChoice(Settings):
    """A teacher and what shapes its scores.

    Args:
        model: Folder or hub name.
        adapter: Own adapter as `package.module:Class`; null finds the one for the model's family.
        first_token: BLIP's token 0: `cls` as in transformers, `enc` as in its published retrieval evaluation.
        max_text_tokens: Longest caption in tokens (BLIP); null for the model's own limit.
        dtype: What it computes with; part of the teacher's fingerprint, so no choice by machine.
    """

    model: str = "data/teacher"
    adapter: str | None = None
    first_token: Literal["cls", "enc"] = "cls"
    max_text_tokens: PositiveInt | None = None
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"

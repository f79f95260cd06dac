"""Counts the ids that look-ups hash, which is their work."""

import pyarrow as pa
import pytest

from cprd_pipeline.corpus import lookup
from cprd_pipeline.corpus.id_hashes import Hashes, id_hashes


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on sides of any size have their own table; each call to hash ids adds their number to the list."""
    counts: list[int] = []

    def counting(ids: pa.LargeStringArray) -> Hashes:
        counts.append(len(ids))
        return id_hashes(ids)

    monkeypatch.setattr(lookup, "_FEW", -1)
    monkeypatch.setattr(lookup, "id_hashes", counting)
    return counts

"""A folder with a corpus, candidates and the stub teacher."""

from pathlib import Path

import pytest

from tests.scoring.stub import StubTeacher, stub_folder, tangled_corpus, write_candidates


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that a run needs; the stub's memory is empty."""
    monkeypatch.setattr(StubTeacher, "seen", [])
    monkeypatch.setattr(StubTeacher, "loads", 0)
    tangled_corpus(tmp_path / "corpus")
    write_candidates(tmp_path / "candidates", tmp_path / "corpus", k=4)
    stub_folder(tmp_path / "stub")
    return tmp_path

"""What every test room shares: no test writes outside its own folder."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPRD_CACHE", str(tmp_path / "cache"))

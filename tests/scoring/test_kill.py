"""SIGKILL at any moment, then the same command: the same rankings, the same rows, and hardly a pair scored twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.scoring.run import run
from cprd_pipeline.scoring.settings import ScoreSettings
from tests.pipeline.tiny_models import tiny_blip_teacher
from tests.scoring.slow_stub import LOGGING
from tests.scoring.stub import score_settings, stub_folder, write_candidates
from tests.scoring.test_score_teacher import ROOT, bytes_of, stored
from tests.tiny_encoders import simple_corpus

KILLS = 20
PART, LIST = 60, 12


def test_killed_at_twenty_random_moments_it_ends_as_if_it_never_was(tmp_path: Path) -> None:
    """Rankings bytes and store rows of every run equal the unkilled one's; a kill costs at most one part's pairs."""
    simple_corpus(tmp_path / "corpus", 60)
    write_candidates(tmp_path / "candidates", tmp_path / "corpus", k=LIST, part=30)
    stub_folder(tmp_path / "stub")
    teacher = {"model": str(tmp_path / "stub"), "adapter": LOGGING}
    settings = score_settings(tmp_path, teacher=teacher, part_pairs=PART).model_dump(mode="json")
    (tmp_path / "whole").mkdir()
    command = [sys.executable, "-m", "tests.scoring.killer", json.dumps(settings), str(tmp_path), str(KILLS), "7"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills = json.loads(done.stdout)
    assert sum(kills) >= KILLS
    whole = Counter((tmp_path / "whole" / "cache.seen").read_text().splitlines())
    assert set(whole.values()) == {1}
    captions = len(Corpus(tmp_path / "corpus").captions)
    for number, killed in enumerate(kills):
        folder = tmp_path / f"killed-{number}"
        assert bytes_of(folder / "rankings") == bytes_of(tmp_path / "whole" / "rankings")
        assert stored(folder / "cache" / "scores").equals(stored(tmp_path / "whole" / "cache" / "scores"))
        seen = Counter((folder / "cache.seen").read_text().splitlines())
        assert set(seen) == set(whole)
        # A part ends with the image that fills it.
        assert seen.total() - whole.total() <= killed * (PART + captions)


PROGRAM = """
import sys
from cprd_pipeline.scoring.run import run
from cprd_pipeline.scoring.settings import ScoreSettings
run(ScoreSettings.model_validate_json(sys.argv[1]))
"""


def test_killed_at_work_it_ends_with_the_same_bytes_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL once some parts are in the store, then the same command: as a run that was never killed, bit by bit."""
    simple_corpus(tmp_path / "corpus", 40)
    write_candidates(tmp_path / "candidates", tmp_path / "corpus", k=12, part=30)
    tiny_blip_teacher(tmp_path / "blip", Corpus(tmp_path / "corpus").texts)
    common = {"teacher": {"model": str(tmp_path / "blip")}, "part_pairs": 40, "token_budget": 60}
    settings = score_settings(tmp_path, **common, output=tmp_path / "again", report=tmp_path / "again.json")
    scores = tmp_path / "killed" / "scores"
    process = start(settings, tmp_path / "killed")
    deadline = time.monotonic() + 120
    while process.poll() is None and len(list((scores / "_delta_log").glob("*.json"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "again").exists()
    done = len(stored(scores))
    # As many threads as the killed process had: sums of floats depend on them.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(score_settings(tmp_path, **common))
        monkeypatch.setenv("CPRD_CACHE", str(tmp_path / "killed"))
        results = run(settings).results
    finally:
        torch.set_num_threads(threads)
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "rankings")
    assert stored(scores).equals(stored(tmp_path / "cache" / "scores"))
    assert results["stored"] == done >= 80
    assert results["stored"] + results["scored"] == len(stored(scores))


def start(settings: ScoreSettings, cache: Path) -> subprocess.Popen[bytes]:
    """The stage in a process of its own, with one thread."""
    environment = {**os.environ, "CPRD_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, settings.model_dump_json()]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)

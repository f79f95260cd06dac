"""TensorBoard shows the rows of the training log, each once, also after an interruption."""

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cprd_pipeline.distillation.log import LogRow, TensorBoard
from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.errors import MissingDependencyError

ALONE = Processes()


def rows_of(steps: list[int], run: float = 0.0) -> list[LogRow]:
    """Rows of a log; every second one holds an evaluation too."""
    return [{"step": step, "loss": step + run, "scale": 14.0} | ({"eval_rsum": 2.0 * step} if step % 2 else {}) for step in steps]


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads: step and value of each series."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_every_number_of_every_row_is_a_point(tmp_path: Path) -> None:
    """At its step, in a series of its name; the log grows between calls, and rows written before are not written again."""
    log = rows_of([1, 2])
    with TensorBoard.open(tmp_path / "board", 0, ALONE) as board:
        board.write([])
        board.write(log)
        board.write(log)
        log += rows_of([5, 6])
        board.write(log)
    assert shown(tmp_path / "board") == {
        "loss": [(step, float(step)) for step in (1, 2, 5, 6)],
        "scale": [(step, 14.0) for step in (1, 2, 5, 6)],
        "eval_rsum": [(1, 2.0), (5, 10.0)],
    }


def test_what_is_written_can_be_watched_before_the_run_ends(tmp_path: Path) -> None:
    """Points are in the file when `write` returns."""
    with TensorBoard.open(tmp_path, 0, ALONE) as board:
        board.write(rows_of([2]))
        assert shown(tmp_path)["loss"] == [(2, 2.0)]


def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    """Killed after step 6 with a checkpoint of step 4: steps 5 and 6 are those of the second attempt, nothing is there twice."""
    with TensorBoard.open(tmp_path, 0, ALONE) as board:
        board.write(rows_of([2, 4, 5, 6]))
    with TensorBoard.open(tmp_path, 4, ALONE) as board:
        board.write(rows_of([2, 4]))
        board.write(rows_of([2, 4]) + rows_of([5, 6], run=0.5))
    assert shown(tmp_path)["loss"] == [(2, 2.0), (4, 4.0), (5, 5.5), (6, 6.5)]


def test_a_run_from_the_beginning_replaces_an_earlier_one(tmp_path: Path) -> None:
    """The folder of another run is used again: only the new points count."""
    for run in (0.0, 0.25):
        with TensorBoard.open(tmp_path, 0, ALONE) as board:
            board.write(rows_of([1, 2], run))
    assert shown(tmp_path)["loss"] == [(1, 1.25), (2, 2.25)]


@pytest.mark.parametrize(("named", "processes"), [(False, ALONE), (True, Processes(1, 2))], ids=["not asked for", "not leading"])
def test_nothing_is_written_where_nothing_is_wanted(tmp_path: Path, named: bool, processes: Processes) -> None:
    """Without a folder, and by any process but the leading one, which needs no tensorboard either."""
    folder = tmp_path / "board"
    with TensorBoard.open(folder if named else None, 0, processes) as board:
        board.write(rows_of([1, 2]))
    assert not folder.exists()


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install, or which setting to change."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    told = r"tensorboard is not installed.*cprd-pipeline\[tensorboard\].*set tensorboard to null"
    with pytest.raises(MissingDependencyError, match=told), TensorBoard.open(tmp_path, 0, ALONE):
        raise AssertionError("never reached")

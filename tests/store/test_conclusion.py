"""Which earlier report a command shows: that of the run which made the very output, or none."""

from pathlib import Path

import pytest

from cprd_pipeline.store.conclusion import conclude, earlier_report
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import StageReport, read_report


def writer_of(folder: Path, **settings: object) -> OutputWriter:
    return OutputWriter(folder / "out", "candidates", settings, {"corpus": "c"})


def finished(folder: Path, **settings: object) -> OutputWriter:
    writer = writer_of(folder, **settings)
    writer.write_json("part.json", settings)
    writer.finish()
    return writer


def report_of(folder: Path, **settings: object) -> StageReport:
    return StageReport("mine", {"output": (folder / "out").as_posix(), **settings}, {"figure": 1}, [("a", "b")])


def test_the_report_of_the_output_is_found_again(tmp_path: Path) -> None:
    """Marked as up to date; the state has gone with it."""
    writer = finished(tmp_path, k=3)
    saved = conclude(report_of(tmp_path, k=3), tmp_path / "report.json", writer)
    assert not writer.state.exists()
    assert read_report(tmp_path / "report.json") == saved
    found = earlier_report(tmp_path / "report.json", writer_of(tmp_path, k=3))
    assert found is not None
    assert found.up_to_date
    assert found.results == {"figure": 1}


def test_without_an_output_there_is_no_report(tmp_path: Path) -> None:
    """Though an older run left one."""
    conclude(report_of(tmp_path, k=3), tmp_path / "report.json", finished(tmp_path, k=3))
    assert earlier_report(tmp_path / "report.json", writer_of(tmp_path, k=4)) is None


def test_a_run_killed_before_its_report_does_not_show_the_one_before(tmp_path: Path) -> None:
    """The output is the new one, the report about the old one."""
    conclude(report_of(tmp_path, k=3), tmp_path / "report.json", finished(tmp_path, k=3))
    finished(tmp_path, k=4)
    writer = writer_of(tmp_path, k=4)
    assert writer.is_current()
    assert earlier_report(tmp_path / "report.json", writer) is None


def test_a_report_about_other_content_of_the_same_identity_is_made_again(tmp_path: Path) -> None:
    """As of a corpus whose pictures changed: its manifest's settings and inputs are the same."""
    conclude(report_of(tmp_path), tmp_path / "report.json", finished(tmp_path))
    writer = writer_of(tmp_path)
    writer.renew()
    writer.write_json("part.json", {"other": 1})
    writer.finish()
    assert earlier_report(tmp_path / "report.json", writer) is None
    assert earlier_report(tmp_path / "report.json", writer_of(tmp_path)) is None


def test_a_report_of_an_earlier_version_is_kept(tmp_path: Path) -> None:
    """It does not say which content it is about, and its figures of speed cannot be had again."""
    writer = finished(tmp_path)
    report_of(tmp_path).save(tmp_path / "report.json")
    assert earlier_report(tmp_path / "report.json", writer) is not None


@pytest.mark.parametrize("damage", ["", "{", "remove", "elsewhere"])
def test_a_report_that_is_none_is_made_again(tmp_path: Path, damage: str) -> None:
    """Gone, damaged, or about an equal output in another place."""
    path = tmp_path / "report.json"
    report = report_of(tmp_path / "other" if damage == "elsewhere" else tmp_path)
    conclude(report, path, finished(tmp_path))
    if damage == "remove":
        path.unlink()
    elif damage != "elsewhere":
        path.write_text(damage)
    assert earlier_report(path, writer_of(tmp_path)) is None


def test_settings_that_shape_the_report_alone_must_be_the_same(tmp_path: Path) -> None:
    """Others may differ."""
    conclude(report_of(tmp_path, margin=1, workers=2), tmp_path / "report.json", finished(tmp_path))
    writer = writer_of(tmp_path)
    assert earlier_report(tmp_path / "report.json", writer, {"margin": 1}) is not None
    assert earlier_report(tmp_path / "report.json", writer, {"margin": 2}) is None

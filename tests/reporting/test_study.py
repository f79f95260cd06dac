"""The page of a study: everything of the report is on it, in the settings' order, and nothing of the user's becomes markup."""

import html
import json
import re

import pytest

from cprd_pipeline.errors import StoreError
from cprd_pipeline.evaluation.study.run import run
from cprd_pipeline.reporting.study import study_page, write_study_page
from cprd_pipeline.store.report import StageReport
from tests.evaluation.study.small_study import ARMS, make_small_study
from tests.reporting.browser import CHROMIUM, open_page
from tests.reporting.conftest import HOSTILE


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study with its page; the label of an arm is an attack."""
    root = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPRD_CACHE", str(root / "cache"))
        study = make_small_study(root / "run", text=HOSTILE)
        run(study.settings)
    write_study_page(study.settings.report, study.settings.page)
    return study


@pytest.fixture(scope="module")
def results(study):
    """Of its report."""
    return json.loads(study.settings.report.read_text())["results"]


def test_arms_stand_in_the_order_of_the_settings(study):
    """Bars, tables and legends; a JSON file that is sorted by key must not change that."""
    text = study.settings.page.read_text()
    rows = re.findall(r'<th scope="row">(.*?)</th>', text)
    assert [html.unescape(row) for row in rows[: len(ARMS)]] == ["plain", HOSTILE, "wild"]


def test_every_number_of_the_results_is_there(study, results):
    """RSUM of each seed, differences, and the verdict of each finding."""
    text = study.settings.page.read_text()
    for arm in results["arms"]:
        assert all(f"<td>{value:.1f}</td>" in text for value in arm["rsum"])
    for one in results["findings"]:
        assert f"{html.escape(one['text'])}<small>" in text
    assert text.count("</figure>") == 4
    assert text.count("<polyline") == 3 + 3 + 2


def test_nothing_of_the_users_becomes_markup(study):
    """A label that is an attack is text; the page runs no script and asks no network."""
    text = study.settings.page.read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)
    assert "default-src 'none'" in text


def test_what_was_not_measured_is_left_out(results):
    """Without cosines no section of gradients; a band without pairs is a dash, and truth adds a plot and a line."""
    bands = results["bands"] | {"arms": {arm: {band: [None, None] for band in results["bands"]["bands"]} for arm in ARMS}}
    text = study_page(results | {"cosines": {}, "bands": bands, "teacher": None})
    assert 'id="gradients"' not in text
    assert "nothing to show" in text
    truth = {"bands": dict.fromkeys(bands["bands"], 0.25), "valid_from_rest": None}
    known = study_page(results | {"bands": bands | {"truth": truth}})
    assert "teacher against the truth" in known
    assert known.count("</figure>") == 5


def test_another_stages_report_is_refused(tmp_path):
    """The message names what it is."""
    StageReport("mine", {}, {}, []).save(tmp_path / "mine.json")
    with pytest.raises(StoreError, match=r"mine.json: the report of mine; expected that of study"):
        write_study_page(tmp_path / "mine.json", tmp_path / "page.html")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_shows_it_without_complaint(study, tmp_path):
    """Nothing in the console, and every section is laid out."""
    seen = open_page(study.settings.page, tmp_path)
    assert seen.console == []
    assert seen.document.count("<section") == 5

"""The page as a file: complete, self-contained, deterministic, everything escaped."""

import html
import json
import re

import pytest

from cprd_pipeline.errors import SettingsError, StoreError
from cprd_pipeline.reporting.run import run
from cprd_pipeline.store.report import read_report
from tests.reporting.conftest import settings_of, write
from tests.small_run import write_rankings


def test_the_results_are_those_of_the_evaluation(made, written):
    """Each model's RSUM and recalls stand in the table, and the headline says how far the student came."""
    metrics = json.loads((made.root / "metrics.json").read_text())
    table = written.text[written.text.index('<table class="results">') : written.text.index("</table>")]
    figures_in = re.sub(r"<(small|b)[^>]*>[^<]*</\1>", "", table)
    for figures in metrics.values():
        cells = "".join(
            f'<td class="{css}">{figures[key]:.1f}</td>'
            for key, css in [("rsum", "total")] + [(f"{d}_r{k}", "") for d in ("i2t", "t2i") for k in (1, 5, 10)]
        )
        assert cells in figures_in
    gap = (metrics["cprd"]["rsum"] - metrics["base"]["rsum"]) / (metrics["teacher"]["rsum"] - metrics["base"]["rsum"])
    assert f"<strong>{gap:.0%}</strong>" in written.text


def test_stages_show_counts_and_times(written):
    """The stage's name, its table, the time of each part and their sum; markup in them stays text."""
    assert "mine test<span>1 min 4 s</span>" in written.text
    assert "embedding 3.2 s, searching 1 min 1 s" in written.text
    assert "<dt>i2t queries</dt><dd>1,234</dd>" in written.text
    assert "<dd>&lt;b&gt;bold&lt;/b&gt;</dd>" in written.text


def test_the_page_needs_nothing_else(written):
    """No address but data URIs and places in the page itself, which exist; and a policy that would stop any other."""
    links = re.findall(r'(?:src|href)="([^"]*)"', written.text)
    assert links
    inside = {link[1:] for link in links if link.startswith("#")}
    assert all(link.startswith(("data:", "#")) for link in links)
    assert inside <= set(re.findall(r'\bid="([^"]*)"', written.text))
    assert not re.search(r"https?://|@import|url\(", written.text)
    assert "default-src 'none'" in written.text


def test_captions_never_become_markup(written):
    """An attack in a caption appears only inside the JSON, without a single angle bracket."""
    assert "<script>document" not in written.text
    assert "<img src=x" not in written.text


def test_fingerprints_and_versions_are_shown(made, written):
    """Of the corpus, the teacher, the rankings and every student; and the library versions of the stages."""
    inputs = json.loads((made.root / "evaluation" / "_manifest.json").read_text())["inputs"]
    for name, digest in inputs.items():
        assert f"<dt>{name}</dt><dd><code>{digest}</code></dd>" in written.text
    libraries = read_report(made.root / "mine_test.json").machine["libraries"]
    assert all(f"<dt>{name}</dt><dd>{version}</dd>" in written.text for name, version in libraries.items())


def test_the_same_inputs_make_the_same_bytes(made, written):
    """No time, no host, no order that changes from run to run."""
    assert write(made).text == written.text


def test_learning_curves_thin_long_logs(written):
    """900 steps become at most 240 points; a term that is zero throughout is left out."""
    curves = written.text[written.text.index('id="learning"') : written.text.index('id="gallery"')]
    points = re.findall(r'<polyline points="([^"]*)"', curves)
    assert [len(line.split()) for line in points] == [240, 240]
    assert "distillation</span>" not in curves


def test_the_report_says_what_was_written(made, tmp_path):
    """Counts and the page's size, also for machines."""
    settings = settings_of(made, output=tmp_path / "report.html", report=tmp_path / "report.json")
    done = run(settings)
    assert read_report(settings.report).results == done.results
    assert done.results["bytes"] == settings.output.stat().st_size
    assert done.results["queries"] == 56


def test_settings_in_the_page_are_readable(written):
    """Each stage's settings can be unfolded."""
    shown = [json.loads(html.unescape(text)) for text in re.findall(r"<pre[^>]*>(.*?)</pre>", written.text, re.DOTALL)]
    assert shown[0]["settings"] == {"k": 12}
    assert shown[1]["settings"]["rerank_depth"] == 10


def test_a_page_without_stages_and_logs(made, tmp_path):
    """What is not named is left out, its place in the navigation too."""
    text = write(made, stages=[], logs={}, output=tmp_path / "report.html", report=tmp_path / "report.json").text
    assert re.findall(r'<a href="#(\w+)">', text) == ["results", "movement", "distributions", "gallery", "origin"]
    assert re.findall(r'<section id="(\w+)">', text) == ["results", "movement", "distributions", "gallery", "origin"]


def test_rankings_of_another_run_are_refused(own):
    """The page never sets scores beside figures that were not made from them."""
    write_rankings(own, own.root / "rankings", k=14)
    with pytest.raises(StoreError, match=r"not the rankings of .*evaluation; expected those with digest"):
        run(settings_of(own))


def test_an_unknown_student_is_refused(made):
    """The known ones are named."""
    with pytest.raises(SettingsError, match=r"student is 'kl'.*expected one of base, cprd"):
        run(settings_of(made, student="kl"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no such training log; mend logs.base"),
        ("", "the training log is empty"),
        ('{"step": 1, "loss": 2}\n{"loss": 3}\n', "line 2: no line of a training log"),
        ('{"step": 1, "loss": 2}\nnonsense\n', "line 2: no line of a training log"),
        ("[1]\n", "line 1: no line of a training log"),
    ],
)
def test_a_broken_training_log_is_refused(made, tmp_path, text, message):
    """The file and the line are named."""
    log = tmp_path / "log.jsonl"
    if text is not None:
        log.write_text(text)
    with pytest.raises(StoreError, match=message):
        run(settings_of(made, logs={"base": log}))


def test_a_missing_stage_report_is_refused(made):
    """No stage is left out silently."""
    with pytest.raises(StoreError, match="there is no such report"):
        run(settings_of(made, stages=[made.root / "mine.json"]))


def test_a_failed_run_leaves_the_earlier_page(own):
    """The page is replaced whole or not at all."""
    before = write(own)
    (own.root / "log.jsonl").unlink()
    with pytest.raises(StoreError):
        run(settings_of(own))
    assert before.path.read_text(encoding="utf-8") == before.text
    assert not list(own.root.glob(".report*"))


def test_a_training_that_logged_one_step_has_no_curve(made, tmp_path):
    """A point makes no line; the other training is drawn as ever."""
    (tmp_path / "short.jsonl").write_text('{"step": 50, "loss": 2.5}\n')
    places = {"output": tmp_path / "report.html", "report": tmp_path / "report.json"}
    logs = {"short": tmp_path / "short.jsonl", "base": made.root / "log.jsonl"}
    text = write(made, logs=logs, **places).text
    assert "<strong>short</strong>" not in text
    assert "<strong>base</strong>" in text[text.index('id="learning"') :]
    assert 'id="learning"' not in write(made, logs={"short": tmp_path / "short.jsonl"}, **places).text

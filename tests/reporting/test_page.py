"""The page as a file: complete, self-contained, deterministic, everything escaped."""

import html
import json
import re

import pytest

from cprd_pipeline.errors import SettingsError, StoreError
from cprd_pipeline.reporting.run import run
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.report import read_report
from tests.reporting.conftest import HOSTILE
from tests.small_run import write_rankings


def page_of(settings):
    """The page's text."""
    run(settings)
    return settings.output.read_text(encoding="utf-8")


def data_of(page):
    """The gallery's data as the page's script reads them."""
    return json.loads(re.search(r'<script type="application/json" id="gallery-data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_results_are_those_of_the_evaluation(made, settings_of):
    """Each model's RSUM and recalls stand in the table, and the headline says how far the student came."""
    page = page_of(settings_of(made))
    metrics = json.loads((made.root / "metrics.json").read_text())
    table = page[page.index("<table>") : page.index("</table>")]
    for figures in metrics.values():
        cells = "".join(
            f'<td class="{css}">{figures[key]:.1f}</td>'
            for key, css in [("rsum", "total")] + [(f"{d}_r{k}", "") for d in ("i2t", "t2i") for k in (1, 5, 10)]
        )
        assert cells in table
    gap = (metrics["cprd"]["rsum"] - metrics["base"]["rsum"]) / (metrics["teacher"]["rsum"] - metrics["base"]["rsum"])
    assert f"<strong>{gap:.0%}</strong>" in page


def test_stages_show_counts_and_times(made, settings_of):
    """The stage's name, its table, the time of each part and their sum; markup in them stays text."""
    page = page_of(settings_of(made))
    assert "mine test<span>1 min 4 s</span>" in page
    assert "embedding 3.2 s, searching 1 min 1 s" in page
    assert "<dt>i2t queries</dt><dd>1,234</dd>" in page
    assert "<dd>&lt;b&gt;bold&lt;/b&gt;</dd>" in page


def test_the_page_needs_nothing_else(made, settings_of):
    """No address but data URIs, and a policy that would stop any other."""
    page = page_of(settings_of(made))
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links
    assert all(link.startswith("data:") for link in links)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "default-src 'none'" in page


def test_captions_never_become_markup(made, settings_of):
    """An attack in a caption appears only inside the JSON, without a single angle bracket."""
    page = page_of(settings_of(made))
    assert "<script>document" not in page
    assert "<img src=x" not in page
    data = data_of(page)
    texts = [item[0] for query in data["queries"] for order in query["orders"] for item in order["items"]]
    assert HOSTILE in texts


def test_gallery_orders_are_those_of_miner_teacher_and_student(made, settings_of):
    """Candidates and positives of every query, sorted by each of the three, with their values and marks."""
    data = data_of(page_of(settings_of(made)))
    assert [order["title"] for order in data["orders"]] == ["base", "teacher", "cprd"]
    assert len(data["queries"]) == 14 + 42
    matrices = (made.similarities["base"], made.teacher_scores, made.similarities["cprd"])
    rankings = {
        (row["direction"], row["query_id"]): row for row in InputFolder(made.root / "rankings", "rankings").tables("").to_pylist()
    }
    for query in data["queries"]:
        queries, items = made.sides(query["direction"])
        row = queries.row_of[query["id"]]
        ranking = rankings[query["direction"], query["id"]]
        positives = {items.row_of[item] for item in ranking["positive_ids"]}
        listed = [items.row_of[item] for item in ranking["candidate_ids"]] + sorted(positives)
        for order, matrix in zip(query["orders"], matrices, strict=True):
            values = made.row(matrix, query["direction"], row)
            expected = sorted(listed, key=lambda item: (-values[item], item in positives))
            assert [item[1] for item in order["items"]] == pytest.approx([float(values[item]) for item in expected], abs=6e-4)
            assert [item[2] for item in order["items"]] == [item in positives for item in expected]
            assert order["positive_at"] == 1 + next(place for place, item in enumerate(expected) if item in positives)
            if query["direction"] == "i2t":
                assert [item[0] for item in order["items"]] == [made.corpus.texts[item] for item in expected]


def test_each_picture_is_in_the_page_once(made, settings_of):
    """Lists name pictures by number."""
    data = data_of(page_of(settings_of(made)))
    numbers = [query["shows"] for query in data["queries"] if query["direction"] == "i2t"]
    numbers += [item[0] for query in data["queries"] if query["direction"] == "t2i" for o in query["orders"] for item in o["items"]]
    assert {type(number) for number in numbers} == {int}
    assert set(numbers) == set(range(len(data["images"])))
    assert len(data["images"]) == 14
    assert all(image.startswith("data:image/") for image in data["images"])


def test_the_draw_is_seeded_and_the_page_is_the_same_bytes(made, settings_of):
    """Same inputs, same page; another seed, other queries."""
    few = {"queries": 4, "shown": 3}
    first = page_of(settings_of(made, gallery=few))
    assert first == page_of(settings_of(made, gallery=few))
    queries = data_of(first)["queries"]
    assert [query["direction"] for query in queries] == ["i2t"] * 4 + ["t2i"] * 4
    assert {len(order["items"]) for query in queries for order in query["orders"]} == {3}
    other = data_of(page_of(settings_of(made, gallery=few | {"seed": 1})))["queries"]
    assert [query["id"] for query in other] != [query["id"] for query in queries]


def test_learning_curves_thin_long_logs(made, settings_of):
    """900 steps become at most 240 points; a term that is zero throughout is left out."""
    page = page_of(settings_of(made))
    curves = page[page.index("Learning curves") :]
    points = re.findall(r'<polyline points="([^"]*)"', curves)
    assert [len(line.split()) for line in points] == [240, 240]
    assert "distillation</span>" not in curves


def test_the_report_says_what_was_written(made, settings_of):
    """Counts and the page's size, also for machines."""
    settings = settings_of(made)
    done = run(settings)
    assert read_report(settings.report).results == done.results
    assert done.results["bytes"] == settings.output.stat().st_size
    assert done.results["queries"] == 56


def test_settings_in_the_page_are_readable(made, settings_of):
    """Each stage's settings can be unfolded."""
    page = page_of(settings_of(made))
    shown = [json.loads(html.unescape(text)) for text in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]
    assert shown[0]["settings"] == {"k": 12}
    assert shown[1]["settings"]["rerank_depth"] == 10


def test_rankings_of_another_run_are_refused(made, settings_of):
    """The page never sets scores beside figures that were not made from them."""
    write_rankings(made, made.root / "rankings", k=14)
    with pytest.raises(StoreError, match=r"not the rankings of .*evaluation; expected those with digest"):
        run(settings_of(made))


def test_an_unknown_student_is_refused(made, settings_of):
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
def test_a_broken_training_log_is_refused(made, settings_of, text, message):
    """The file and the line are named."""
    log = made.root / "log.jsonl"
    log.unlink() if text is None else log.write_text(text)
    with pytest.raises(StoreError, match=message):
        run(settings_of(made))


def test_a_missing_stage_report_is_refused(made, settings_of):
    """No stage is left out silently."""
    with pytest.raises(StoreError, match="there is no such report"):
        run(settings_of(made, stages=[made.root / "mine.json"]))


def test_a_failed_run_leaves_the_earlier_page(made, settings_of):
    """The page is replaced whole or not at all."""
    settings = settings_of(made)
    before = page_of(settings)
    (made.root / "log.jsonl").unlink()
    with pytest.raises(StoreError):
        run(settings)
    assert settings.output.read_text(encoding="utf-8") == before
    assert not list(made.root.glob(".report*"))

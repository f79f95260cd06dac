"""The stage `score-teacher`: what it buys, what it does not buy again, and the rankings it writes."""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from cprd_pipeline.corpus.images import decode_image
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import CorpusError, MachineError, ModelError, SettingsError, StoreError
from cprd_pipeline.scoring.run import run
from cprd_pipeline.scoring.settings import ScoreSettings
from cprd_pipeline.settings import load_settings
from cprd_pipeline.store import atomic
from cprd_pipeline.store.folder import InputFolder, cache_folder
from cprd_pipeline.store.schemas import RANKINGS, check_schema
from tests.scoring.stub import STUB, StubTeacher, score_settings, stub_folder, stub_score, write_candidates
from tests.tiny_encoders import simple_corpus

ROOT = Path(__file__).parents[2]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Every row, image queries first."""
    content = InputFolder(folder, "rankings")
    return check_schema(content.tables(""), RANKINGS, str(folder)).to_pylist()


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def stored(uri: Path | None = None) -> pl.DataFrame:
    """The store's rows in a fixed order."""
    table = deltalake.DeltaTable(uri or cache_folder() / "scores").to_pyarrow_table()
    return pl.DataFrame(pl.from_arrow(table)).sort("teacher", "image_digest", "caption_digest", "direction")


class Oracle:
    """The stub's scores of a corpus by id, and rankings by plain loops."""

    def __init__(self, folder: Path, weight: float = 1.0) -> None:
        self.corpus = Corpus(folder)
        self.weight = weight

    def score(self, image_id: str, caption_id: str) -> float:
        """Of a pair."""
        row = self.corpus.images.row_of[image_id]
        pixels = decode_image(self.corpus.image_bytes[row].as_py()).tobytes()
        return stub_score(pixels, self.corpus.texts[self.corpus.captions.row_of[caption_id]], self.weight)

    def pair(self, direction: str, query: str, item: str) -> tuple[str, str]:
        """(image, caption) from (query, item)."""
        return (query, item) if direction == "i2t" else (item, query)

    def content(self, pair: tuple[str, str]) -> tuple[bytes, bytes]:
        """Digests of a pair."""
        image, caption = self.corpus.images.row_of[pair[0]], self.corpus.captions.row_of[pair[1]]
        return self.corpus.images.digests[image].tobytes(), self.corpus.captions.digests[caption].tobytes()

    def entries(self, candidates: Path) -> list[tuple[str, str]]:
        """(image id, caption id) of every list of a candidates folder."""
        rows = InputFolder(candidates, "candidates").tables("").to_pylist()
        return [
            self.pair(row["direction"], row["query_id"], item)
            for row in rows
            for item in row["candidate_ids"] + row["positive_ids"]
        ]

    def contents(self, candidates: Path) -> set[tuple[bytes, bytes]]:
        """The different contents among them."""
        return {self.content(pair) for pair in self.entries(candidates)}

    def rankings(self, candidates: Path, settings: ScoreSettings) -> list[dict[str, Any]]:
        """Rows of the whole folder."""
        return [self._ranking(row, settings) for row in InputFolder(candidates, "candidates").tables("").to_pylist()]

    def _ranking(self, row: dict[str, Any], settings: ScoreSettings) -> dict[str, Any]:
        score = {
            item: self.score(*self.pair(row["direction"], row["query_id"], item))
            for item in row["candidate_ids"] + row["positive_ids"]
        }
        positives = [score[item] for item in row["positive_ids"]]
        margin = np.float32(settings.false_negative_margin)
        false = {
            item for item in row["candidate_ids"] if positives and np.float32(score[item]) > np.float32(max(positives)) + margin
        }
        similarity = dict(zip(row["candidate_ids"], row["similarities"], strict=True))
        mode = settings.false_negatives
        ranked = sorted(
            (item for item in row["candidate_ids"] if mode != "drop" or item not in false), key=lambda item: (-score[item], item)
        )
        flags = [mode == "mark" and item in false for item in ranked]
        valid = [self._valid(settings, place, score[item], positives) or flags[place] for place, item in enumerate(ranked)]
        assert valid == sorted(valid, reverse=True)
        return {
            "query_id": row["query_id"],
            "direction": row["direction"],
            "candidate_ids": ranked,
            "teacher_scores": [score[item] for item in ranked],
            "similarities": [similarity[item] for item in ranked],
            "false_negative": flags,
            "n_valid": sum(valid),
            "valid_cutoff": min((score[item] for item, ok in zip(ranked, valid, strict=True) if ok), default=None),
            "positive_ids": row["positive_ids"],
            "positive_scores": positives,
            "positive_similarities": row["positive_similarities"],
        }

    @staticmethod
    def _valid(settings: ScoreSettings, place: int, score: float, positives: list[float]) -> bool:
        rule = settings.valid
        if rule.rule == "top_m":
            return place < rule.top_m
        if rule.rule == "threshold":
            return score > rule.threshold
        return bool(positives) and np.float32(score) >= np.float32(min(positives)) - np.float32(rule.margin)


RULES = [
    {"rule": "threshold", "threshold": 0.5},
    {"rule": "threshold", "threshold": 9.0},
    {"rule": "top_m", "top_m": 2},
    {"rule": "margin", "margin": 1.5},
]


@pytest.mark.parametrize("mode", ["keep", "mark", "drop"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(str(value) for value in rule.values()))
def test_every_ranking_is_what_the_contract_says(place: Path, rule: dict[str, Any], mode: str) -> None:
    """Order, ties, scores, flags, valid prefix, cutoff and positives equal a plain loop over the stub's scores."""
    settings = score_settings(place, valid=rule, false_negatives=mode, false_negative_margin=1.2)
    run(settings)
    expected = Oracle(place / "corpus").rankings(place / "candidates", settings)
    assert rows_of(place / "rankings") == expected
    assert {row["direction"] for row in expected} == {"i2t", "t2i"}
    if mode == "mark":
        assert any(any(row["false_negative"]) for row in expected)
    names = InputFolder(place / "candidates", "candidates").part_names("")
    assert InputFolder(place / "rankings", "rankings").part_names("") == names


def test_each_pair_of_contents_is_bought_once(place: Path) -> None:
    """Not for the other direction, not for equal contents under other ids; the counts add up."""
    results = run(score_settings(place)).results
    oracle = Oracle(place / "corpus")
    contents = oracle.contents(place / "candidates")
    assert len(StubTeacher.seen) == len(set(StubTeacher.seen)) == len(contents) == results["scored"] == len(stored())
    assert results["requested"] == len(oracle.entries(place / "candidates"))
    assert results["duplicate"] == results["requested"] - len(contents)
    assert results["stored"] == 0
    assert set(stored().select("image_digest", "caption_digest").rows()) == contents
    assert set(stored()["direction"]) == {"both"}


def test_a_larger_k_and_another_round_buy_only_what_is_new(place: Path) -> None:
    """Everything of before is found; the report says how much that saved."""
    run(score_settings(place))
    oracle, bought = Oracle(place / "corpus"), Oracle(place / "corpus").contents(place / "candidates")
    for name, k, seed in (("larger", 7, 0), ("second", 4, 1)):
        write_candidates(place / name, place / "corpus", k, seed=seed)
        StubTeacher.seen.clear()
        changes = {"candidates": place / name, "output": place / f"rankings-{name}", "report": place / f"{name}.json"}
        results = run(score_settings(place, **changes)).results
        wanted = oracle.contents(place / name)
        assert len(StubTeacher.seen) == results["scored"] == len(wanted - bought) > 0
        assert results["stored"] == len(wanted & bought) > 0
        bought |= wanted
    assert len(stored()) == len(bought)


def test_when_all_is_stored_the_teacher_is_never_loaded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rule makes other rankings from the same scores; an adapter whose load raises proves it."""
    run(score_settings(place))
    first = bytes_of(place / "rankings")

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the teacher was loaded")

    monkeypatch.setattr(StubTeacher, "load", refuse)
    settings = score_settings(place, valid={"rule": "top_m", "top_m": 1})
    results = run(settings).results
    assert (results["scored"], results["stored"]) == (0, len(stored()))
    assert bytes_of(place / "rankings") != first
    assert rows_of(place / "rankings") == Oracle(place / "corpus").rankings(place / "candidates", settings)


def test_a_second_run_does_nothing_and_says_so(place: Path) -> None:
    """The report of the first is shown; without it, it is made again, without a store or a teacher."""
    first = run(score_settings(place))
    again = run(score_settings(place))
    assert again.up_to_date
    assert not first.up_to_date
    assert again.results == first.results
    (place / "score.json").unlink()
    third = run(score_settings(place, store=str(place / "nowhere")))
    assert StubTeacher.loads == 1
    assert third.results["directions"] == first.results["directions"]
    assert (third.results["stored"], third.results["scored"]) == (first.results["scored"], 0)


@pytest.mark.parametrize(
    "changes",
    [{"part_pairs": 1}, {"part_pairs": 10_000}, {"image_batch": 1}, {"token_budget": 1}, {"token_budget": 10_000}, {"workers": 2}],
    ids=str,
)
def test_how_the_work_is_cut_changes_nothing(place: Path, changes: dict[str, Any]) -> None:
    """Parts, batches, budgets and decoding processes: the same rankings and the same rows."""
    run(score_settings(place))
    other = {"output": place / "other", "report": place / "other.json", "store": str(place / "store")}
    run(score_settings(place, **other, **changes))
    assert bytes_of(place / "other") == bytes_of(place / "rankings")
    assert stored(place / "store").equals(stored())


def test_parts_are_appended_as_they_are_done(place: Path) -> None:
    """One commit a part."""
    run(score_settings(place, part_pairs=20))
    commits = deltalake.DeltaTable(cache_folder() / "scores").version() + 1
    assert commits > 3
    assert commits <= len(stored()) / 20 + 1


def test_another_teacher_has_its_own_scores(place: Path) -> None:
    """Changed weights buy again; the rows of the first stay."""
    run(score_settings(place))
    stub_folder(place / "heavy", weight=2.0)
    settings = score_settings(place, teacher={"model": str(place / "heavy"), "adapter": STUB})
    results = run(settings).results
    assert results["stored"] == 0
    assert rows_of(place / "rankings") == Oracle(place / "corpus", 2.0).rankings(place / "candidates", settings)
    assert stored()["teacher"].n_unique() == 2


def test_where_the_asker_matters_each_direction_has_its_own_scores(place: Path) -> None:
    """Each is stored under its name and ranked by its own scores; both rankings are there."""
    teacher = {"model": str(place / "stub"), "adapter": "tests.scoring.stub:AskerMatters"}
    settings = score_settings(place, teacher=teacher)
    results = run(settings).results
    for direction, weight in (("i2t", 1.0), ("t2i", 2.0)):
        rows = [row for row in Oracle(place / "corpus", weight).rankings(place / "candidates", settings)]
        expected = [row for row in rows if row["direction"] == direction]
        assert [row for row in rows_of(place / "rankings") if row["direction"] == direction] == expected
        own = {pair for row in expected for pair in lists_of(row)}
        content = {Oracle(place / "corpus").content(pair) for pair in own}
        assert set(stored().filter(pl.col("direction") == direction).select("image_digest", "caption_digest").rows()) == content
    assert results["scored"] == len(stored()) == len(StubTeacher.seen)
    assert run(settings).up_to_date


def lists_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    """(image id, caption id) of everything in a ranking."""
    items = row["candidate_ids"] + row["positive_ids"]
    return [(row["query_id"], item) if row["direction"] == "i2t" else (item, row["query_id"]) for item in items]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shards_together_score_everything_once(place: Path, count: int) -> None:
    """Each image in one shard, no pair twice, no rankings from a shard; the run without it only writes the rankings."""
    scored = []
    for index in range(count):
        results = run(score_settings(place, shard=f"{index}/{count}")).results
        scored.append(results["scored"])
        assert results["requested"] == results["duplicate"] + results["stored"] + results["elsewhere"] + results["scored"]
        assert (place / f"score.shard-{index}-of-{count}.json").exists()
    assert not (place / "rankings").exists()
    assert len(StubTeacher.seen) == len(set(StubTeacher.seen)) == sum(scored) == len(stored())
    assert all(scored)
    whole = run(score_settings(place))
    assert (whole.results["scored"], whole.results["stored"]) == (0, sum(scored))
    assert rows_of(place / "rankings") == Oracle(place / "corpus").rankings(place / "candidates", score_settings(place))


def test_what_shards_left_is_scored_with_the_rankings(place: Path) -> None:
    """The run without shard scores what is missing."""
    done = run(score_settings(place, shard="1/2")).results["scored"]
    results = run(score_settings(place)).results
    assert results["stored"] == done
    assert results["scored"] == len(stored()) - done > 0


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b", "-1/2", "0/0"])
def test_a_shard_that_is_none_is_refused(shard: str) -> None:
    """i/n with 0 <= i < n."""
    stage = ROOT / "stages" / "score_teacher.yaml"
    with pytest.raises(SettingsError, match=r"shard: .* is no shard; expected i/n with 0 <= i < n, such as 0/4"):
        load_settings(ScoreSettings, stage, [f"shard={shard!r}"])


def test_the_plan_is_said_before_the_teacher_is_loaded(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that cannot be loaded leaves the plan on stderr."""

    def refuse(*arguments: object, **options: object) -> None:
        raise ModelError("no teacher today")

    monkeypatch.setattr(StubTeacher, "load", refuse)
    with pytest.raises(ModelError, match="no teacher today"):
        run(score_settings(place))
    wanted = Oracle(place / "corpus").contents(place / "candidates")
    requested = len(Oracle(place / "corpus").entries(place / "candidates"))
    said = capsys.readouterr().err
    assert f"plan: {requested:,} pairs requested; {requested - len(wanted):,} named twice; 0 already in the store;" in said
    assert f"to be scored: {len(wanted):,} pairs of {len({image for image, _ in wanted}):,} images" in said


def test_the_report_says_what_a_teacher_in_the_loop_would_cost(place: Path) -> None:
    """So many epochs over all lists, at the speed of this run; nothing when nothing was scored."""
    report = run(score_settings(place, in_loop_epochs=7))
    results = report.results
    rows = [line.split(",") for line in (place / "score_scores.csv").read_text().splitlines()]
    assert rows[0] == ["score", "positives", "candidates"]
    for column in (1, 2):
        assert sum(float(row[column]) for row in rows[1:]) == pytest.approx(1, abs=1e-3)
    assert results["in_loop"]["pairs"] == 7 * results["requested"]
    assert results["in_loop"]["seconds"] == round(7 * results["requested"] / results["pairs_per_second"], 1)
    assert any("for 7 epochs" in value for _, value in report.table)
    assert set(results["seconds_in"]) == {"teacher", "data", "store"}
    other = run(score_settings(place, valid={"rule": "top_m"})).results
    assert other["pairs_per_second"] is None
    assert "in_loop" not in other


def test_the_report_tells_what_a_user_asks(place: Path) -> None:
    """Shares, agreement, quantiles, histogram and long captions equal plain counts; the table is for people."""
    report = run(score_settings(place, false_negative_margin=1.05))
    oracle = Oracle(place / "corpus")
    for direction, found in report.results["directions"].items():
        rows = [row for row in rows_of(place / "rankings") if row["direction"] == direction]
        asked = [row for row in rows if row["positive_ids"]]
        beaten = [row for row in asked if row["candidate_ids"] and row["teacher_scores"][0] > max(row["positive_scores"])]
        false = sum(score > max(row["positive_scores"]) + 1.05 for row in asked for score in row["teacher_scores"])
        assert found["first_is_no_positive"] == pytest.approx(len(beaten) / len(asked), abs=1e-6)
        assert found["false_negatives"] == false > 0
        assert found["kendall_tau"] == pytest.approx(np.mean([plain_tau(row) for row in rows]), abs=1e-6)
        every = [score for row in rows for score in row["teacher_scores"]]
        assert found["score_quantiles"]["candidates"]["0.5"] == pytest.approx(np.median(every), abs=1e-5)
    histogram = report.results["histogram"]
    assert len(histogram["edges"]) == len(histogram["candidates"]) + 1
    assert sum(histogram["candidates"]) == sum(found["candidates"] for found in report.results["directions"].values())
    long = {text for text in oracle.corpus.texts if len(text.split()) > 6}
    assert report.results["cut_captions"]["count"] == len(long) > 0
    assert oracle.corpus.texts[oracle.corpus.captions.row_of[report.results["cut_captions"]["first"][0]]] in long
    assert dict(report.table)["already in the store"] == "0 (saved)"
    assert json.loads((place / "score.json").read_text())["results"] == report.results


def plain_tau(row: dict[str, Any]) -> float:
    """Kendall's tau-a of one list, by its definition."""
    pairs = [(a, b) for a in range(len(row["candidate_ids"])) for b in range(a)]
    left, right = row["similarities"], row["teacher_scores"]
    return sum(np.sign(left[a] - left[b]) * np.sign(right[a] - right[b]) for a, b in pairs) / len(pairs)


def test_dropped_false_negatives_are_counted(place: Path) -> None:
    """What `drop` takes out of the files stays in the report."""
    kept = run(score_settings(place, false_negative_margin=1.0)).results["directions"]
    dropped = run(score_settings(place, false_negative_margin=1.0, false_negatives="drop")).results["directions"]
    for direction in ("i2t", "t2i"):
        assert dropped[direction]["dropped"] == kept[direction]["false_negatives"] > 0
        assert dropped[direction]["false_negatives"] == kept[direction]["false_negatives"]
        assert dropped[direction]["candidates"] == kept[direction]["candidates"] - dropped[direction]["dropped"]


def test_candidates_of_another_corpus_are_refused(place: Path) -> None:
    """Ids would name other things."""
    simple_corpus(place / "stranger", 4)
    with pytest.raises(StoreError, match=r"candidates of another corpus .*run `cprd-pipeline mine`"):
        run(score_settings(place, corpus=place / "stranger"))


def test_a_teacher_that_tells_nothing_apart_is_named_while_it_scores(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, from the first part on that holds enough pairs; one that tells pairs apart is not."""
    monkeypatch.setattr("cprd_pipeline.scoring.scorer._ENOUGH_TO_TELL", 10)
    run(score_settings(place))
    assert "tells nothing apart" not in capsys.readouterr().err
    monkeypatch.setattr(StubTeacher, "score", lambda self, image, texts: torch.zeros(len(texts)))
    run(score_settings(place, store=str(place / "another"), output=place / "flat"))
    said = capsys.readouterr().err
    assert said.count("tells nothing apart") == 1
    assert "pairs of a part have the score 0.00" in " ".join(said.split())


def test_a_score_that_is_nan_names_the_pair_and_stores_nothing_of_its_part(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier parts stay."""
    whole = StubTeacher.score

    def broken(self: StubTeacher, image: bytes, texts: list[str]) -> torch.Tensor:
        scores = whole(self, image, texts)
        if len(self.seen) > 60:
            scores[0] = float("nan")
        return scores

    monkeypatch.setattr(StubTeacher, "score", broken)
    with pytest.raises(ModelError, match=r"score of image 'i\d\d' with caption 'c\d\d' is nan .*nothing of this part was stored"):
        run(score_settings(place))
    assert 20 <= len(stored()) < 61
    assert stored()["score"].is_finite().all()
    assert not (place / "rankings").exists()


def test_a_full_disk_keeps_what_was_scored(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third part does not fit: one line; with space again the same command ends as a run that had it all along."""
    writes = 0
    write = atomic.sync_file

    def full(path: Path) -> None:
        nonlocal writes
        writes += path.suffix == ".parquet"
        if writes == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "sync_file", full)
        with pytest.raises(MachineError, match=r"the disk is full; free some space and run the same command again"):
            run(score_settings(place))
    done = len(stored())
    assert 0 < done
    assert not (place / "rankings").exists()
    StubTeacher.seen.clear()
    assert run(score_settings(place)).results["stored"] == done
    assert len(StubTeacher.seen) == len(stored()) - done
    whole = {"output": place / "whole", "report": place / "whole.json", "store": str(place / "store")}
    run(score_settings(place, **whole))
    assert bytes_of(place / "whole") == bytes_of(place / "rankings")
    assert stored(place / "store").equals(stored())


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_score_file_is_never_used(place: Path, damage: str) -> None:
    """Cut off, one bit flipped, or gone: the file is named, nothing is scored anew in silence, no rankings."""
    run(score_settings(place))
    victim = sorted((cache_folder() / "scores").glob("teacher=*/*.parquet"))[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    {
        "cut": lambda: victim.write_bytes(victim.read_bytes()[:-20]),
        "flipped": lambda: victim.write_bytes(bytes(content)),
        "gone": victim.unlink,
    }[damage]()
    StubTeacher.seen.clear()
    with pytest.raises(StoreError, match=victim.name):
        run(score_settings(place, output=place / "again", report=place / "again.json"))
    assert StubTeacher.seen == []
    assert not (place / "again").exists()


class Emptying(StubTeacher):
    """Its tokenizer knows no word."""

    def encode_texts(self, captions: Sequence[str]) -> list[str]:
        """Nothing."""
        raise ModelError(f"the tokenizer leaves nothing of the caption {captions[0]!r}")


def test_a_caption_of_which_the_tokenizer_leaves_nothing_is_named(place: Path) -> None:
    """An adapter's error stops the run before anything of the part is stored."""
    teacher = {"model": str(place / "stub"), "adapter": "tests.scoring.test_score_teacher:Emptying"}
    with pytest.raises(ModelError, match="the tokenizer leaves nothing of the caption"):
        run(score_settings(place, teacher=teacher))
    assert not (cache_folder() / "scores").exists()


def test_an_image_that_vanished_keeps_what_was_scored(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names it; the same command goes on when it is back."""
    corpus = Corpus(place / "corpus")
    images = [*corpus.image_bytes.to_pylist()]
    victim = 9
    images[victim] = images[0]
    with monkeypatch.context() as patch:
        initialise = Corpus.__init__

        def damaged(self: Corpus, path: Path) -> None:
            initialise(self, path)
            self.image_bytes = pa.chunked_array([pa.array(images)])

        patch.setattr(Corpus, "__init__", damaged)
        with pytest.raises(CorpusError, match=f"image {corpus.images.ids[victim]}: its bytes changed"):
            run(score_settings(place))
    done = len(stored())
    assert done > 0
    StubTeacher.seen.clear()
    results = run(score_settings(place)).results
    assert results["stored"] == done
    assert len(StubTeacher.seen) == results["scored"]


def test_unknown_knobs_are_refused(place: Path) -> None:
    """The nearest known name is offered, also inside a group."""
    stage = ROOT / "stages" / "score_teacher.yaml"
    with pytest.raises(SettingsError, match=r"unknown setting teacher\.first_tokn; did you mean first_token"):
        load_settings(ScoreSettings, stage, ["teacher.first_tokn=enc"])
    with pytest.raises(SettingsError, match=r"teacher\.first_token is 'enc', and StubTeacher has no such setting"):
        run(score_settings(place, teacher={"model": str(place / "stub"), "adapter": STUB, "first_token": "enc"}))

"""What a user can get wrong, and the line that says it."""

import shutil

import pytest
from pydantic import ValidationError

import cprd_pipeline.evaluation.run as stage
from cprd_pipeline.errors import CorpusError, ModelError, StoreError
from tests.small_run import write_rankings


def test_rankings_of_another_corpus(made, settings_of):
    """Never reranked silently: the corpus is told apart by digest."""
    write_rankings(made, made.root / "foreign", corpus="0123456789abcdef")
    with pytest.raises(StoreError, match=r"rankings of another corpus \(01234567\).*run mine"):
        stage.run(settings_of(made, rankings=made.root / "foreign"))


def test_rankings_of_another_split(made, settings_of):
    """The first id that is not of the split is named."""
    with pytest.raises(StoreError, match="'i01' is not in split 'train'"):
        stage.run(settings_of(made, split="train"))


def test_missing_rankings(made, settings_of):
    """The command that makes them is named."""
    with pytest.raises(StoreError, match=r"there is no such folder.*score-teacher"):
        stage.run(settings_of(made, rankings=made.root / "nowhere"))


def test_lists_shorter_than_the_reranking_depth(made, settings_of):
    """A head with holes in it would flatter or wrong the teacher."""
    write_rankings(made, made.root / "short", k=9)
    with pytest.raises(StoreError, match=r"list (9|10) candidates for i2t query 'i0\d'.*at least rerank_depth = 12.*larger k"):
        stage.run(settings_of(made, rankings=made.root / "short", rerank_depth=12))


def test_short_lists_that_hold_everything_will_do(made, settings_of):
    """A k larger than the side: all items are listed, so the head is exact at any depth."""
    write_rankings(made, made.root / "all", k=1000)
    done = stage.run(settings_of(made, rankings=made.root / "all", rerank_depth=500))
    assert done.results["metrics"]["teacher"]["rsum"] > done.results["metrics"]["base"]["rsum"]


def test_rankings_mined_by_another_student(made, settings_of):
    """The base student's similarities must be those of the rankings."""
    write_rankings(made, made.root / "other", miner="cprd")
    with pytest.raises(StoreError, match=r"student base disagrees with the rankings' similarities by 0\.\d+ on average.*reranked"):
        stage.run(settings_of(made, rankings=made.root / "other"))
    stage.run(settings_of(made, rankings=made.root / "other", reranked="cprd"))


def test_rankings_that_lack_a_query(made, settings_of):
    """Half a ranking folder is refused, not averaged over what is there."""
    rows = made.rows_of_split
    made.rows_of_split = lambda items: rows(items)[1:] if items is made.corpus.images else rows(items)
    write_rankings(made, made.root / "half")
    made.rows_of_split = rows
    with pytest.raises(StoreError, match=r"no score for a positive of 1[0-9]* of 14 i2t queries, the first 'i01'"):
        stage.run(settings_of(made, rankings=made.root / "half"))


def test_rankings_with_candidates_left_out(made, settings_of):
    """Without the candidates that beat a positive the teacher's bound would be flattered."""
    write_rankings(made, made.root / "dropped", false_negatives="drop")
    with pytest.raises(StoreError, match=r"false negatives were dropped.*keep or mark"):
        stage.run(settings_of(made, rankings=made.root / "dropped"))


def test_missing_student(made, settings_of):
    """The student's name is in the line."""
    shutil.rmtree(made.students["cprd"])
    with pytest.raises(ModelError, match=r"student cprd: .*there is no such folder"):
        stage.run(settings_of(made))


def test_split_without_positives(made, settings_of, tmp_path):
    """There is nothing to measure, which is said rather than divided by."""
    made.corpus.positives = made.corpus.positives[:0]
    with pytest.raises(CorpusError, match="split 'test' has no positives"):
        stage.questions_of(made.corpus, made.corpus.split("test"), "i2t")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": {"teacher": "x"}}, "kept for the teacher"),
        ({"students": {"a": "x"}}, "reranked is 'base', which is none of the students a"),
        ({"students": {"../up": "x"}}, "pattern"),
        ({"students": {}}, "at least 1"),
        ({"rerank_depth": 5}, "greater than or equal to 10"),
    ],
)
def test_settings_are_checked_at_the_door(made, settings_of, changes, message):
    """Before anything is read."""
    with pytest.raises(ValidationError, match=message):
        settings_of(made, **changes)

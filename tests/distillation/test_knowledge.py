"""What a batch learns from the rankings is what the rankings say, pair by pair."""

from pathlib import Path

import numpy as np
import pytest

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.batches import BatchRows
from cprd_pipeline.distillation.knowledge import KnownPairs, ListRules, TeacherKnowledge, open_rankings, teacher_lists
from cprd_pipeline.errors import StoreError
from tests.distillation.conftest import every_pair_rankings, ranking, write_rankings


def load(folder: Path, corpus: Corpus) -> TeacherKnowledge:
    return TeacherKnowledge.load(open_rankings([folder]), corpus)


def test_every_pair_of_a_batch_is_looked_up_as_a_dictionary_would(tmp_path: Path, corpus: Corpus) -> None:
    """Scores and holes agree with a plain dictionary for random batches, repeated rows included."""
    rows = every_pair_rankings(corpus, k=5)
    write_rankings(tmp_path / "r", rows, corpus)
    table: dict[tuple[int, int], float] = {}
    canonical = corpus.captions.first_with_digest
    for row in rows:
        for ids, scores in (("candidate_ids", "teacher_scores"), ("positive_ids", "positive_scores")):
            for item, score in zip(row[ids], row[scores], strict=True):
                image, caption = (row["query_id"], item) if row["direction"] == "i2t" else (item, row["query_id"])
                table[int(image[1:]), int(canonical[int(caption[1:])])] = score
    knowledge = load(tmp_path / "r", corpus)
    assert knowledge.pairs == len(table)
    draws = np.random.default_rng(0)
    for _ in range(20):
        batch = BatchRows(draws.integers(0, 24, 9), draws.integers(0, 48, 9))
        known = knowledge.among(batch)
        expected = [[table.get((i, int(canonical[c])), np.nan) for c in batch.captions] for i in batch.images.tolist()]
        np.testing.assert_array_equal(known.i2t.scores_BB, np.array(expected, dtype=np.float32))
        np.testing.assert_array_equal(known.t2i.scores_BB, known.i2t.scores_BB.T)


def test_equal_texts_share_their_knowledge(tmp_path: Path, corpus: Corpus) -> None:
    """A score bought for one caption id holds for every caption with the same text."""
    write_rankings(tmp_path / "r", [ranking("i5", "i2t", {"c1": 1.5}, {"c10": 3.0})], corpus)
    known = load(tmp_path / "r", corpus).among(BatchRows(np.array([5, 5]), np.array([3, 2])))
    assert known.i2t.scores_BB[0, 0] == np.float32(1.5)
    assert np.isnan(known.i2t.scores_BB[0, 1])


def test_where_the_asker_matters_each_side_hears_its_own_scores(tmp_path: Path, corpus: Corpus) -> None:
    """Rankings of such a teacher say so; a pair that only the other direction knows is unknown."""
    rows = [ranking("i2", "i2t", {"c9": 4.0}, {"c4": 3.0}), ranking("c9", "t2i", {"i2": 7.0, "i3": 1.0}, {"i4": 5.0})]
    write_rankings(tmp_path / "r", rows, corpus, roles="each")
    knowledge = load(tmp_path / "r", corpus)
    known = knowledge.among(BatchRows(np.array([2, 3]), np.array([9, 4])))
    assert knowledge.pairs == 5
    np.testing.assert_array_equal(known.i2t.scores_BB, np.array([[4, 3], [np.nan, np.nan]], dtype=np.float32))
    np.testing.assert_array_equal(known.t2i.scores_BB, np.array([[7, 1], [np.nan, np.nan]], dtype=np.float32))


def test_flags_and_cutoffs_reach_the_batch(tmp_path: Path, corpus: Corpus) -> None:
    """A flagged pair is flagged from both sides; a query without valid items can never have one."""
    rows = [
        ranking("i2", "i2t", {"c9": 4.0, "c8": 2.0}, {"c4": 3.0}, false_negative=[True, False], n_valid=2, valid_cutoff=2.0),
        ranking("c9", "t2i", {"i2": 4.0}, {"i4": 5.0}),
    ]
    write_rankings(tmp_path / "r", rows, corpus)
    knowledge = load(tmp_path / "r", corpus)
    assert knowledge.among(BatchRows(np.array([2]), np.array([9]))).flagged.tolist() == [[True]]
    assert knowledge.image_cutoffs[2] == 2.0
    assert np.isinf(knowledge.image_cutoffs[3])
    assert np.isinf(knowledge.caption_cutoffs[9])


KNOWN = KnownPairs(
    np.array([[3.0, 1.0, np.nan], [np.nan, 0.5, 2.0], [-1.0, np.nan, 4.0]], dtype=np.float32),
    np.array([[False, False, True], [False] * 3, [False] * 3]),
)
POSITIVE = np.array([[True, False, False], [False, True, True], [False, False, True]])
CUTOFFS = np.array([0.0, 0.0, np.inf], dtype=np.float32)


def test_lists_hold_candidates_and_the_own_positive() -> None:
    """Annotated pairs other than the own one are in no list and no easy negative; flagged unknown ones neither."""
    lists = teacher_lists(KNOWN, POSITIVE, CUTOFFS, ListRules("listed", True, "in_batch"))
    assert lists.listed_QN.tolist() == [[True, True, False], [False, True, False], [True, False, True]]
    assert lists.valid_QN.tolist() == lists.listed_QN.tolist()
    assert lists.easy_QN.tolist() == [[False, False, False], [True, False, False], [False, True, False]]


def test_validity_by_the_rankings_spares_only_what_reaches_the_cutoff() -> None:
    """The positive is always valid; a query without a cutoff has no other valid item."""
    lists = teacher_lists(KNOWN, POSITIVE, CUTOFFS, ListRules("rankings", True, "none"))
    assert lists.valid_QN.tolist() == [[True, True, False], [False, True, False], [False, False, True]]
    assert not lists.easy_QN.any()


def test_the_positive_can_be_left_out() -> None:
    """Then it is neither listed nor an easy negative."""
    lists = teacher_lists(KNOWN, POSITIVE, CUTOFFS, ListRules("listed", False, "in_batch"))
    assert not lists.listed_QN.diagonal().any()
    assert not lists.easy_QN.diagonal().any()


def test_rankings_of_another_corpus_are_refused(tmp_path: Path, corpus: Corpus) -> None:
    """The message says what to run."""
    write_rankings(tmp_path / "r", [], corpus)
    corpus.digest = "f" * 32
    with pytest.raises(StoreError, match=r"rankings of another corpus.*run mine and score-teacher"):
        load(tmp_path / "r", corpus)


def test_two_teachers_are_refused(tmp_path: Path, corpus: Corpus) -> None:
    """Scores of two teachers are not comparable."""
    write_rankings(tmp_path / "a", [], corpus, teacher="a")
    write_rankings(tmp_path / "b", [], corpus, teacher="b")
    with pytest.raises(StoreError, match="2 different teachers"):
        TeacherKnowledge.load(open_rankings([tmp_path / "a", tmp_path / "b"]), corpus)


def test_an_id_that_does_not_resolve_is_named(tmp_path: Path, corpus: Corpus) -> None:
    """Never a silent hole."""
    write_rankings(tmp_path / "r", [ranking("i5", "i2t", {"c999": 1.5}, {"c10": 3.0})], corpus)
    with pytest.raises(StoreError, match="'c999' is not in the corpus"):
        load(tmp_path / "r", corpus)


def test_rankings_without_any_pair_are_refused(tmp_path: Path, corpus: Corpus) -> None:
    """Nothing could be learned from them."""
    write_rankings(tmp_path / "r", [], corpus)
    with pytest.raises(StoreError, match="no scored pair"):
        load(tmp_path / "r", corpus)

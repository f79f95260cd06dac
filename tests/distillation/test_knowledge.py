"""What a batch learns from the rankings is what the rankings say, pair by pair."""

from pathlib import Path

import numpy as np
import pytest

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.batches import BatchRows
from cprd_pipeline.distillation.knowledge import TeacherKnowledge, open_rankings
from cprd_pipeline.errors import StoreError
from tests.distillation.conftest import every_pair_rankings, ranking, write_rankings
from tests.distillation.made_knowledge import knowledge_of


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
        batch = BatchRows.of_pairs(draws.integers(0, 24, 9), draws.integers(0, 48, 9))
        known = knowledge.among(batch)
        expected = [[table.get((i, int(canonical[c])), np.nan) for c in batch.captions] for i in batch.images.tolist()]
        np.testing.assert_array_equal(known.i2t.scores_QN, np.array(expected, dtype=np.float32))
        np.testing.assert_array_equal(known.t2i.scores_QN, known.i2t.scores_QN.T)


def test_equal_texts_share_their_knowledge(tmp_path: Path, corpus: Corpus) -> None:
    """A score bought for one caption id holds for every caption with the same text."""
    write_rankings(tmp_path / "r", [ranking("i5", "i2t", {"c1": 1.5}, {"c10": 3.0})], corpus)
    known = load(tmp_path / "r", corpus).among(BatchRows.of_pairs(np.array([5, 5]), np.array([3, 2])))
    assert known.i2t.scores_QN[0, 0] == np.float32(1.5)
    assert np.isnan(known.i2t.scores_QN[0, 1])


def test_where_the_asker_matters_each_side_hears_its_own_scores(tmp_path: Path, corpus: Corpus) -> None:
    """Rankings of such a teacher say so; a pair that only the other direction knows is unknown."""
    rows = [ranking("i2", "i2t", {"c9": 4.0}, {"c4": 3.0}), ranking("c9", "t2i", {"i2": 7.0, "i3": 1.0}, {"i4": 5.0})]
    write_rankings(tmp_path / "r", rows, corpus, roles="each")
    knowledge = load(tmp_path / "r", corpus)
    known = knowledge.among(BatchRows.of_pairs(np.array([2, 3]), np.array([9, 4])))
    assert knowledge.pairs == 5
    np.testing.assert_array_equal(known.i2t.scores_QN, np.array([[4, 3], [np.nan, np.nan]], dtype=np.float32))
    np.testing.assert_array_equal(known.t2i.scores_QN, np.array([[7, 1], [np.nan, np.nan]], dtype=np.float32))


@pytest.mark.parametrize("roles", ["both", "each"])
@pytest.mark.parametrize("turned_before", [False, True])
def test_any_rows_can_be_asked_about(tmp_path: Path, corpus: Corpus, roles: str, turned_before: bool) -> None:
    """Scores of all images with all captions, both ways; any other lists of rows, also none, are cut out of those."""
    write_rankings(tmp_path / "r", every_pair_rankings(corpus, k=5), corpus, roles=roles)
    knowledge = load(tmp_path / "r", corpus)
    if turned_before:
        assert len(knowledge.lists("t2i").starts) == 48 + 1
    images, captions = np.arange(24), np.arange(48)
    i2t, t2i = knowledge.i2t_scores(images, captions).scores_QN, knowledge.t2i_scores(captions, images).scores_QN
    assert np.array_equal(i2t, t2i.T, equal_nan=True) == (roles == "both")
    draws = np.random.default_rng(0)
    for queries, items in ((7, 30), (30, 3), (0, 4), (4, 0)):
        some, others = draws.integers(0, 24, queries), draws.integers(0, 48, items)
        np.testing.assert_array_equal(knowledge.i2t_scores(some, others).scores_QN, i2t[np.ix_(some, others)])
        np.testing.assert_array_equal(knowledge.t2i_scores(others, some).scores_QN, t2i[np.ix_(others, some)])


@pytest.mark.parametrize("roles", ["both", "each"])
def test_lists_are_what_the_queries_know_best_first(tmp_path: Path, corpus: Corpus, roles: str) -> None:
    """Rows and items are canonical; each direction's list holds exactly the pairs with a score."""
    write_rankings(tmp_path / "r", every_pair_rankings(corpus, k=5), corpus, roles=roles)
    knowledge = load(tmp_path / "r", corpus)
    first = corpus.captions.first_with_digest
    images, captions = np.arange(24), np.unique(first)
    for direction, asking, asked, scores in (
        ("i2t", images, captions, knowledge.i2t_scores(images, captions).scores_QN),
        ("t2i", captions, images, knowledge.t2i_scores(captions, images).scores_QN),
    ):
        found = knowledge.lists(direction).of(asking)
        for place, row in enumerate(scores):
            own = found.owner == place
            assert set(found.items[own].tolist()) == set(asked[~np.isnan(row)].tolist())
            assert (np.diff(found.scores[own]) <= 0).all()
            assert sorted(found.scores[own].tolist()) == sorted(row[~np.isnan(row)].tolist())


def test_several_folders_are_one_knowledge(tmp_path: Path, corpus: Corpus) -> None:
    """Where they overlap the lower score, the lower cutoff and any flag count."""
    marked = ranking("i2", "i2t", {"c9": 4.0}, {}, false_negative=[True], n_valid=1, valid_cutoff=4.0)
    write_rankings(tmp_path / "a", [marked], corpus)
    write_rankings(tmp_path / "b", [ranking("i2", "i2t", {"c9": 3.0, "c8": 1.0}, {}, n_valid=1, valid_cutoff=3.0)], corpus)
    knowledge = TeacherKnowledge.load(open_rankings([tmp_path / "a", tmp_path / "b"]), corpus)
    known = knowledge.i2t_scores(np.array([2]), np.array([8, 9]))
    assert known.scores_QN.tolist() == [[1.0, 3.0]]
    assert known.flagged_QN.tolist() == [[False, True]]
    assert knowledge.image_cutoffs[2] == 3.0


def test_flags_and_cutoffs_reach_the_batch(tmp_path: Path, corpus: Corpus) -> None:
    """A flagged pair is flagged from both sides; a query without valid items can never have one."""
    rows = [
        ranking("i2", "i2t", {"c9": 4.0, "c8": 2.0}, {"c4": 3.0}, false_negative=[True, False], n_valid=2, valid_cutoff=2.0),
        ranking("c9", "t2i", {"i2": 4.0}, {"i4": 5.0}),
    ]
    write_rankings(tmp_path / "r", rows, corpus)
    knowledge = load(tmp_path / "r", corpus)
    told = knowledge.among(BatchRows.of_pairs(np.array([2]), np.array([9])))
    assert told.i2t.flagged_QN.tolist() == told.t2i.flagged_QN.tolist() == [[True]]
    assert knowledge.image_cutoffs[2] == 2.0
    assert np.isinf(knowledge.image_cutoffs[3])
    assert np.isinf(knowledge.caption_cutoffs[9])


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


def test_rankings_without_any_candidate_are_refused(tmp_path: Path, corpus: Corpus) -> None:
    """Positives alone have no order that a student could learn."""
    write_rankings(tmp_path / "r", [ranking("i5", "i2t", {}, {"c10": 3.0}), ranking("c10", "t2i", {}, {"i5": 3.0})], corpus)
    with pytest.raises(StoreError, match="no query of the rankings has a candidate, only positives"):
        load(tmp_path / "r", corpus)


def test_it_knows_an_image_that_asked_or_was_asked_for() -> None:
    """Rows of equal content are one; where the asker matters both tables count."""
    images, captions = np.array([0, 1, 1, 3]), np.arange(4)
    told = knowledge_of({(1, 2): 0.5}, images, captions)
    assert told.knows(np.array([0, 2, 3]))
    assert not told.knows(np.array([0, 3]))
    assert knowledge_of({(1, 2): 0.5}, images, captions, {(0, 3): 0.5}).knows(np.array([0, 3]))
    assert not knowledge_of({(1, 2): 0.5}, images, captions, {(0, 1): 0.5}).knows(np.array([0, 3]))

"""Unpaired queries: who is one, whom they are given, and how often each is drawn."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.loop_settings import Unpaired
from cprd_pipeline.distillation.unpaired import UnpairedPools
from cprd_pipeline.errors import CorpusError, StoreError
from tests.distillation.made_corpus import corpus_of
from tests.distillation.made_knowledge import Known, knowledge_of

# Rows 0 to 2 are pairs. Images 3, 4 and 5 are unpaired; 6 repeats the paired 0, 7 repeats 4. Captions 3 and 4 are unpaired,
# 5 repeats the paired 1. Caption 6 is of val, as is image 8; caption 7 is of train and repeats 6.
PICTURES = ["a", "b", "c", "d", "e", "f", "a", "e", "g"]
TEXTS = ["ta", "tb", "tc", "td", "te", "tb", "tv", "tv"]
KNOWN = {
    (3, 0): 1.0, (3, 1): 2.0, (3, 2): -1.0, (3, 6): 1.5,
    (4, 3): -0.5, (4, 4): -0.25,
    (0, 3): 0.5, (1, 3): 0.1, (5, 3): 3.0, (8, 3): 9.0,
    (2, 4): -2.0,
}  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Nine images, eight captions."""
    pairs = [(0, 0), (1, 1), (2, 2), (6, 0), (1, 5), (8, 6), (8, 7)]
    return corpus_of(tmp_path / "corpus", PICTURES, TEXTS, pairs, {8: "val"}, {6: "val"})


def pools_of(corpus: Corpus, known: Known = KNOWN, seed: int = 0, **values: Any) -> UnpairedPools:
    told = knowledge_of(known, corpus.images.first_with_digest, corpus.captions.first_with_digest)
    return UnpairedPools(corpus, corpus.split("train"), told, Unpaired(share=0.5, **values), seed)


def drawn(pools: UnpairedPools, count: int, steps: int) -> list[tuple[int, int, bool]]:
    rows = [pools.draw(step, count) for step in range(steps)]
    return [pair for one in rows for pair in zip(one.images.tolist(), one.captions.tolist(), one.paired.tolist(), strict=True)]


def test_who_is_unpaired_and_usable(corpus: Corpus) -> None:
    """Contents without a positive in the split, each once; what the teacher never scored, or only below the floor, is counted."""
    pools = pools_of(corpus, floor=-0.4)
    # Images 3, 4 and (by caption 3) 5; captions 3 and 7, whose content image 3 knows; caption 4 by image 4.
    assert pools.counts == {"images": 3, "captions": 3, "without_candidates": 0, "below_floor": 0}
    assert pools_of(corpus).counts == {"images": 2, "captions": 2, "without_candidates": 0, "below_floor": 2}
    less = {pair: score for pair, score in KNOWN.items() if pair[0] != 4}
    assert pools_of(corpus, less).counts == {"images": 2, "captions": 2, "without_candidates": 1, "below_floor": 1}
    assert pools_of(corpus, less, positive="none").counts == {"images": 2, "captions": 3, "without_candidates": 1, "below_floor": 0}


def test_partners_are_scored_items_of_the_split(corpus: Corpus) -> None:
    """Never below the floor, never of another split: its content counts under the split's own row."""
    found = {(image, caption) for image, caption, _ in drawn(pools_of(corpus), 2, 400)}
    of_images, of_captions = {(3, 0), (3, 1), (3, 7), (5, 3)}, {(0, 3), (1, 3), (5, 3), (3, 7)}
    assert found == of_images | of_captions
    assert pools_of(corpus).image_rows.tolist() == [0, 1, 3, 5]


def test_top1_takes_the_highest(corpus: Corpus) -> None:
    """Always the same partner."""
    assert set(drawn(pools_of(corpus, positive="top1"), 4, 20)) == {(3, 1, True), (5, 3, True), (3, 7, True)}


def test_none_pairs_nobody(corpus: Corpus) -> None:
    """Partners come from the whole list, low scores too, and are no positives."""
    found = drawn(pools_of(corpus, positive="none", floor=5.0, temperature=5.0), 6, 400)
    assert {paired for *_, paired in found} == {False}
    assert {(image, caption) for image, caption, _ in found} >= {(3, 2), (4, 3), (2, 4)}


def test_partners_follow_the_softmax(corpus: Corpus) -> None:
    """Frequencies equal the teacher's softmax at the temperature."""
    known = {(3, 0): 1.0, (3, 1): 2.0, (3, 2): 0.5}
    counts = Counter(caption for _, caption, _ in drawn(pools_of(corpus, known, temperature=0.8), 1, 4000))
    odds = np.exp(np.array([1.0, 2.0, 0.5]) / 0.8)
    np.testing.assert_allclose([counts[caption] / 4000 for caption in range(3)], odds / odds.sum(), atol=0.03)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 6), first=st.integers(0, 30))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_each_query_once_an_epoch(corpus: Corpus, seed: int, count: int, first: int) -> None:
    """Queries of a batch are different, those of an epoch too, and a draw depends on seed and step alone."""
    pools = pools_of(corpus, seed=seed, positive="none")
    assert len(pools) == 6
    per_epoch = 6 // count
    asked: list[tuple[str, int]] = []
    for step in range(first * per_epoch, (first + 1) * per_epoch):
        rows = pools.draw(step, count)
        again = pools_of(corpus, seed=seed, positive="none").draw(step, count)
        assert all(np.array_equal(one, other) for one, other in zip(rows, again, strict=True))
        assert len(rows.images) == len(rows.captions) == len(rows.paired) == count
        asked += queries_of(rows.images.tolist(), rows.captions.tolist())
    assert len(asked) == per_epoch * count


def queries_of(images: list[int], captions: list[int]) -> list[tuple[str, int]]:
    """The queries of a batch: unpaired images first, then unpaired captions, all of them different."""
    options = []
    for cut in range(len(images) + 1):
        queries = [*(("i", row) for row in images[:cut]), *(("c", row) for row in captions[cut:])]
        if set(queries) <= {("i", 3), ("i", 4), ("i", 5), ("c", 3), ("c", 4), ("c", 7)} and len(set(queries)) == len(queries):
            options.append(queries)
    assert options
    return options[0]


def test_pools_are_drawn_in_proportion(corpus: Corpus) -> None:
    """Over an epoch of single draws every query comes once: three images, three captions."""
    pools = pools_of(corpus, {(3, 0): 1.0, (4, 0): 1.0, (5, 0): 1.0, (0, 3): 1.0})
    found = [(image, caption) for image, caption, _ in drawn(pools, 1, 400)]
    assert Counter(found) == {(3, 0): 100, (4, 0): 100, (5, 0): 100, (0, 3): 100}


def test_a_split_without_unpaired_items(tmp_path: Path) -> None:
    """The message says how to have some."""
    corpus = corpus_of(tmp_path / "corpus", ["a", "b", "a"], ["ta", "tb"], [(0, 0), (1, 1), (2, 0)])
    with pytest.raises(CorpusError, match=r"split train has no unpaired image and no unpaired caption.*unpaired: keep"):
        pools_of(corpus, {(0, 0): 1.0})


def test_the_split_that_has_unpaired_items_is_named(tmp_path: Path) -> None:
    """Where `prepare` kept them under a name of their own; without any, `prepare` is to keep them."""
    pairs, known = [(0, 0)], np.arange(2)
    corpus = corpus_of(tmp_path / "a", ["a", "b"], ["ta", "tb"], pairs, {1: "pool"}, {1: "pool"})
    with pytest.raises(
        CorpusError, match=r"split train has no unpaired image .*; set unpaired\.split to pool, or set unpaired\.share"
    ):
        UnpairedPools(corpus, corpus.split("train"), knowledge_of({}, known, known), Unpaired(share=0.5), 0)
    corpus = corpus_of(tmp_path / "b", ["a"], ["ta"], pairs)
    with pytest.raises(CorpusError, match=r"; prepare the corpus with files\.unpaired: keep, or set unpaired\.share to 0"):
        UnpairedPools(corpus, corpus.split("train"), knowledge_of({}, known[:1], known[:1]), Unpaired(share=0.5), 0)


def test_rankings_that_know_no_partner(corpus: Corpus) -> None:
    """The message says what to lower."""
    with pytest.raises(
        StoreError, match=r"none of the 6 unpaired items of split train has a partner.*at least 50.*lower unpaired.floor"
    ):
        pools_of(corpus, floor=50.0)

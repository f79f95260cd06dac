"""Batches of neighbours: the graph is what the scored pairs say, an epoch loses no image, and known pairs really meet."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus.reader import Split
from cprd_pipeline.distillation import neighbour_graph as graph_module
from cprd_pipeline.distillation.batches import PairSampler
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.loop_settings import Neighbours
from cprd_pipeline.distillation.neighbour_graph import MOST_NEIGHBOURS, NONE, neighbour_graph
from cprd_pipeline.distillation.neighbours import NeighbourOrder, choose_groups
from tests.distillation.made_knowledge import Known, clustered, knowledge_of, split_of

# Image 0 is not of the split, so that places are no rows; caption 11 repeats caption 2, image 6 repeats image 5.
IMAGES, CAPTIONS = np.array([0, 1, 2, 3, 4, 5, 5]), np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2])
POSITIVES = [(1, 1), (1, 2), (1, 11), (2, 3), (2, 4), (3, 5), (4, 6), (4, 2), (4, 11), (5, 7), (5, 8), (6, 7), (6, 8)]
ROWS = [1, 2, 3, 4, 5, 6]


def slow_graph(known: Known, split: Split) -> list[list[int]]:
    """Every pair of images, every caption of each."""
    own = defaultdict(set)
    for image, caption in split.positives.tolist():
        own[image].add(int(CAPTIONS[caption]))
    lists = []
    for i in ROWS:
        found = []
        for j in ROWS:
            forth = [known[IMAGES[i], c] for c in own[j] - own[i] if (IMAGES[i], c) in known]
            back = [known[IMAGES[j], c] for c in own[i] - own[j] if (IMAGES[j], c) in known]
            if i != j and (forth or back):
                found.append((not (forth and back), -max(forth + back), ROWS.index(j)))
        lists.append([place for *_, place in sorted(found)])
    return lists


def as_lists(graph: np.ndarray) -> list[list[int]]:
    assert all((row[np.argmax(row == NONE) :] == NONE).all() for row in graph if (row == NONE).any())
    return [row[row != NONE].tolist() for row in graph]


PAIRS = st.dictionaries(
    st.tuples(st.sampled_from([0, 1, 2, 3, 4, 5]), st.integers(0, 10)), st.floats(-9, 9, width=16), min_size=1, max_size=40
)


@given(known=PAIRS, block=st.integers(1, 40))
@settings(deadline=None)
def test_the_graph_is_what_a_slow_loop_finds(known: Known, block: int) -> None:
    """Mutual neighbours first, then higher scores; repeated contents count, annotated pairs do not."""
    split = split_of(POSITIVES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cprd_pipeline.distillation.pair_table._BLOCK_PAIRS", block)
        found = neighbour_graph(knowledge_of(known, IMAGES, CAPTIONS), split)
    assert found.shape == (6, MOST_NEIGHBOURS)
    assert as_lists(found) == slow_graph(known, split)


def test_both_tables_count_where_the_asker_matters() -> None:
    """A pair that only captions were told makes neighbours too."""
    knowledge = knowledge_of({(1, 3): 1.0}, IMAGES, CAPTIONS, told_captions={(5, 1): 2.0, (1, 4): 3.0})
    assert as_lists(neighbour_graph(knowledge, split_of(POSITIVES))) == [[3, 2, 1], [0], [0], [0], [], []]


def test_the_highest_scores_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many neighbours the best stay: memory is bounded by the number of images."""
    monkeypatch.setattr(graph_module, "MOST_NEIGHBOURS", 2)
    known = {(1, 3): 1.0, (1, 5): 3.0, (1, 6): 2.0, (1, 7): 0.5}
    assert as_lists(neighbour_graph(knowledge_of(known, IMAGES, CAPTIONS), split_of(POSITIVES)))[0] == [2, 3]


@given(
    images=st.integers(4, 60),
    batch_size=st.integers(2, 20),
    group_size=st.sampled_from([1, 2, 4, 8, 16]),
    random_share=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_no_image_is_lost_and_none_comes_twice(
    images: int, batch_size: int, group_size: int, random_share: float, seed: int
) -> None:
    """For any graph, group and batch, the order holds the images of the pass, each once; the same seed gives the same order."""
    draws = np.random.default_rng(seed)
    graph = np.full((images, 5), NONE, dtype=np.int32)
    for place in range(images):
        near = draws.permutation(np.delete(np.arange(images), place))[: draws.integers(0, min(6, images))]
        graph[place, : len(near)] = near
    places = np.sort(draws.permutation(images)[: draws.integers(1, images + 1)])
    order = NeighbourOrder(graph, group_size, batch_size, random_share)
    found = order(places, np.random.default_rng(seed))
    assert np.array_equal(np.sort(found), places)
    assert np.array_equal(found, order(places, np.random.default_rng(seed)))


def known_share(knowledge: TeacherKnowledge, sampler: PairSampler) -> float:
    """Of all pairs of an epoch's batches."""
    told = [knowledge.among(sampler.batch(step)).i2t.scores_QN for step in range(sampler.batches_per_epoch)]
    return float((~np.isnan(told)).mean())


def test_known_pairs_meet() -> None:
    """With groups as large as the clusters, many times the known pairs of random batches meet; larger random shares bring fewer."""
    knowledge, split = clustered(images=240, size=8)
    graph = neighbour_graph(knowledge, split)
    shares = [
        known_share(knowledge, PairSampler(split, 24, 3, arrange=NeighbourOrder(graph, group, 24, share)))
        for group, share in ((1, 0.0), (2, 0.0), (8, 0.0), (8, 0.5))
    ]
    random = known_share(knowledge, PairSampler(split, 24, 3))
    assert shares[0] == pytest.approx(random, abs=0.015)
    assert shares[0] < shares[1] < shares[3] < shares[2]
    assert shares[2] > 0.9 * 0.8 * 8 / 24
    assert random < 0.08


@given(seed=st.integers(0, 50), random_share=st.sampled_from([0.25, 0.5]))
@settings(deadline=None, max_examples=10)
def test_the_random_share_is_drawn_at_random(seed: int, random_share: float) -> None:
    """The first images of a batch are whole clusters; the last ones come from as many clusters as random images do."""
    images, size, batch = 256, 8, 32
    graph = np.full((images, size), NONE, dtype=np.int32)
    for place in range(images):
        graph[place, : size - 1] = [other for other in range(place // size * size, (place // size + 1) * size) if other != place]
    order = NeighbourOrder(graph, size, batch, random_share)(np.arange(images), np.random.default_rng(seed))
    drawn = round(random_share * batch)
    clusters = order.reshape(-1, batch) // size
    grouped = np.mean([len(set(row)) for row in clusters[:, : batch - drawn].tolist()])
    last = np.mean([len(set(row)) for row in clusters[:, batch - drawn :].tolist()])
    expected = images / size * (1 - (1 - size / images) ** drawn)
    assert grouped < 0.5 * (batch - drawn)
    assert last == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("wanted", [0.1, 0.2])
def test_groups_are_as_small_as_the_share_allows(wanted: float) -> None:
    """The measured share is what batches have, reaches what was asked for, and the next smaller groups' does not."""
    knowledge, split = clustered(images=240, size=16)
    asked = Neighbours(known_share=wanted, random_share=0.25)
    chosen = choose_groups(knowledge, split, 24, asked, seed=5)
    assert chosen.reached
    assert chosen.known_share >= wanted > chosen.random_known_share
    assert chosen.group_size in (2, 4, 8, 16)
    arranged = {
        size: known_share(
            knowledge, PairSampler(split, 24, 5, arrange=NeighbourOrder(neighbour_graph(knowledge, split), size, 24, 0.25))
        )
        for size in (chosen.group_size, chosen.group_size // 2)
    }
    assert arranged[chosen.group_size] == pytest.approx(chosen.known_share, abs=0.02)
    assert arranged[chosen.group_size // 2] < wanted + 0.01
    again = choose_groups(knowledge, split, 24, asked, seed=5)
    assert (again.group_size, again.known_share) == (chosen.group_size, chosen.known_share)


def test_what_cannot_be_reached_is_said() -> None:
    """The best groups are taken, and marked."""
    knowledge, split = clustered(images=96, size=8)
    chosen = choose_groups(knowledge, split, 24, Neighbours(known_share=0.9), seed=0)
    assert not chosen.reached
    assert 4 * chosen.random_known_share > chosen.known_share > 1.5 * chosen.random_known_share


def test_several_passes_by_neighbourhood() -> None:
    """Each pass arranges the images that it has."""
    knowledge, split = clustered(images=48, size=8)
    uneven = Split(split.name, split.images, split.captions, split.positives[np.arange(96) % 8 != 7])
    order = choose_groups(knowledge, uneven, 8, Neighbours(known_share=0.3), seed=0).arrange
    sampler = PairSampler(uneven, 8, 0, "all", order)
    assert sampler.batches_per_epoch == 6 + 4
    later = np.concatenate([sampler.batch(step).images for step in range(6, 10)])
    assert len(set(later.tolist())) == 32
    assert (later % 4 != 3).all()

from itertools import chain

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.metrics.ranking import RankedPositives, rank_both_directions
from cprd_pipeline.metrics.retrieval import (
    MeasuredQueries,
    best_positive_ranks,
    measure_queries,
    rsum,
    summarise_queries,
    summarise_ranks,
)
from tests.metrics.slow import positives_of, slow_metrics, vectors


def measured_as_rows(measured):
    """One dictionary a query."""
    return [dict(zip(vars(measured), row, strict=True)) for row in zip(*vars(measured).values(), strict=True)]


def test_ranks_by_hand_with_several_positives_per_query():
    """The best positive decides; the query's other positives do not push it down."""
    queries = vectors([1, 0], [0, 1])
    items = vectors([1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1])
    # Query 0 sees items in the order 0 1 2 3, query 1 in the order 3 2 1 0.
    positives = positives_of([(0, 2), (0, 1), (1, 0)], 2, 4)
    assert best_positive_ranks(queries, items, positives).tolist() == [2, 4]


def test_a_tie_counts_against_the_model():
    """An item as similar as the positive ranks before it; an equally similar positive does not."""
    queries = vectors([1, 0])
    items = vectors([0.5, 0.1], [0.5, 0.2], [0.5, 0.3], [0.1, 0])
    assert best_positive_ranks(queries, items, positives_of([(0, 0)], 1, 4)).tolist() == [3]
    assert best_positive_ranks(queries, items, positives_of([(0, 0), (0, 2)], 1, 4)).tolist() == [2]


def test_a_collapsed_model_gets_the_last_ranks():
    """A model that maps everything to one point looks worst, not best."""
    point = np.full((7, 5), 0.44, dtype=np.float32)
    ranks = best_positive_ranks(point[:3], point, positives_of([(0, 0), (1, 4), (2, 6), (2, 5)], 3, 7))
    assert ranks.tolist() == [7, 7, 6]


def test_a_query_without_positives_is_refused():
    """A rank is undefined without a positive, and is not made up."""
    with pytest.raises(ValueError, match="1 queries have no positive"):
        best_positive_ranks(vectors([1.0], [1.0]), vectors([1.0]), positives_of([(0, 0)], 2, 1))


def test_summary_by_hand():
    """Recalls are percentages of queries; MRR and mean rank are means; the median of an even count lies between."""
    summary = summarise_ranks(np.array([1, 2, 6, 11]))
    assert summary == pytest.approx(
        {"r1": 25.0, "r5": 50.0, "r10": 75.0, "median_rank": 4.0, "mean_rank": 5.0, "mrr": (1 + 1 / 2 + 1 / 6 + 1 / 11) / 4}
    )
    assert rsum(summary, summarise_ranks(np.array([1]))) == pytest.approx(450.0)


def test_no_ranks_are_refused():
    """An empty direction has no recall, rather than NaN."""
    with pytest.raises(ValueError, match="no ranks"):
        summarise_ranks(np.empty(0, dtype=np.int64))


def test_measures_by_hand_with_several_positives():
    """Three positives at ranks 1, 3 and 12, listed out of order: only the first three places count for AP@R."""
    positives = positives_of([(0, 4), (0, 5), (0, 9), (2, 1)], 3, 20)
    measured = measure_queries(RankedPositives(positives, np.array([12, 1, 3, 4])))
    discounts = [1, 1 / np.log2(3), 1 / 2]
    assert measured.rank.tolist() == [1, 4]
    assert measured.average_precision.tolist() == pytest.approx([(1 + 2 / 3) / 3, 0])
    assert measured.r_precision.tolist() == pytest.approx([2 / 3, 0])
    assert measured.ndcg.tolist() == pytest.approx([(1 + 1 / 2) / sum(discounts), 1 / np.log2(5)])


@given(st.lists(st.sets(st.integers(1, 40), max_size=15), min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_measures_equal_a_slow_loop(ranks_of, random):
    """Any number of positives, more than ten too; queries without one are left out."""
    shuffled = [random.sample(sorted(ranks), len(ranks)) for ranks in ranks_of]
    pairs = [(query, item) for query, ranks in enumerate(shuffled) for item in range(len(ranks))]
    positives = positives_of(pairs, len(ranks_of), 40)
    measured = measure_queries(RankedPositives(positives, np.array([*chain(*shuffled)], dtype=np.int64)))
    expected = [slow_metrics(sorted(ranks)) for ranks in ranks_of if ranks]
    assert measured_as_rows(measured) == [pytest.approx(row, abs=1e-12) for row in expected]


def trec_eval(similarities, positives):
    """What trec_eval says of each query with a positive; it puts the higher name first among equals."""
    names = {False: "wrong", True: "right"}
    run, judged = {}, {}
    for query, row in enumerate(similarities):
        right = set(positives.items[positives.queries == query].tolist())
        if right:
            run[str(query)] = {f"{names[item in right]}{item}": float(value) for item, value in enumerate(row)}
            judged[str(query)] = {f"right{item}": 1 for item in right}
    cuts = ",".join(str(k) for k in range(1, 1 + max(len(right) for right in judged.values())))
    wanted = {"recip_rank", "Rprec", "ndcg_cut.10", "success.1,5,10", f"map_cut.{cuts}"}
    found = pytrec_eval.RelevanceEvaluator(judged, wanted).evaluate(run)
    return [found[query] | {"map_r": found[query][f"map_cut_{len(judged[query])}"]} for query in run]


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_trec_eval_agrees_on_random_data_with_ties(levels):
    """An independent implementation gives the same value of every metric for every query, in both directions."""
    random = np.random.default_rng(levels)
    images, captions = (random.integers(-levels, levels, (count, 2)).astype(np.float32) for count in (60, 150))
    matrix = images @ captions.T
    pairs = [(int(i), c) for c in range(150) for i in random.choice(55, size=random.integers(1, 4), replace=False)]
    directions = rank_both_directions(images, captions, positives_of(pairs, 60, 150))
    for ranked, similarities in zip(directions, (matrix, matrix.T), strict=True):
        values, expected = measure_queries(ranked).values(), trec_eval(similarities, ranked.positives)
        names = {"r1": "success_1", "r5": "success_5", "r10": "success_10", "map_r": "map_r", "r_precision": "Rprec"}
        for ours, theirs in (names | {"binary_ndcg10": "ndcg_cut_10"}).items():
            assert values[ours].tolist() == pytest.approx([100 * query[theirs] for query in expected]), ours
        assert values["mrr"].tolist() == pytest.approx([query["recip_rank"] for query in expected])


def test_query_summary_by_hand():
    """The figures of the ranks, and means of the rest in percent; every mean is that of the per-query values."""
    halves = np.array([0.0, 1.0])
    measured = MeasuredQueries(np.array([1, 3]), average_precision=halves, r_precision=halves / 2, ndcg=halves / 4)
    summary = summarise_queries(measured)
    assert {name: summary[name] for name in ("map_r", "r_precision", "binary_ndcg10")} == pytest.approx(
        {"map_r": 50.0, "r_precision": 25.0, "binary_ndcg10": 12.5}
    )
    assert summary.pop("median_rank") == 2.0
    assert {name: np.mean(values) for name, values in measured.values().items()} == pytest.approx(summary)


def test_no_queries_are_refused():
    """A direction in which nothing has a positive has no figures, rather than NaN."""
    with pytest.raises(ValueError, match="no ranks"):
        summarise_queries(measure_queries(RankedPositives(positives_of([], 2, 3), np.empty(0, dtype=np.int64))))

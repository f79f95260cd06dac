import pytest

from cprd_pipeline.metrics.averages import Spread, mean_figures, spread_over_seeds


def test_mean_figures_by_hand():
    """Every figure is averaged over the folds, medians too."""
    folds = [{"r1": 10.0, "median_rank": 3.0}, {"median_rank": 4.0, "r1": 30.0}]
    assert mean_figures(folds) == {"r1": 20.0, "median_rank": 3.5}


def test_spread_by_hand():
    """The deviation is the sample's, with n - 1; one seed has none."""
    assert spread_over_seeds([{"r1": 1.0}, {"r1": 3.0}, {"r1": 5.0}]) == {"r1": Spread(3.0, 2.0, 3)}
    assert spread_over_seeds([{"r1": 1.0}]) == {"r1": Spread(1.0, None, 1)}


def test_nothing_and_unlike_figures_are_refused():
    """A mean of nothing, or of figures that some summaries lack, is not made up."""
    with pytest.raises(ValueError, match="no summaries"):
        mean_figures([])
    with pytest.raises(ValueError, match="different figures: mrr not in all"):
        spread_over_seeds([{"r1": 1.0}, {"r1": 1.0, "mrr": 0.5}])

"""The table of judged sets and folds."""

from cprd_pipeline.reporting.background import Background
from cprd_pipeline.reporting.judged import judged


def test_each_figure_of_a_judged_set_has_a_row_and_each_model_a_column():
    """The split's own figures stay out; a model without a figure has a dash; without judged sets there is no section."""
    background = Background.model_validate({"judged": {"cxc": {"intervals": {"cprd": {"sits_spearman": [0.44, 0.56]}}}}})
    own = {"rsum": 200.0, "i2t_r1": 10.0}
    metrics = {
        "base": {**own, "folds_rsum": 300.0, "cxc_sits_spearman": -0.25},
        "cprd": {**own, "cxc_sits_spearman": 0.5},
        "teacher": own,
    }
    [section] = judged(metrics, background)
    text = section.html()
    for wanted in (
        "mean over folds",
        "Crisscrossed Captions",
        "sits_spearman",
        "300.00",
        "\N{MINUS SIGN}0.25",
        "0.50<small>0.44\N{EN DASH}0.56</small>",
        "\N{EN DASH}",
    ):
        assert wanted in text
    assert "200.00" not in text
    assert "teacher" not in text
    assert judged({"base": own}, background) == []

"""The table of judged sets and folds."""

import re

from cprd_pipeline.reporting.background import Background
from cprd_pipeline.reporting.judged import judged


def test_each_figure_of_a_judged_set_has_a_row_and_each_model_a_column():
    """The split's own figures stay out; a model without a figure has a dash; without judged sets there is no section."""
    background = Background.model_validate({"judged": {"cxc": {"intervals": {"cprd": {"sits_spearman": [0.44, 0.56]}}}}})
    own = {"rsum": 200.0, "i2t_r1": 10.0}
    folds = {"folds_rsum": 300.0, "folds_i2t_binary_ndcg10": 61.25, "folds_t2i_mean_rank": 4.5}
    folds |= {"folds_count": 2.0, "folds_images_left_out": 35.0, "folds_captions_left_out": 1175.0}
    metrics = {
        "base": {**own, **folds, "cxc_sits_spearman": -0.25, "sugarcrepe_add_att": 51.5},
        "cprd": {**own, "cxc_sits_spearman": 0.5},
        "teacher": own,
    }
    [section] = judged(metrics, background)
    text = section.html()
    for wanted in (
        "mean over folds",
        "Crisscrossed Captions",
        "Spearman&#x27;s correlation<small>Crisscrossed Captions",
        "RSUM<small>mean over folds",
        "300.00",
        "nDCG@10, image → text<small>",
        "mean rank, text → image<small>",
        "add att<small>SugarCrepe",
        "higher is better, of ranks lower",
        " Folds: 2, which leaves 35 images and 1,175 captions out.",
        "\N{MINUS SIGN}0.25",
        "0.50<small>0.44\N{EN DASH}0.56</small>",
        "\N{EN DASH}",
    ):
        assert wanted in text
    assert "200.00" not in text
    assert "1175.00" not in text  # counts are no means over folds
    assert "teacher" not in text
    assert "_" not in re.sub(r"<[^>]*>", "", text)
    assert judged({"base": own}, background) == []

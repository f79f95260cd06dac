"""Settings of `mine` that contradict each other, and what of them shapes the output."""

from pathlib import Path

import pytest

from cprd_pipeline.errors import SettingsError
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.settings import load_settings

STAGES = Path(__file__).parents[2] / "stages"


@pytest.mark.parametrize("name", ["mine", "mine_test", "smoke/mine", "smoke/mine_test"])
def test_stage_files_hold_every_knob(name: str) -> None:
    """The YAML files name every setting; the main one holds the defaults but for the demo's own miner."""
    settings = load_settings(MineSettings, STAGES / f"{name}.yaml")
    for group in (settings, settings.index, settings.filters, settings.sampler):
        assert group.model_fields_set == set(type(group).model_fields)
    if name == "mine":
        assert settings == MineSettings(encoder=settings.encoder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["k=0"], "k is 0"),
        (["filters.min_similarity=0.5", "filters.max_similarity=0.4"], "min_similarity is 0.5, above max_similarity 0.4"),
        (["filters.first_rank=9", "filters.last_rank=3"], "first_rank is 9, behind last_rank 3"),
        (["k=8", "filters.first_rank=5", "filters.last_rank=11"], "k is 8, but only the ranks 5 to 11"),
        (["k=8", "sampler.kind=random", "sampler.pool=7"], "pool is 7, less than the k of 8"),
        (["sampler.kind=teacher"], "rankings is null; name the rankings folder"),
        (["sampler.kind=teacher", "sampler.rankings=r", "filters.first_rank=2"], "whatever the rank; set first_rank 1"),
        (["sampler.temperature=0"], "sampler.temperature is 0"),
        (["sampler.temperature=0.0000001"], "sampler.temperature is 1.0e-07"),
        (["sampler.strata=10000000000000000000"], "sampler.strata is 10000000000000000000"),
        (["index.seed=2147483648"], "index.seed is 2147483648"),
        (["index.hnsw_m=100000"], "index.hnsw_m is 100000"),
        (["index.ef_construction=1000000000000"], "index.ef_construction is 1000000000000"),
        (["merge=[data/candidates/0, data/candidates/1]"], "merge names data/candidates/1, which is the output"),
        (["filters.max_similarity=1.5"], "filters.max_similarity is 1.5"),
        (["filters.margin=0.1"], "unknown setting filters.margin"),
    ],
)
def test_settings_that_no_candidate_could_meet_are_refused(overrides: list[str], message: str) -> None:
    """One line that names both sides of the contradiction."""
    with pytest.raises(SettingsError, match=message):
        load_settings(MineSettings, STAGES / "mine.yaml", overrides)


def test_a_round_may_be_a_number() -> None:
    """YAML reads 2 as a number; it is a label."""
    assert load_settings(MineSettings, STAGES / "mine.yaml", ["round=2"]).round == "2"


def test_the_pool_follows_the_ranks_or_k() -> None:
    """A range of ranks is a pool by itself; otherwise four times k; `top` wants no more than k."""
    k = {"k": 8}
    assert MineSettings(**k).pool == 8
    assert MineSettings(**k, sampler={"kind": "random"}).pool == 32
    assert MineSettings(**k, sampler={"kind": "random"}, filters={"first_rank": 10, "last_rank": 209}).pool == 200
    assert MineSettings(**k, sampler={"kind": "random", "pool": 9}, filters={"last_rank": 50}).pool == 9


def test_only_what_is_used_shapes_the_output() -> None:
    """An unused temperature, the place of a file, blocks and devices change no byte, so they are no part of the output."""
    same = MineSettings(sampler={"temperature": 3, "pool": 70, "seed": 5}, query_block=7, index={"nlist": 3, "gpus": "one"})
    assert same.in_force() == MineSettings().in_force()
    assert same.in_force()["index"] == {"kind": "exact"}
    drawn = MineSettings(k=8, sampler={"kind": "softmax"}, filters={"max_similarity": 0.9, "same_text": False, "groups": "a.csv"})
    assert drawn.in_force()["sampler"] == {"kind": "softmax", "temperature": 0.05, "seed": 0, "pool": 32}
    assert drawn.in_force()["filters"] == {"max_similarity": 0.9, "group_column": "group"}
    assert MineSettings(index={"kind": "hnsw"}).in_force()["index"]["hnsw_m"] == 32

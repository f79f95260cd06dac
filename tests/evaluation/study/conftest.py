import pytest

from tests.evaluation.study.small_study import make_small_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A small study whose tables were made once; a test that changes something takes `own`."""
    from cprd_pipeline.evaluation.study.run import run

    root = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPRD_CACHE", str(root / "cache"))
        study = make_small_study(root / "run")
        run(study.settings)
    return study


@pytest.fixture
def own(tmp_path):
    """A small study for one test."""
    return make_small_study(tmp_path / "run")

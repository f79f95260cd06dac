"""Which GPUs search, and what is said when they refuse; the GPUs are pretended."""

import numpy as np
import pytest

from cprd_pipeline.errors import MachineError
from cprd_pipeline.mining import gpus
from cprd_pipeline.mining.gpus import choose_gpus, gpus_title
from cprd_pipeline.mining.index_settings import IndexSettings
from cprd_pipeline.mining.indexes import make_search
from cprd_pipeline.mining.search import Excluded
from tests.mining.pretended_gpus import PretendedGpus

VECTORS = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
NOTHING = Excluded(np.zeros(301, dtype=np.int64), np.empty(0, dtype=np.int64))


@pytest.mark.parametrize(
    ("device", "index", "chosen"),
    [
        ("auto", {}, (0, 1, 2)),
        ("cuda", {}, (0, 1, 2)),
        ("cuda", {"gpus": "one"}, (0,)),
        ("cuda:1", {}, (1,)),
        ("cuda:2", {"gpus": "one", "kind": "ivf_pq", "pq_m": 64}, (2,)),
        ("cuda:3", {}, ()),
        ("cpu", {}, ()),
        ("cpu:0", {}, ()),
        ("auto", {"kind": "hnsw"}, ()),
    ],
)
def test_a_device_with_a_number_is_searched_on_alone(
    device: str,
    index: dict[str, object],
    chosen: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of three GPUs that FAISS can use; without a number it is all of them or the first, as the settings say."""
    monkeypatch.setattr(gpus, "load_faiss", lambda: PretendedGpus(3))
    assert choose_gpus(device, IndexSettings.model_validate(index)) == chosen
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("count", [0, 2])
def test_codes_that_gpus_cannot_stay_on_the_cpu(
    count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line says so, with what GPUs can, but where there is no GPU that it could be about."""
    monkeypatch.setattr(gpus, "load_faiss", lambda: PretendedGpus(count))
    assert choose_gpus("auto", IndexSettings(kind="ivf_pq", pq_m=60)) == ()
    said = capsys.readouterr().err
    assert (said == "") == (count == 0)
    assert said.replace("\n", " ").startswith("index.pq_m is 60: the CPU searches" if count else "")


def test_gpus_are_named_for_people() -> None:
    """One by its number, several with their count."""
    assert [gpus_title(numbers) for numbers in ((), (1,), (0, 2))] == ["cpu", "GPU 1", "2 GPUs (0, 2)"]


_TOO_MUCH = "Error: 'err == cudaSuccess' failed: alloc fail (cudaMalloc error out of memory [2])\n"


@pytest.mark.parametrize("kind", ["exact", "ivf_flat"])
@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("move", "put 300 vectors of width 16 on {}: {}; set index.float16=true, index.gpus=all, a lower index_block"),
        ("add", "put 300 vectors of width 16 on {}: {}; set index.float16=true, index.gpus=all, a lower index_block"),
        ("search", "search 21 items for each of 300 queries on {}: {}; set a lower query_block, a lower index_block"),
    ],
)
def test_a_gpu_without_room_is_one_line_with_what_to_lower(
    kind: str, at: str, message: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAISS's reason without its C++ function, from one GPU and from several; FAISS's own error is the cause."""
    for count, text in (
        (1, f"Error in f() at g.cu:1: {_TOO_MUCH}"),
        (2, f"Exception thrown from index 1: Error in f(): {_TOO_MUCH}"),
    ):
        monkeypatch.setattr(gpus, "load_faiss", lambda count=count, text=text: PretendedGpus(count, refuse=text, at=at))
        index = IndexSettings.model_validate({"kind": kind, "nlist": 4})
        if kind == "ivf_flat" and at == "add":
            continue  # nothing is added to a copy
        with pytest.raises(MachineError) as caught:
            make_search(
                VECTORS,
                index,
                identity="these",
                cache=tmp_path,
                query_block=1024,
                index_block=1024,
                gpus=choose_gpus("auto", index),
            ).top(VECTORS, 5, NOTHING)
        reason = _TOO_MUCH.removeprefix("Error: ").strip()
        assert str(caught.value).startswith("FAISS cannot " + message.format(gpus_title(range(count)), reason))
        assert len(str(caught.value).splitlines()) == 1
        assert isinstance(caught.value.__cause__, RuntimeError)

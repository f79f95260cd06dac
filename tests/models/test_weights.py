"""The digest of a model's weights: the same from any files that hold them, read without torch."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.weights import own_tensors_digest, tensors_digest
from cprd_pipeline.store import digest_memory

_DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu),
    *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex64, torch.bool),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]


def some_tensors() -> dict[str, torch.Tensor]:
    """Every number type, a scalar, a tensor without numbers, and a name beyond ASCII, in no order."""
    values = torch.arange(12).reshape(3, 4)
    found = {f"of {dtype}": values.to(dtype) for dtype in reversed(_DTYPES)}
    return {**found, "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "größe": torch.ones(2, 1, 2)}


def digest_by_torch(tensors: dict[str, torch.Tensor]) -> str:
    """The digest by its words: name, type, shape and bytes of each tensor, by name."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_shards(shards: list[dict[str, torch.Tensor]], folder: Path) -> None:
    """As `save_pretrained` cuts large models: model-0, model-1, ... and their index."""
    for number, shard in enumerate(shards):
        save_file(shard, folder / f"model-{number}.safetensors")
    of = {name: f"model-{number}.safetensors" for number, shard in enumerate(shards) for name in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": of}))


def test_it_names_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    """Of every type that safetensors keeps; what else the file says of itself does not count."""
    save_file(some_tensors(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert tensors_digest(tmp_path) == digest_by_torch(some_tensors())


def test_it_does_not_depend_on_the_files(tmp_path: Path) -> None:
    """One file, two shards, or PyTorch's own format give one digest; one changed bit another."""
    tensors = some_tensors()
    known = digest_by_torch(tensors)
    names = list(tensors)
    save_shards([{name: tensors[name] for name in shard} for shard in (names[::2], names[1::2])], tmp_path)
    assert tensors_digest(tmp_path) == known
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    torch.save(tensors, pickled / "pytorch_model.bin")
    assert tensors_digest(pickled) == known
    path = tmp_path / "model-1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert tensors_digest(tmp_path) != known


def test_one_changed_bit_counts_where_the_digest_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any of the files, and though another shard came first."""
    monkeypatch.setattr(digest_memory, "WORTH_BYTES", 1)
    monkeypatch.setattr(digest_memory, "_SETTLED_NS", -1)
    save_shards([{str(number): torch.arange(4)} for number in range(2)], tmp_path)
    known = tensors_digest(tmp_path)
    assert tensors_digest(tmp_path) == known == digest_by_torch({str(number): torch.arange(4) for number in range(2)})
    path = tmp_path / "model-1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert tensors_digest(tmp_path) != known
    save_shards([{"0": torch.arange(4)}], tmp_path)
    assert tensors_digest(tmp_path) == digest_by_torch({"0": torch.arange(4)})


@pytest.mark.parametrize("stray", ["model_ema.safetensors", "adapter_model.safetensors", "model-00001-of-00002.safetensors"])
@pytest.mark.parametrize("own", ["model.safetensors", "pytorch_model.bin"])
def test_only_what_is_loaded_counts(tmp_path: Path, own: str, stray: str) -> None:
    """A training left other weights beside them: a change of the model's own is seen, one of theirs is none."""
    digests = []
    for number in range(2):
        tensors = {"weight": torch.full((2,), float(number))}
        if own.endswith(".bin"):
            torch.save(tensors, tmp_path / own)
        else:
            save_file(tensors, tmp_path / own)
        for other in range(2):
            save_file({"weight": torch.full((2,), 7.0 + other)}, tmp_path / stray)
            digests.append(tensors_digest(tmp_path))
    assert digests == [digest_by_torch({"weight": torch.full((2,), float(number))}) for number in (0, 0, 1, 1)]


def test_they_are_those_that_transformers_loads(tmp_path: Path) -> None:
    """Whole, in shards, and named by the configuration, each beside files that it leaves alone."""
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    for name, options in (("whole", {}), ("shards", {"max_shard_size": 300}), ("named", {})):
        torch.manual_seed(len(name))
        model, folder = BertModel(config), tmp_path / name
        model.save_pretrained(folder, **options)
        save_file({"stray": torch.ones(1)}, folder / "another.safetensors")
        if name == "named":
            (folder / "model.safetensors").rename(folder / "mine.safetensors")
            settings = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(settings | {"transformers_weights": "mine.safetensors"}))
        loaded = BertModel.from_pretrained(folder).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())
        assert tensors_digest(folder) == digest_by_torch(dict(model.named_parameters()))


def test_whatever_a_users_code_may_read_counts(tmp_path: Path) -> None:
    """A head beside the model, a head alone; a folder as transformers writes it has the digest that it has elsewhere."""
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    assert own_tensors_digest(tmp_path) == tensors_digest(tmp_path)
    digests = set()
    for number in range(2):
        save_file({"head": torch.full((2,), float(number))}, tmp_path / "head.safetensors")
        digests.add(own_tensors_digest(tmp_path))
    assert len(digests | {tensors_digest(tmp_path)}) == 3
    (tmp_path / "model.safetensors").unlink()
    assert own_tensors_digest(tmp_path) == digest_by_torch({"head": torch.full((2,), 1.0)})
    save_shards([{"0": torch.arange(4)}, {"1": torch.arange(4)}], tmp_path)
    (tmp_path / "head.safetensors").unlink()
    assert own_tensors_digest(tmp_path) == tensors_digest(tmp_path)


def test_weights_that_are_elsewhere_are_refused(tmp_path: Path) -> None:
    """An adapter's base, a shard that is gone, an index that is none."""
    save_shards([{"0": torch.arange(4)}, {"1": torch.arange(4)}], tmp_path)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-1\.safetensors: is gone; expected every file that model\.safetensors"):
        tensors_digest(tmp_path)
    for content in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        (tmp_path / "model.safetensors.index.json").write_text(content)
        with pytest.raises(ModelError, match=r"index\.json: cannot be read; expected an index as save_pretrained wrote it"):
            tensors_digest(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"an adapter \(adapter_config\.json\), whose base model is elsewhere.*merge them"):
        tensors_digest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"12345678", (16).to_bytes(8, "little") + b'{"a": ', b"\xff" * 40])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    """The file is named."""
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read \(.*; expected a safetensors file") as caught:
        tensors_digest(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"garbage", r"pytorch_model\.bin: cannot be read \(.*; expected tensors by name"),
        (pickle.dumps(print, protocol=2), r"pytorch_model\.bin: cannot be read \(.*; expected tensors by name"),
        ([1, 2], r"pytorch_model\.bin: holds more than tensors by name; expected the weights alone"),
        ({"weight": torch.zeros(1), "epoch": 3}, r"pytorch_model\.bin: holds more than tensors by name"),
    ],
)
def test_what_pytorch_wrote_must_be_weights(tmp_path: Path, content: object, message: str) -> None:
    """Never run as code, and a training's checkpoint is no model."""
    if isinstance(content, bytes):
        (tmp_path / "pytorch_model.bin").write_bytes(content)
    else:
        torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=message) as caught:
        tensors_digest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_type_that_torch_has_no_name_for_is_refused(tmp_path: Path) -> None:
    """Rather than left out of the digest."""
    header = json.dumps({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(ModelError, match=r"model\.safetensors: weights of type F4; expected one of BOOL"):
        tensors_digest(tmp_path)


def test_no_weights_are_no_digest(tmp_path: Path) -> None:
    """A folder without any says so."""
    with pytest.raises(ModelError, match=r"no weights in it; expected model\.safetensors"):
        tensors_digest(tmp_path)

"""Multimodal models of sentence-transformers as encoders, against their own `encode`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.errors import MissingDependencyError, ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder, encoder_fingerprint, load_encoder
from cprd_pipeline.models.embeddings import embed_corpus
from cprd_pipeline.models.encoder_sentence import SentenceEncoder, is_sentence_encoder
from cprd_pipeline.models.students import initial_student
from tests.models.tiny_families import clip, siglip2
from tests.tiny_encoders import simple_corpus

CPU = torch.device("cpu")
CAPTIONS = ["a", "b c d e f g", "x y z", "c c"]


def saved(folder: Path, *modules: torch.nn.Module, **options: object) -> Path:
    """A folder as sentence-transformers writes it."""
    SentenceTransformer(modules=list(modules), device="cpu", **options).save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP and a linear layer behind it."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    reader = Transformer(str(clip(root / "clip")))
    head = Dense(24, 12, activation_function=None, module_input_name="sentence_embedding")
    return saved(root / "saved", reader, head)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "folder"))


@pytest.fixture(scope="module")
def encoder(original: Path) -> SentenceEncoder:
    """The encoder, in float32."""
    loaded = load_encoder(str(original), CPU, torch.float32)
    assert isinstance(loaded, SentenceEncoder)
    return loaded


def pictures(count: int) -> list[Image.Image]:
    """Noise of several shapes."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (30 + 7 * row, 40, 3), dtype=np.uint8)) for row in range(count)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_vectors_are_those_of_encode(original: Path, dtype: torch.dtype, tolerance: float) -> None:
    """Normalised, with all modules of the folder; the linear layer behind CLIP counts."""
    plain = SentenceTransformer(str(original), device="cpu", model_kwargs={"dtype": dtype}).to(dtype)
    encoder = load_encoder(str(original), CPU, dtype)
    for found, items in ((encoder.embed_pictures(pictures(3)), pictures(3)), (encoder.embed_captions(CAPTIONS), CAPTIONS)):
        expected = torch.as_tensor(plain.encode(items, normalize_embeddings=True, convert_to_tensor=True))
        assert found.dtype == dtype
        assert found.shape[1] == 12
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_company_does_not_matter(encoder: SentenceEncoder) -> None:
    """A caption or a picture alone and among others, in another order: the same vector."""
    together, alone = encoder.embed_captions(CAPTIONS), [encoder.embed_captions([caption]) for caption in CAPTIONS]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)
    seen = encoder.embed_pictures(pictures(3)[::-1]).flip(0)
    torch.testing.assert_close(seen, encoder.embed_pictures(pictures(3)), atol=1e-6, rtol=0)
    assert (together @ together.T - torch.eye(4)).max() < 0.999
    assert encoder.token_counts(CAPTIONS).tolist() == [3, 8, 5, 4]


def test_a_corpus_is_embedded_through_the_cache(
    original: Path, encoder: SentenceEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by any encoder: rows by content, and nothing is loaded when all is known."""
    corpus = Corpus(simple_corpus(tmp_path / "corpus", 6))
    rows = np.arange(6), np.asarray([11, 0, 5])
    options = {"device": CPU, "dtype": torch.float32, "batch_size": 4, "workers": 0}
    found = embed_corpus(str(original), corpus, *rows, **options)
    texts = encoder.embed_captions([corpus.texts[row] for row in rows[1]]).numpy()
    np.testing.assert_allclose(found.captions, texts, atol=1e-6)
    assert found.fingerprint == encoder.fingerprint
    monkeypatch.setattr(SentenceEncoder, "load", None)
    assert np.array_equal(embed_corpus(str(original), corpus, *rows, **options).images, found.images)


def test_low_precision_gives_unit_vectors(original: Path, encoder: SentenceEncoder) -> None:
    """bfloat16 in all modules, float32 vectors of length one, near those of float32."""
    rough = load_encoder(str(original), CPU, torch.bfloat16)
    vectors = rough.embed_captions(CAPTIONS)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4), atol=1e-6, rtol=0)
    assert (vectors * encoder.embed_captions(CAPTIONS)).sum(dim=1).min() > 0.99


def test_a_caption_is_never_opened_as_a_picture(encoder: SentenceEncoder, tmp_path: Path) -> None:
    """A caption that is the path of a picture is text; bare `encode` would open the picture (the control)."""
    path = tmp_path / "a.png"
    pictures(1)[0].save(path)
    seen = encoder.embed_pictures(pictures(1))
    opened = torch.as_tensor(encoder.model.encode([str(path)], normalize_embeddings=True))
    torch.testing.assert_close(opened, seen, atol=1e-6, rtol=0)
    assert (encoder.embed_captions([str(path)]) - seen).abs().max() > 1e-2


def test_the_prompt_of_the_folder_holds(folder: Path, encoder: SentenceEncoder) -> None:
    """A default prompt stands before captions, and makes another encoder."""
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    settings |= {"prompts": {"caption": "x y "}, "default_prompt_name": "caption"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    told = load_encoder(str(folder), CPU, torch.float32)
    torch.testing.assert_close(told.embed_captions(["z"]), encoder.embed_captions(["x y z"]), atol=1e-6, rtol=0)
    assert told.fingerprint != encoder.fingerprint


@pytest.mark.parametrize("file", ["1_Dense/model.safetensors", "1_Dense/config.json", "tokenizer.json", "processor_config.json"])
def test_every_file_is_part_of_the_fingerprint(folder: Path, encoder: SentenceEncoder, file: str) -> None:
    """A copy is the same encoder, as is one that another version saved; one changed byte anywhere is another."""
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    settings["__version__"] = {"sentence_transformers": "7.0.0"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text("Any words.")
    assert encoder_fingerprint(str(folder), torch.float32) == encoder.fingerprint
    assert encoder_fingerprint(str(folder), torch.float64) != encoder.fingerprint
    content = (folder / file).read_bytes()
    changed = content[:-1] + b"\x01" if file.endswith("safetensors") else content.replace(b"{", b'{"one_more": 1, ', 1)
    (folder / file).write_bytes(changed)
    assert encoder_fingerprint(str(folder), torch.float32) != encoder.fingerprint


def test_a_vector_that_depends_on_company_is_refused(tmp_path: Path) -> None:
    """sentence-transformers pads SigLIP to the longest of a batch: refused, and right once it is told how to pad."""
    plain = siglip2(tmp_path / "siglip2")
    spoiled = saved(tmp_path / "spoiled", Transformer(str(plain)))
    with pytest.raises(ModelError, match=r"a caption's vector moves by .* with what shares its batch; expected one vector"):
        load_encoder(str(spoiled), CPU, torch.float32)
    padding = {"text": {"padding": "max_length", "max_length": 16}}
    mended = saved(tmp_path / "mended", Transformer(str(plain), processing_kwargs=padding))
    right = DualEncoder.load(str(plain), CPU, torch.float32)
    with torch.no_grad():
        expected = right.embed_captions(CAPTIONS)
    torch.testing.assert_close(load_encoder(str(mended), CPU, torch.float32).embed_captions(CAPTIONS), expected, atol=1e-6, rtol=0)


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    """The message says what the model takes."""
    from transformers import BertConfig, BertModel

    from tests.models.tiny_families import bert_words

    config = BertConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=80)
    BertModel(config).save_pretrained(tmp_path / "bert")
    bert_words().save_pretrained(tmp_path / "bert")
    folder = saved(tmp_path / "text", Transformer(str(tmp_path / "bert")), Pooling(32))
    with pytest.raises(ModelError, match="this sentence-transformers model takes text; expected one that takes image and text"):
        load_encoder(str(folder), CPU, torch.float32)


def test_missing_weights_are_refused(folder: Path) -> None:
    """The library would fill them with random numbers."""
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"768 of \d+ weights are missing"):
        load_encoder(str(folder), CPU, torch.float32)


@pytest.mark.parametrize(
    ("file", "content"), [("modules.json", "{"), ("config_sentence_transformers.json", "["), ("config.json", "{")]
)
def test_a_damaged_folder_is_said_in_one_line(folder: Path, file: str, content: str) -> None:
    """The file is named."""
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match=rf"{file}: cannot be read") as caught:
        encoder_fingerprint(str(folder), torch.float32)
    assert "\n" not in str(caught.value)


def test_code_in_the_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    """A module that only the folder's own code defines is refused, and the code not even imported."""
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Own: pass\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "own.Own"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"cannot be loaded .*own\.Own"):
        load_encoder(str(folder), CPU, torch.float32)
    assert not (tmp_path / "ran").exists()


def test_what_the_folder_of_an_encoder_is(folder: Path, tmp_path: Path) -> None:
    """modules.json, with settings of any age; not a CrossEncoder, nor a folder of transformers alone."""
    assert is_sentence_encoder(folder)
    (folder / "config_sentence_transformers.json").write_text("{}")
    assert is_sentence_encoder(folder)
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    assert not is_sentence_encoder(folder)
    assert not is_sentence_encoder(tmp_path)


def test_it_is_no_student(original: Path) -> None:
    """Training would leave its further modules out."""
    with pytest.raises(
        ModelError, match=r"sentence-transformers wrote it \(modules.json\); expected a folder of transformers alone"
    ):
        initial_student(str(original), 0, CPU, torch.float32)


def test_towers_of_their_own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A router with a tower a kind of input works; one that sees pictures through another library than Pillow is refused."""
    plain = clip(tmp_path / "clip")
    towers = {kind: [Transformer(str(plain))] for kind in ("text", "image")}
    routes = {(None, kind): kind for kind in towers}
    folder = saved(tmp_path / "saved", Router(towers, default_route="text", route_mappings=routes))
    routed, expected = load_encoder(str(folder), CPU, torch.float32), DualEncoder.load(str(plain), CPU, torch.float32)
    with torch.no_grad():
        for found, plainly in (
            (routed.embed_captions(CAPTIONS), expected.embed_captions(CAPTIONS)),
            (routed.embed_pictures(pictures(2)), expected.embed_pictures(pictures(2))),
        ):
            torch.testing.assert_close(found, plainly, atol=1e-6, rtol=0)

    class Torchvision:
        backend = "torchvision"

    assert isinstance(routed, SentenceEncoder)
    seeing = next(module for module in routed.model.modules() if hasattr(module, "processor"))
    monkeypatch.setattr(seeing.processor, "image_processor", Torchvision())
    with pytest.raises(ModelError, match="Torchvision does not work with Pillow"):
        SentenceEncoder(routed.model, "")


def test_folders_of_older_versions_load(tmp_path: Path) -> None:
    """CLIP in a folder of its own, without settings, as sentence-transformers wrote it before version 5.4."""
    plain = clip(tmp_path / "saved" / "0_CLIPModel")
    module = {"idx": 0, "name": "0", "path": plain.name, "type": "sentence_transformers.models.CLIPModel"}
    (tmp_path / "saved" / "modules.json").write_text(json.dumps([module]))
    found, expected = load_encoder(str(tmp_path / "saved"), CPU, torch.float32), DualEncoder.load(str(plain), CPU, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(found.embed_captions(CAPTIONS), expected.embed_captions(CAPTIONS), atol=1e-6, rtol=0)


def test_without_the_package_the_extra_is_named(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'cprd-pipeline\[encoders\]'"):
        load_encoder(str(original), CPU, torch.float32)


def test_the_package_is_not_needed_for_other_encoders() -> None:
    """Importing the encoders does not import sentence-transformers."""
    code = "import sys, cprd_pipeline.models.dual_encoder; sys.exit('sentence_transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

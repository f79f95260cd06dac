"""Students that sentence-transformers loads: the same vectors there, and still plain folders here."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder, encoder_fingerprint, load_encoder
from cprd_pipeline.models.encoder_sentence import SentenceEncoder, is_sentence_encoder
from cprd_pipeline.models.scene_student import build_scene_student
from cprd_pipeline.models.sentence_export import loads_in_sentence_transformers
from cprd_pipeline.models.students import initial_student
from tests.models.tiny_families import FAMILIES, LONGEST

CPU = torch.device("cpu")
CAPTIONS = ["a", "b c d e f g", "x y z", "c c", "a b c d e f g h i j k l m n o p q r s t u v"]
SHARED = ("clip", "siglip", "siglip2", "altclip", "bert_towers", "roberta_towers", "chinese_clip", "metaclip_2")
FILES = {"modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"}


def saved(family: str, root: Path) -> tuple[DualEncoder, Path]:
    """A family's encoder, and the folder that it was saved in as a student is."""
    encoder = DualEncoder.load(str(FAMILIES[family](root / "download")), CPU, torch.float32)
    encoder.save(root / "student")
    return encoder, root / "student"


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A saved CLIP that a test may spoil."""
    return saved("clip", tmp_path)[1]


def pictures(count: int) -> list[Image.Image]:
    """Noise of several shapes."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (30 + 7 * row, 40, 3), dtype=np.uint8)) for row in range(count)]


def names(folder: Path) -> set[str]:
    """All files of a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, **changes: Any) -> None:
    """Replace some keys of a JSON object."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("family", SHARED)
def test_sentence_transformers_gives_the_same_vectors(family: str, tmp_path: Path) -> None:
    """Pictures of several shapes and captions up to beyond the limit, of length one, in one batch of mixed lengths."""
    encoder, folder = saved(family, tmp_path)
    assert loads_in_sentence_transformers(encoder.model)
    shared = SentenceTransformer(str(folder), device="cpu")
    with torch.no_grad():
        for items, expected in (
            (CAPTIONS, encoder.embed_captions(CAPTIONS)),
            (pictures(3), encoder.embed_pictures(pictures(3))),
        ):
            found = torch.as_tensor(shared.encode(items))
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
            assert (found @ found.T - torch.eye(len(items))).abs().max() > 1e-3
    assert len(encoder.tokens(CAPTIONS)["input_ids"][0]) == LONGEST
    assert shared.similarity_fn_name == "cosine"


@pytest.mark.parametrize("family", SHARED)
def test_a_saved_student_is_still_a_plain_folder(family: str, tmp_path: Path) -> None:
    """The same fingerprint with the files and without, loaded by transformers, as an encoder and as a student to go on with."""
    encoder, folder = saved(family, tmp_path)
    assert names(folder) >= FILES
    again = load_encoder(str(folder), CPU, torch.float32)
    assert isinstance(again, DualEncoder)
    assert again.fingerprint == encoder.fingerprint
    assert initial_student(str(folder), 0, CPU, torch.float32).fingerprint == encoder.fingerprint
    for name in FILES:
        (folder / name).unlink()
    assert encoder_fingerprint(str(folder), torch.float32) == encoder.fingerprint
    assert type(AutoModel.from_pretrained(folder)) is type(encoder.model)
    AutoTokenizer.from_pretrained(folder)
    AutoImageProcessor.from_pretrained(folder, backend="pil")


def test_a_student_needs_no_sentence_transformers(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are read, but the package is not."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert isinstance(load_encoder(str(student), CPU, torch.float32), DualEncoder)


@pytest.mark.parametrize("family", ["blip", "naflex"])
def test_other_classes_get_no_extra_files(family: str, tmp_path: Path) -> None:
    """sentence-transformers makes another model of BLIP's configuration, and NaFlex is no student."""
    encoder, folder = saved(family, tmp_path)
    assert not loads_in_sentence_transformers(encoder.model)
    assert not names(folder) & FILES


def test_the_scene_student_gets_no_extra_files(tmp_path: Path) -> None:
    """Only our own package knows its class."""
    model, tokenizer, image_processor = build_scene_student(0)
    DualEncoder(model, tokenizer, image_processor, CPU, torch.float32).save(tmp_path)
    assert not loads_in_sentence_transformers(model)
    assert not names(tmp_path) & FILES


def test_the_files_are_small_and_of_no_version(student: Path) -> None:
    """Two machines write the same bytes, whatever versions they have."""
    contents = [(student / name).read_text() for name in sorted(FILES)]
    assert sum(map(len, contents)) < 2000
    assert not [text for text in contents if "version" in text or str(student) in text]


def test_pictures_are_resized_by_pillow_wherever_torchvision_is(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's own word for the kind of image processor reaches the one that loads it."""
    asked = []
    load = AutoImageProcessor.from_pretrained

    def watched(*arguments: Any, **options: Any) -> Any:
        asked.append(options.get("backend"))
        return load(*arguments, **options)

    monkeypatch.setattr(AutoImageProcessor, "from_pretrained", watched)
    SentenceTransformer(str(student), device="cpu")
    assert asked == ["pil"]


def one_more_module(folder: Path) -> None:
    """A linear layer behind the others."""
    from sentence_transformers.base.modules import Dense

    shared = SentenceTransformer(str(folder), device="cpu")
    shared.append(Dense(24, 12, activation_function=None, module_input_name="sentence_embedding"))
    shared.save_pretrained(str(folder), create_model_card=False)


def other_prompt(folder: Path) -> None:
    """Words before each caption."""
    edit(folder / "config_sentence_transformers.json", prompts={"caption": "x y "}, default_prompt_name="caption")


def no_normalisation(folder: Path) -> None:
    """The first module alone."""
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:1]))


def other_normalisation(folder: Path) -> None:
    """Of token states, which there are none of."""
    (folder / "1_Normalize").mkdir()
    (folder / "1_Normalize" / "config.json").write_text('{"module_input_name": "token_embeddings"}')


def other_features(folder: Path) -> None:
    """Token states in place of the pooled vector."""
    methods = json.loads((folder / "sentence_bert_config.json").read_text())["modality_config"]
    methods["text"]["method_output_name"] = "last_hidden_state"
    edit(folder / "sentence_bert_config.json", modality_config=methods)


def other_padding(folder: Path) -> None:
    """Captions of one length."""
    edit(folder / "sentence_bert_config.json", processing_kwargs={"text": {"padding": "max_length", "max_length": 16}})


@pytest.mark.parametrize(
    "change", [one_more_module, other_prompt, no_normalisation, other_normalisation, other_features, other_padding]
)
def test_what_plain_loading_would_leave_out_is_never_left_out(student: Path, change: Any) -> None:
    """A student that was changed within sentence-transformers is that package's model from then on, and no student."""
    assert not is_sentence_encoder(student)
    known = encoder_fingerprint(str(student), torch.float32)
    change(student)
    assert is_sentence_encoder(student)
    assert encoder_fingerprint(str(student), torch.float32) != known
    with pytest.raises(ModelError, match=r"sentence-transformers wrote it \(modules.json\)"):
        initial_student(str(student), 0, CPU, torch.float32)


def test_what_sentence_transformers_saves_again_is_loaded_through_it(student: Path, tmp_path: Path) -> None:
    """The same vectors, by the other way."""
    SentenceTransformer(str(student), device="cpu").save_pretrained(str(tmp_path / "again"), create_model_card=False)
    again = load_encoder(str(tmp_path / "again"), CPU, torch.float32)
    assert isinstance(again, SentenceEncoder)
    with torch.no_grad():
        expected = load_encoder(str(student), CPU, torch.float32).embed_captions(CAPTIONS)
        torch.testing.assert_close(again.embed_captions(CAPTIONS), expected, atol=1e-6, rtol=0)


def test_another_limit_for_captions_is_refused(student: Path) -> None:
    """The file and the number are named."""
    edit(student / "sentence_bert_config.json", processing_kwargs={"text": {"max_length": 5}})
    with pytest.raises(ModelError, match=r"sentence_bert_config.json: captions are cut at 5 tokens; expected 16, as the model"):
        load_encoder(str(student), CPU, torch.float32)


@pytest.mark.parametrize("name", ["modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"])
def test_a_damaged_file_is_named(student: Path, name: str) -> None:
    """Not taken for a plain folder in silence."""
    (student / name).write_text("{")
    with pytest.raises(ModelError, match=rf"{name}: cannot be read"):
        encoder_fingerprint(str(student), torch.float32)

"""From the choice of a teacher to its adapter and its fingerprint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Blip2Config, BlipConfig, BridgeTowerConfig, FlavaConfig, ViltConfig

from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.blip import BlipTeacher
from cprd_pipeline.models.blip2 import Blip2Teacher
from cprd_pipeline.models.bridgetower import BridgeTowerTeacher
from cprd_pipeline.models.flava import FlavaTeacher
from cprd_pipeline.models.reranker import RerankerTeacher
from cprd_pipeline.models.scene_cross_encoder import SceneCrossEncoderConfig
from cprd_pipeline.models.scene_teacher import SceneTeacher, build_scene_teacher
from cprd_pipeline.models.teacher_choice import TeacherChoice
from cprd_pipeline.models.teachers import FAMILIES, load_teacher, teacher_adapter, teacher_fingerprint
from cprd_pipeline.models.vilt import ViltTeacher
from tests.pipeline.tiny_models import tiny_blip_teacher
from tests.scoring.stub import STUB, StubTeacher, stub_folder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP folder."""
    folder = tmp_path_factory.mktemp("teachers") / "blip"
    tiny_blip_teacher(folder, ["a dog runs", "a cat sits"])
    return folder


def fingerprint(folder: Path, **changes: object) -> str:
    """Of the teacher in a folder."""
    return teacher_fingerprint(TeacherChoice(model=str(folder), **changes))


def test_the_family_decides_the_adapter(blip: Path, tmp_path: Path) -> None:
    """BLIP and the demo's teacher are found by config.json and load."""
    choice = TeacherChoice(model=str(blip), max_text_tokens=7)
    assert teacher_adapter(choice) is BlipTeacher
    assert load_teacher(choice, CPU).max_text_tokens == 7
    build_scene_teacher(["red circle"], 0, CPU, torch.float32).save(tmp_path)
    assert isinstance(load_teacher(TeacherChoice(model=str(tmp_path)), CPU), SceneTeacher)


def test_every_family_is_known_by_the_name_that_transformers_gives_it() -> None:
    """The keys are the model types of the configurations, which config.json carries."""
    adapters = {
        BlipConfig.model_type: BlipTeacher,
        Blip2Config.model_type: Blip2Teacher,
        BridgeTowerConfig.model_type: BridgeTowerTeacher,
        FlavaConfig.model_type: FlavaTeacher,
        ViltConfig.model_type: ViltTeacher,
        SceneCrossEncoderConfig.model_type: SceneTeacher,
    }
    assert adapters == FAMILIES


def test_what_sentence_transformers_wrote_is_a_reranker(tmp_path: Path) -> None:
    """Its own files decide, whatever the model type says."""
    folder = stub_folder(tmp_path / "stub")
    (folder / "modules.json").write_text("[]")
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    assert teacher_adapter(TeacherChoice(model=str(folder))) is RerankerTeacher


def test_an_own_adapter_is_found_by_name(tmp_path: Path) -> None:
    """`package.module:Class`, whatever the folder's model type."""
    choice = TeacherChoice(model=str(stub_folder(tmp_path / "stub", 3.0)), adapter=STUB)
    teacher = load_teacher(choice, CPU)
    assert isinstance(teacher, StubTeacher)
    assert teacher.weight == 3.0


def test_the_same_weights_elsewhere_are_the_same_teacher(blip: Path, tmp_path: Path) -> None:
    """Neither the path nor what the files are called for the user matters; nor a default spelled out."""
    shutil.copytree(blip, tmp_path / "copy")
    config = json.loads((blip / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(
        json.dumps({**config, "_name_or_path": "elsewhere", "transformers_version": "0"})
    )
    assert fingerprint(tmp_path / "copy") == fingerprint(blip)
    assert fingerprint(blip, max_text_tokens=48) == fingerprint(blip)


def change_weight(folder: Path) -> None:
    """One value of one tensor."""
    tensors = load_file(folder / "model.safetensors")
    tensors["itm_head.bias"][0] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(name: str, key: str, value: object):
    """Replace a value of a JSON file."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        inner = content
        *path, last = key.split(".")
        for step in path:
            inner = inner[step]
        inner[last] = value
        (folder / name).write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_weight,
        change_json("config.json", "text_config.num_attention_heads", 8),
        change_json("preprocessor_config.json", "resample", 2),
        change_json("tokenizer.json", "normalizer", None),
    ],
    ids=["weight", "heads", "resampling", "normaliser"],
)
def test_what_changes_scores_changes_the_teacher(blip: Path, tmp_path: Path, change) -> None:
    """A weight, a head count, the image processing, the tokenizer."""
    shutil.copytree(blip, tmp_path / "other")
    assert fingerprint(tmp_path / "other") == fingerprint(blip)
    change(tmp_path / "other")
    assert fingerprint(tmp_path / "other") != fingerprint(blip)


def test_settings_that_change_scores_change_the_teacher(blip: Path) -> None:
    """Dtype, first token and maximum length; all different from each other."""
    changes = [{}, {"dtype": "bfloat16"}, {"dtype": "float64"}, {"first_token": "enc"}, {"max_text_tokens": 20}]
    with_room = blip.parent / "room"
    shutil.copytree(blip, with_room, dirs_exist_ok=True)
    change_json("config.json", "text_config.vocab_size", 30)(with_room)
    assert len({fingerprint(with_room, **change) for change in changes}) == len(changes)


def test_an_own_adapters_version_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is its name: the same weights can be read in two ways."""
    folder = stub_folder(tmp_path / "stub")
    first = fingerprint(folder, adapter=STUB)
    assert fingerprint(folder, adapter="tests.scoring.stub:AskerMatters") != first
    monkeypatch.setattr(StubTeacher, "version", 2)
    assert fingerprint(folder, adapter=STUB) != first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": "no_colon"}, "'no_colon'; expected package.module:Class"),
        ({"adapter": "no.such:Thing"}, r"there is no module 'no'; install it, or add its folder to PYTHONPATH"),
        ({"adapter": "tests.scoring.stub:Nothing"}, "has no attribute 'Nothing'"),
        ({"adapter": "tests.scoring.stub:stub_score"}, "not a CrossEncoder"),
        ({"adapter": "cprd_pipeline.models.cross_encoder:CrossEncoder"}, "lacks encode_images, .*score"),
        ({"adapter": STUB, "max_text_tokens": 9}, r"teacher\.max_text_tokens is 9, and StubTeacher has no such setting"),
    ],
)
def test_a_wrong_adapter_is_said_in_one_line(blip: Path, changes: dict[str, object], message: str) -> None:
    """What was named, and what is expected."""
    with pytest.raises(SettingsError, match=message):
        teacher_adapter(TeacherChoice(model=str(blip), **changes))


def test_options_that_no_setting_has_are_refused(blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter cannot ask for a setting that nobody can set."""
    monkeypatch.setattr(StubTeacher, "options", frozenset({"temperature"}))
    with pytest.raises(SettingsError, match=r"its options name temperature; expected some of first_token, .*score"):
        teacher_adapter(TeacherChoice(model=str(blip), adapter=STUB))


def test_a_family_without_adapter_is_refused(tmp_path: Path) -> None:
    """The message names the way out."""
    folder = stub_folder(tmp_path / "stub")
    with pytest.raises(
        ModelError, match=r"no adapter for the model type 'stub'; expected blip or .*scene_cross_encoder; name an own one"
    ):
        teacher_adapter(TeacherChoice(model=str(folder)))

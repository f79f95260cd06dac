"""The settings that the README shows for real models are valid, and the models exist in transformers without their weights."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import (
    BertConfig,
    BlipConfig,
    BlipForImageTextRetrieval,
    CLIPConfig,
    CLIPModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
)

from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.distillation.loop_settings import TwoTowers
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.scoring.settings import ScoreSettings

README = (Path(__file__).parents[2] / "README.md").read_text()
MODELS = {
    "prepare": PrepareSettings,
    "base_student": DistillSettings,
    "mine": MineSettings,
    "score_teacher": ScoreSettings,
    "score_teacher_test": ScoreSettings,
    "distill": DistillSettings,
}


def shown(stage: str) -> dict[str, Any]:
    """The YAML block under the line that names a stage file."""
    block = re.search(rf"^`stages/{stage}\.yaml`[^\n]*\n\n```yaml\n(.*?)```", README, re.MULTILINE | re.DOTALL)
    assert block is not None, stage
    values: dict[str, Any] = yaml.safe_load(block[1])
    return values


@pytest.mark.parametrize("stage", MODELS)
def test_the_coco_settings_are_valid(stage: str) -> None:
    """Every file can be copied as it stands, and writes where the next one reads."""
    assert MODELS[stage].model_validate(shown(stage)).as_json()["output"].startswith("data/")


def test_the_coco_settings_name_the_same_models_throughout() -> None:
    """BLIP teaches, CLIP learns, and the miner is the student trained before."""
    teachers = {ScoreSettings.model_validate(shown(stage)).teacher for stage in ("score_teacher", "score_teacher_test")}
    assert {teacher.model for teacher in teachers} == {"Salesforce/blip-itm-base-coco"}
    assert len(teachers) == 1  # one fingerprint: a pair of both splits is scored once
    assert {shown(stage)["student"] for stage in ("base_student", "distill")} == {"openai/clip-vit-base-patch32"}
    assert shown("mine")["encoder"] == shown("base_student")["output"]


def test_the_papers_arrangement_is_valid() -> None:
    """Two towers under a projection of 256."""
    (block,) = [text for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "vision:" in text]
    student = DistillSettings.model_validate(yaml.safe_load(block)).student
    assert isinstance(student, TwoTowers)
    assert student.projection_dim == 256


def test_the_models_can_be_built_without_weights() -> None:
    """Transformers' default configurations are those of CLIP ViT-B/32, BERT-base and ViT-B/16; BLIP's is given here.

    Built on the meta device: shapes without memory. The students have what a dual encoder needs, the teacher its head.
    """
    with torch.device("meta"):
        clip = CLIPModel(CLIPConfig())
        towers = VisionTextDualEncoderModel(
            VisionTextDualEncoderConfig.from_vision_text_configs(ViTConfig(), BertConfig(), projection_dim=256)
        )
        text = {"hidden_size": 768, "encoder_hidden_size": 768, "num_attention_heads": 12, "vocab_size": 30524}
        blip = BlipForImageTextRetrieval(BlipConfig(text_config=text, vision_config={"image_size": 384}))
    for student in (clip, towers):
        assert all(hasattr(student, part) for part in ("get_image_features", "get_text_features", "logit_scale"))
    assert blip.itm_head.out_features == 2
    assert len(blip.text_encoder.encoder.layer) == 12
    millions = [sum(p.numel() for p in model.parameters()) / 1e6 for model in (clip, towers, blip)]
    assert millions == pytest.approx([151.3, 196.2, 223.4], rel=0.03)

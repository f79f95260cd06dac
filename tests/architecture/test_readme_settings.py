"""The settings for real models are valid, and the models exist in transformers without their weights."""

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

from cprd_pipeline.distillation.loop_settings import TwoTowers
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.scoring.settings import ScoreSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def shipped(stage: str) -> dict[str, Any]:
    """What a file of `init --example coco` says."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "stages" / "coco" / f"{stage}.yaml").read_text())
    return values


def test_the_coco_settings_name_the_same_models_throughout() -> None:
    """BLIP teaches, CLIP learns, and the miner is the student trained before."""
    teachers = {ScoreSettings.model_validate(shipped(stage)).teacher for stage in ("score_teacher", "score_teacher_test")}
    assert {teacher.model for teacher in teachers} == {"Salesforce/blip-itm-base-coco"}
    assert len(teachers) == 1  # one fingerprint: a pair of both splits is scored once
    assert {shipped(stage)["student"] for stage in ("base_student", "distill")} == {"openai/clip-vit-base-patch32"}
    assert shipped("mine")["encoder"] == shipped("mine_test")["encoder"] == shipped("base_student")["output"]


def test_the_coco_students_differ_by_the_teacher_alone() -> None:
    """The same length, batches, rates and start."""
    base, cprd = (DistillSettings.model_validate(shipped(stage)).as_json() for stage in ("base_student", "distill"))
    assert {name for name in base if base[name] != cprd[name]} == {"objective", "rankings", "output", "report"}


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

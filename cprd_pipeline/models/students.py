"""The student that a training run begins with."""

from pathlib import Path

import torch
from transformers import VisionTextDualEncoderModel

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder, refuse_brought
from cprd_pipeline.models.loading import model_fingerprint, resolve_model, without_bars
from cprd_pipeline.models.preprocessing import load_image_processor, load_tokenizer
from cprd_pipeline.models.scene_student import build_scene_student

SCENES = "scenes"
"""Name of the demo world's small student, made anew from the seed."""


def student_identity(name: str) -> str:
    """What a run's result depends on: the weights and behaviour of the model it begins with, not where that lies.

    Raises:
        ModelError: No such model, or brought embeddings, which have no weights to train.
    """
    refuse_brought(name)
    return SCENES if name == SCENES else model_fingerprint(resolve_model(name), role="student")


def initial_student(name: str, seed: int, device: torch.device, dtype: torch.dtype) -> DualEncoder:
    """The demo's student with fresh weights, or a dual encoder from a folder or the hub.

    Raises:
        ModelError: No dual encoder, or one that mines and is evaluated but cannot be trained: BLIP's contrastive head,
            SigLIP 2 NaFlex, what sentence-transformers wrote, brought embeddings.
    """
    if name != SCENES:
        return _trainable(DualEncoder.load(name, device, dtype), name)
    model, tokenizer, image_processor = build_scene_student(seed)
    return DualEncoder(model, tokenizer, image_processor, device, dtype)


def two_tower_student(
    vision: str, text: str, projection_dim: int, seed: int, device: torch.device, dtype: torch.dtype
) -> DualEncoder:
    """A vision tower and a text tower under fresh projections of one width.

    Raises:
        ModelError: The two do not fit together as transformers' VisionTextDualEncoderModel.
    """
    vision_folder, text_folder = resolve_model(vision), resolve_model(text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _join(vision_folder, text_folder, projection_dim)
    return DualEncoder(model, load_tokenizer(text_folder), load_image_processor(vision_folder), device, dtype)


def _trainable(student: DualEncoder, name: str) -> DualEncoder:
    if student.lacks_for_training:
        raise ModelError(
            f"{name}: cannot be trained ({student.lacks_for_training})",
            expected="a student such as CLIP, SigLIP, AltCLIP or VisionTextDualEncoder",
        )
    return student


def _join(vision: Path, text: Path, projection_dim: int) -> VisionTextDualEncoderModel:
    try:
        with without_bars():
            return VisionTextDualEncoderModel.from_vision_text_pretrained(vision, text, projection_dim=projection_dim)
    except (ValueError, AttributeError, KeyError) as error:
        raise ModelError(
            f"{vision} and {text}: cannot be joined ({error})", expected="a vision tower and a text tower of transformers"
        ) from error

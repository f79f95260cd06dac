"""The demo's teacher from nothing: contrast in the batch finds negatives, matching and ranking learn from them.

Shape suffixes: B pairs of the batch, I images, N captions, E width of the dual branch's vectors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.distillation.batches import BatchRows, PositivePairs
from cprd_pipeline.distillation.losses.itc import itc_loss
from cprd_pipeline.distillation.teacher_card import scene_card
from cprd_pipeline.distillation.teacher_recipe import Losses, Recipe, annotated, draw_pairs
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.models.preprocessing import Pixels
from cprd_pipeline.models.scene_teacher import SceneTeacher, build_scene_teacher


class SceneRecipe(Recipe):
    """A scene teacher with fresh weights and the losses of all its branches.

    Args:
        settings: The stage's settings.
        corpus: Captions and ids.
        split: What to train on; the teacher knows the words of its captions.
        device: Where it computes, always in float32.
    """

    def __init__(self, settings: TrainTeacherSettings, corpus: Corpus, split: Split, device: torch.device) -> None:
        words = [corpus.texts[row] for row in split.captions]
        self._settings = settings
        self._teacher = build_scene_teacher(words, settings.seed, device, torch.float32)
        self.module = self._teacher.model
        self._tokens = [ids[: self._teacher.max_text_tokens] for ids in self._teacher.tokens(corpus.texts)]
        self.lengths = np.array([len(ids) for ids in self._tokens], dtype=np.int64)
        self._positives = PositivePairs(split, len(corpus.captions))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All weights; norms and biases decay too, which these small models bear."""
        return [{"params": list(self.module.parameters()), "weight_decay": self._settings.weight_decay}]

    @property
    def preprocess(self) -> Pixels:
        """As the teacher sees a picture."""
        return Pixels(self._teacher.image_processor)

    def losses(self, step: int, rows: BatchRows, pixels_BCHW: Float[Tensor, "B C H W"]) -> Losses:
        """Contrast of items and of tokens, matching and ranking of the pairs that the contrast confuses."""
        settings, model, device = self._settings, self._teacher.model, self._teacher.device
        pad = model.config.pad_token_id
        ids_BT = pad_sequence([self._tokens[row] for row in rows.captions], batch_first=True, padding_value=pad).to(device)
        mask_BT = ids_BT != pad
        image_BPW = model.image_tower(pixels_BCHW.to(device))
        text_BTW = model.text_tower(ids_BT, mask_BT)
        excluded_BB = annotated(self._positives, rows, device)
        dual_BB = model.dual_logits(text_BTW, image_BPW)
        tokens_BB = model.matcher.logits(text_BTW, mask_BT, image_BPW)
        pairs = draw_pairs(settings, step, (dual_BB + tokens_BB).detach() / 2, excluded_BB)
        text, mask = text_BTW.index_select(0, pairs.captions), mask_BT.index_select(0, pairs.captions)
        logits = model.match(text, mask, image_BPW, pairs.images)
        matching, listwise = pairs.matching(logits), pairs.listwise(logits)
        contrastive = (itc_loss(dual_BB, excluded_BB) + itc_loss(dual_BB.T, excluded_BB.T)) / 2
        tokens = (itc_loss(tokens_BB, excluded_BB) + itc_loss(tokens_BB.T, excluded_BB.T)) / 2
        total = settings.contrastive_weight * contrastive + settings.token_weight * tokens
        total = total + settings.matching_weight * matching + settings.listwise_weight * listwise
        return {"total": total, "contrastive": contrastive, "tokens": tokens, "matching": matching, "listwise": listwise}

    def save(self, folder: Path) -> None:
        """As `SceneTeacher.load` reads it."""
        self._teacher.save(folder)

    def card(self, corpus: str) -> str:
        """What it is for, and its settings."""
        return scene_card(self._settings.shaping(), corpus)


class SceneDual:
    """A scene teacher's dual branch: vectors of pictures and of captions.

    Args:
        teacher: Whose it is.
    """

    def __init__(self, teacher: SceneTeacher) -> None:
        self._teacher = teacher

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "I E"]:
        """Vectors of decoded pictures, of length one."""
        vectors: Tensor = self._teacher.model.embed_images(torch.stack(self._teacher.encode_images(images)))
        return vectors

    @torch.inference_mode()
    def embed_texts(self, captions: Sequence[str]) -> Float[Tensor, "N E"]:
        """Vectors of captions, of length one."""
        first_words = torch.stack([caption.states[:1] for caption in self._teacher.encode_texts(captions)])
        vectors: Tensor = self._teacher.model.embed_texts(first_words)
        return vectors

"""BLIP fine-tuned on the user's pairs: contrast finds the hard negatives of each image and caption, matching learns from them.

Source: Li et al. 2021 (ALBEF), arXiv:2107.07651; Li et al. 2022 (BLIP), arXiv:2201.12086, without their momentum encoders.

Shape suffixes: B pairs of the batch, T text tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.distillation.batches import BatchRows, PositivePairs
from cprd_pipeline.distillation.losses.itc import itc_loss
from cprd_pipeline.distillation.teacher_card import blip_card
from cprd_pipeline.distillation.teacher_recipe import Losses, Recipe, annotated, draw_pairs
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.errors import ModelError, SettingsError
from cprd_pipeline.models.blip_folder import BlipParts, first_id, load_parts
from cprd_pipeline.models.blip_training import TrainableBlip
from cprd_pipeline.models.captions import text_limit, tokenize
from cprd_pipeline.models.device import choose_dtype
from cprd_pipeline.models.loading import model_fingerprint, read_config, resolve_model, without_bars
from cprd_pipeline.models.preprocessing import Pixels

_TOKENIZED_TOGETHER = 8192  # what a tokenizer says of a caption takes some hundred times its ids


def blip_identity(name: str) -> str:
    """What the training begins with: weights and behaviour, not where they lie.

    Raises:
        ModelError: No such model, or of another family.
    """
    folder = resolve_model(name)
    family = read_config(folder)["model_type"]
    if family != "blip":
        raise ModelError(
            f"{name}: a model of the type {family!r}, which train-teacher cannot train",
            expected="scenes, or a BLIP with its matching head, such as Salesforce/blip-itm-base-coco",
        )
    return model_fingerprint(folder, role="teacher in training")


class BlipRecipe(Recipe):
    """A BLIP with its contrastive and its matching loss.

    Args:
        settings: The stage's settings.
        corpus: Captions and ids.
        split: What to train on.
        device: Where it computes.
        identity: Of the model that the training begins with.

    Raises:
        ModelError: A part of the folder is missing or does not fit the others, or the tokenizer leaves nothing of a caption.
        SettingsError: The model cannot do what the settings ask for.
    """

    def __init__(self, settings: TrainTeacherSettings, corpus: Corpus, split: Split, device: torch.device, identity: str) -> None:
        self._settings = settings
        self._identity = identity
        self._device = device
        self._parts = load_parts(resolve_model(settings.teacher))
        model = self._parts.model.to(device)
        if settings.blip.gradient_checkpointing:
            # Its name changed within transformers 5.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        first, limit = _text_options(settings, self._parts)
        dtype = choose_dtype(settings.blip.precision, device)
        self.module = self._blip = TrainableBlip(model, first, None if dtype == torch.float32 else dtype)
        self._tokens = [ids for texts in _in_parts(corpus.texts) for ids, _ in tokenize(self._parts.tokenizer, texts, limit)]
        self.lengths = np.array([len(ids) for ids in self._tokens], dtype=np.int64)
        self._positives = PositivePairs(split, len(corpus.captions))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Matrices and embeddings decay; norms, biases and the temperature do not."""
        weights = [parameter for parameter in self.module.parameters() if parameter.ndim >= 2]
        others = [parameter for parameter in self.module.parameters() if parameter.ndim < 2]
        return [{"params": weights, "weight_decay": self._settings.weight_decay}, {"params": others, "weight_decay": 0.0}]

    @property
    def preprocess(self) -> Pixels:
        """As BLIP's image processor makes them."""
        return Pixels(self._parts.image_processor)

    def losses(self, step: int, rows: BatchRows, pixels_BCHW: Float[Tensor, "B C H W"]) -> Losses:
        """Contrast of the batch, and matching of its pairs and those that the contrast confuses."""
        settings, blip = self._settings, self._blip
        captions = [self._tokens[row] for row in rows.captions]
        ids_BT = pad_sequence(captions, batch_first=True).to(self._device)
        lengths = torch.tensor([len(ids) for ids in captions], device=self._device)
        mask_BT = torch.arange(ids_BT.shape[1], device=self._device) < lengths[:, None]
        image = blip.see(pixels_BCHW.to(self._device))
        excluded_BB = annotated(self._positives, rows, self._device)
        dual_BB = blip.contrast(image, ids_BT, mask_BT)
        pairs = draw_pairs(settings, step, dual_BB.detach(), excluded_BB)
        ids, mask = ids_BT.index_select(0, pairs.captions), mask_BT.index_select(0, pairs.captions)
        matching = pairs.matching(blip.match(image, pairs.images, ids, mask))
        contrastive = (itc_loss(dual_BB, excluded_BB) + itc_loss(dual_BB.T, excluded_BB.T)) / 2
        total = settings.contrastive_weight * contrastive + settings.matching_weight * matching
        return {"total": total, "contrastive": contrastive, "matching": matching, "temperature": blip.temperature}

    def bound(self) -> None:
        """Keep the temperature between ALBEF's bounds."""
        self._blip.bound_temperature()

    def save(self, folder: Path) -> None:
        """As `BlipTeacher.load` reads it; the temperature is no part of it."""
        for part in self._parts:
            with without_bars():
                part.save_pretrained(folder)

    def card(self, corpus: str) -> str:
        """What it was made from, how to score with it, where the temperature ended, and its settings."""
        return blip_card(self._settings, corpus, self._identity, float(self._blip.temperature.detach()))


def _text_options(settings: TrainTeacherSettings, parts: BlipParts) -> tuple[int | None, int]:
    """Id of token 0 where it changes, and the longest caption, by the rules of scoring."""
    text, chosen = parts.model.config.text_config, settings.blip
    try:
        first = first_id(parts.tokenizer, text.vocab_size, chosen.first_token)
        return first, text_limit(parts.tokenizer, text.max_position_embeddings, chosen.max_text_tokens)
    except SettingsError as error:
        # The group has another name here.
        raise SettingsError(error.found.replace("teacher.", "blip.", 1), expected=error.expected, do=error.do) from None


def _in_parts(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[start : start + _TOKENIZED_TOGETHER] for start in range(0, len(texts), _TOKENIZED_TOGETHER)]

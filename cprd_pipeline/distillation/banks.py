"""The two banks of a run: filled by its steps, asked by its steps, kept in its checkpoints.

Shape suffixes: M images, N captions, D width.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cprd_pipeline.distillation.bank import FeatureBank
from cprd_pipeline.distillation.bank_items import BankDraw, BankFeatures, BankItems, bank_features
from cprd_pipeline.distillation.batches import PositivePairs
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.meeting import Meeting
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.teacher_loss import list_rules


class Banks:
    """Bank of images and bank of captions.

    Args:
        settings: How much is kept, and asked for.
        knowledge: The rankings' content.
        positives: Annotated pairs.
        folder: Where large banks lie.
    """

    def __init__(self, settings: DistillSettings, knowledge: TeacherKnowledge, positives: PositivePairs, folder: Path) -> None:
        self._knowledge = knowledge
        counts = {"images": len(knowledge.canonical_image), "captions": len(knowledge.canonical_caption)}
        largest = int(settings.bank.memory_gb * 1e9)
        self._of = {side: FeatureBank(count, folder / f"{side}.float16", largest) for side, count in counts.items()}
        easy = settings.bank.easy if list_rules(settings).easy_negatives == "bank" else 0
        self._draw = BankDraw(settings.bank, easy, knowledge, positives, settings.seed)

    def items(self, meeting: Meeting, step: int) -> tuple[BankItems, BankItems]:
        """What the batch's images meet among captions, and its captions among images."""
        i2t = self._draw.items("i2t", self._of["captions"], meeting, step)
        return i2t, self._draw.items("t2i", self._of["images"], meeting, step)

    def features(
        self, items: tuple[BankItems, BankItems], device: torch.device, dtype: torch.dtype
    ) -> tuple[BankFeatures, BankFeatures] | None:
        """Their features, in the loss's number type; None while the banks are empty."""
        if not self._of["images"].width:
            return None
        captions, images = (self._of[side] for side in ("captions", "images"))
        return bank_features(captions, items[0], device, dtype), bank_features(images, items[1], device, dtype)

    def put(self, meeting: Meeting, images_MD: Float[Tensor, "M D"], captions_ND: Float[Tensor, "N D"], step: int) -> None:
        """Keep the features of a step."""
        self._of["images"].put(self._knowledge.canonical_image[meeting.images], images_MD, step)
        self._of["captions"].put(self._knowledge.canonical_caption[meeting.captions], captions_ND, step)

    def staleness(self, items: tuple[BankItems, BankItems], step: int) -> dict[str, float]:
        """For the log: mean age in steps of the candidates asked for (`bank_age`), and how many a query had (`bank_candidates`)."""
        rows = [one.own[one.own >= 0] for one in items]
        count = sum(len(found) for found in rows)
        ages = (
            bank.age(found, step) * len(found) for bank, found in zip((self._of["captions"], self._of["images"]), rows, strict=True)
        )
        return {"bank_age": sum(ages) / max(count, 1), "bank_candidates": count / sum(len(one.own) for one in items)}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {side: bank.state() for side, bank in self._of.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to what a checkpoint kept."""
        for side, bank in self._of.items():
            bank.load(state[side])

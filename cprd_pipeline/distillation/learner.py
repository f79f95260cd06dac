"""One step of training: encode, compare, bring the gradients back, move the weights."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.augment import Augmenter, pixel_divisor
from cprd_pipeline.distillation.bank_items import BankItems
from cprd_pipeline.distillation.banks import Banks
from cprd_pipeline.distillation.batches import PositivePairs
from cprd_pipeline.distillation.encoding import Encoded, StepEncoder
from cprd_pipeline.distillation.gradients import gradient_cosine
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.listing import Listing
from cprd_pipeline.distillation.meeting import Meeting
from cprd_pipeline.distillation.note import Losses
from cprd_pipeline.distillation.objective import LossParts, Objective, compare
from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.distillation.schedule import learning_rate
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.towers import Towers
from cprd_pipeline.distillation.trained import add_adapters, checkpoint_activations, freeze, parameter_groups
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder


class Stepped(NamedTuple):
    """What a step came to.

    Args:
        losses: Of the batch, before the step.
        rate: Learning rate.
        scale: Inverse temperature before the step.
        extra: Further columns of the log: `gradient_cosine`, `bank_age`, `bank_candidates`.
    """

    losses: Losses
    rate: float
    scale: float
    extra: dict[str, float]


class Learner:
    """Holds all that a step changes: weights, their moving average, optimizer, loss scaler, banks.

    Args:
        settings: The stage's settings.
        student: Changed in place.
        corpus: The captions' texts.
        knowledge: The rankings' content; None for the contrastive loss alone.
        positives: Annotated pairs.
        processes: Who takes part.
        folder: For banks that are too large for memory.

    Raises:
        ModelError: The student cannot be trained as the settings wish.
        MissingDependencyError: An extra that they need is not installed.
    """

    def __init__(
        self,
        settings: DistillSettings,
        student: DualEncoder,
        corpus: Corpus,
        knowledge: TeacherKnowledge | None,
        positives: PositivePairs,
        processes: Processes,
        folder: Path,
    ) -> None:
        self.student = student
        self._settings = settings
        self._processes = processes
        self._frozen = freeze(student.model, settings.freeze)
        if settings.lora is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(settings.seed)
                add_adapters(student.model, settings.lora)
        if settings.gradient_checkpointing:
            checkpoint_activations(student.model)
        self._towers = Towers(student, settings.micro_batch, processes, settings.seed, compiled=settings.compile)
        self._listing = Listing(settings, knowledge, positives)
        self._objective = Objective(settings)
        augmenter = Augmenter(settings.augmentation, pixel_divisor(student.image_processor), settings.seed, student.device)
        self._encoder = StepEncoder(corpus.texts, augmenter, processes)
        self._banks = None
        if settings.items == "bank" and knowledge is not None:
            self._banks = Banks(settings, knowledge, positives, folder)
        groups = parameter_groups(student.model, settings)
        self._weights: list[nn.Parameter] = [weight for group in groups for weight in group["params"]]
        self._optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
        self._scaler = torch.amp.GradScaler(student.device.type, enabled=student.dtype == torch.float16)
        self._bound_scale()
        self._average = copy.deepcopy(student.model).eval() if settings.ema else None

    @property
    def kept_model(self) -> nn.Module:
        """What would be saved now: the moving average of the weights, or the weights themselves when `ema` is 0."""
        model: nn.Module = self.student.model if self._average is None else self._average
        return model

    def train(self) -> None:
        """Switch the student to training; frozen towers stay as they are evaluated."""
        self.student.model.train()
        for tower in self._frozen:
            tower.eval()

    def step(self, step: int, meeting: Meeting, pixels_UCHW: Float[Tensor, "u C H W"]) -> Stepped:
        """Take one step.

        Args:
            step: Steps done.
            meeting: What all processes encode.
            pixels_UCHW: Processed pictures of this process' part of `meeting.encoded_images`.

        Raises:
            ModelError: The loss is not finite.
        """
        settings = self._settings
        rate = learning_rate(step, settings.steps, settings.warmup_steps, settings.learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        asked = self._banks.items(meeting, step) if self._banks else None
        encoded = self._encoder.encode(self._towers, step, meeting, pixels_UCHW)
        # SigLIP holds its scale and its bias as vectors of one.
        scale = self.student.logit_scale.exp().reshape(())
        parts = self._parts(step, meeting, encoded, scale, asked)
        # Read at once and before the rest: on a GPU, reading waits for all that was asked for until then.
        *values, scale_now = torch.stack([number.detach() for number in (*parts, scale)]).tolist()
        losses = Losses(*values)
        _check_finite(losses, step)
        extra = self._cosine(step, encoded, parts)
        if self._banks and asked:
            extra |= self._banks.staleness(asked, step)
        self._optimizer.zero_grad(set_to_none=True)
        self._encoder.backward(self._towers, step, encoded, self._scaler.scale(parts.total), self._weights)
        self._move()
        self._update_average(step)
        self._fill_banks(step, meeting, encoded, pixels_UCHW)
        return Stepped(losses, rate, scale_now, extra)

    def _parts(
        self, step: int, meeting: Meeting, encoded: Encoded, scale: Tensor, asked: tuple[BankItems, BankItems] | None
    ) -> LossParts:
        images_MD, captions_ND = encoded.images_MD, encoded.captions_ND
        banked = None
        if self._banks is not None and asked is not None:
            banked = self._banks.features(asked, images_MD.device, images_MD.dtype)
        similarities = compare(images_MD, captions_ND, len(meeting.rows.images), banked)
        lists = self._listing.of(meeting, step, None if banked is None else asked).to(images_MD.device)
        bias = getattr(self.student.model, "logit_bias", None)
        return self._objective(similarities, lists, scale, step, None if bias is None else bias.reshape(()))

    def _cosine(self, step: int, encoded: Encoded, parts: LossParts) -> dict[str, float]:
        """`gradient_cosine` of the two parts of the loss, on the steps that measure it and where it is defined."""
        every = self._settings.cosine_steps
        if every is None or (step + 1) % every or not parts.distillation.requires_grad:
            return {}
        found: list[Sequence[Tensor | None]] = []
        for part in (parts.contrastive, parts.distillation):
            self._optimizer.zero_grad(set_to_none=True)
            # Scaled as the loss is, so that gradients do not vanish in float16; their cosine stays.
            self._encoder.backward(self._towers, step, encoded, self._scaler.scale(part), self._weights, keep_graph=True)
            found.append([weight.grad for weight in self._weights])
        cosine = gradient_cosine(*found)
        return {} if cosine is None else {"gradient_cosine": cosine}

    def _move(self) -> None:
        self._scaler.unscale_(self._optimizer)
        if self._settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._weights, self._settings.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._bound_scale()

    def _fill_banks(self, step: int, meeting: Meeting, encoded: Encoded, pixels_UCHW: Tensor) -> None:
        if self._banks is None:
            return
        images_MD, captions_ND = encoded.images_MD, encoded.captions_ND
        if self._settings.bank.features == "momentum":
            images_MD, captions_ND = self._averaged(step, meeting, pixels_UCHW)
        self._banks.put(meeting, images_MD, captions_ND, step)

    @torch.no_grad()
    def _averaged(self, step: int, meeting: Meeting, pixels_UCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The step's items as the moving average of the weights encodes them."""
        steady = copy.copy(self.student)
        steady.model = self.kept_model
        towers = Towers(steady, self._settings.micro_batch, self._processes, self._settings.seed, compiled=False)
        encoded = self._encoder.encode(towers, step, meeting, pixels_UCHW)
        return encoded.images_MD, encoded.captions_ND

    @torch.no_grad()
    def _bound_scale(self) -> None:
        """Keep the temperature in its bounds: in place, since a clamp in the loss would leave no gradient to come back by."""
        self.student.logit_scale.clamp_(max=math.log(self._settings.largest_scale))

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        if self._average is None:
            return
        # The average forgets the random start quickly: its memory grows with the number of steps.
        memory = min(self._settings.ema, (1 + step) / (10 + step))
        pairs = zip(self._average.parameters(), self.student.model.parameters(), strict=True)
        kept_weights, weights = zip(*((kept, now) for kept, now in pairs if now.requires_grad), strict=True)
        torch._foreach_lerp_(kept_weights, weights, 1 - memory)
        # Running statistics of a tower's batch norms are averages already.
        for kept, now in zip(self._average.buffers(), self.student.model.buffers(), strict=True):
            kept.copy_(now)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        state = {"model": self.student.model.state_dict(), "optimizer": self._optimizer.state_dict()}
        state |= {"average": self._average.state_dict()} if self._average is not None else {}
        state |= {"scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {}
        return state | ({"banks": self._banks.state()} if self._banks is not None else {})

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what a checkpoint kept."""
        self.student.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        if self._banks is not None:
            self._banks.load(state["banks"])


def _check_finite(losses: Losses, step: int) -> None:
    if not math.isfinite(losses.total):
        raise ModelError(
            f"loss is {losses.total} at step {step} (itc {losses.contrastive}, distill {losses.distillation})",
            expected="a finite loss",
            do="lower learning_rate or set clip_norm; the last checkpoint is kept",
        )

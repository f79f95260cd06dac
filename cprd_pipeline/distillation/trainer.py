"""The training loop: one step after the other, each a function of the state and the step number."""

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cprd_pipeline.corpus.reader import Corpus, Rows, Split
from cprd_pipeline.distillation.augment import Augmenter
from cprd_pipeline.distillation.batches import BatchRows, PairSampler, PositivePairs
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.objective import Objective
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.schedule import learning_rate
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.progress import Bar, progress_bar

_STEP_SEED = 21


class _Losses(NamedTuple):
    """`LossParts` as plain numbers."""

    total: float
    contrastive: float
    distillation: float


class Trainer:
    """Trains one student; resumable at every checkpoint with the same bits.

    Args:
        settings: The stage's settings.
        student: Changed in place while training.
        corpus: Captions and ids.
        split: What to train on.
        objective: The loss.
        checkpoints: Where the state is kept.
    """

    def __init__(
        self,
        settings: DistillSettings,
        student: DualEncoder,
        corpus: Corpus,
        split: Split,
        objective: Objective,
        checkpoints: Checkpoints,
    ) -> None:
        self.settings = settings
        self.student = student
        self.log: list[dict[str, float]] = []
        self._texts = corpus.texts
        self._sampler = PairSampler(split, settings.batch_size, settings.seed)
        self._positives = PositivePairs(split, len(corpus.captions))
        self._objective = objective
        self._checkpoints = checkpoints
        self._augmenter = Augmenter(settings.augmentation, student.image_processor.image_std, settings.seed)
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(student.model, settings), lr=settings.learning_rate, betas=settings.betas, fused=True
        )
        self._bound_scale()
        self._average = copy.deepcopy(student.model) if settings.ema else None

    @property
    def image_rows(self) -> Rows:
        """Corpus rows of the pictures that take part, int64."""
        return self._sampler.image_rows

    def run(self, pixels: PixelSource) -> nn.Module:
        """Train to the last step, from the newest checkpoint where there is one.

        Returns:
            The model to keep: the moving average of the weights, or the weights themselves when `ema` is 0.
        """
        done = self._resume()
        self.student.model.train()
        with progress_bar("training", self.settings.steps, "steps", done=done) as bar, torch.random.fork_rng():
            while done < self.settings.steps:
                until = min(self.settings.steps, (done // self.settings.checkpoint_steps + 1) * self.settings.checkpoint_steps)
                self._train(range(done, until), pixels, bar)
                done = until
                self._checkpoints.save(done, self._state())
        final: nn.Module = self.student.model if self._average is None else self._average
        return final.eval()

    def _train(self, steps: range, pixels: PixelSource, bar: Bar) -> None:
        batches = [self._sampler.batch(step) for step in steps]
        pictures = pixels.batches([rows.images for rows in batches])
        for step, rows, pixels_BCHW in zip(steps, batches, pictures, strict=True):
            losses = self._step(step, rows, pixels_BCHW)
            bar.advance(1, f"itc {losses.contrastive:.2f} distill {losses.distillation:.2f}")

    def _step(self, step: int, rows: BatchRows, pixels_BCHW: Float[Tensor, "B C H W"]) -> _Losses:
        # Dropout and anything else that draws from the global generator repeats after a resume.
        torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, _STEP_SEED, step]).generate_state(1)[0]))
        rate = learning_rate(step, self.settings.steps, self.settings.warmup_steps, self.settings.learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        # SigLIP holds its scale and its bias as vectors of one.
        scale = self.student.logit_scale.exp().reshape(())
        similarities_BB = self._similarities(step, rows, pixels_BCHW)
        parts = self._objective(similarities_BB, scale, rows, self._positives.among(rows), step, self._bias())
        losses = _Losses(*(float(part.detach()) for part in parts))
        if not math.isfinite(losses.total):
            raise ModelError(
                f"loss is {losses.total} at step {step} (itc {losses.contrastive}, distill {losses.distillation})",
                expected="a finite loss",
                do="lower learning_rate or set clip_norm; the last checkpoint is kept",
            )
        self._optimizer.zero_grad(set_to_none=True)
        parts.total.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.student.model.parameters(), self.settings.clip_norm)
        self._optimizer.step()
        self._bound_scale()
        self._update_average(step)
        if (step + 1) % self.settings.log_steps == 0 or step + 1 == self.settings.steps:
            self._log(step + 1, losses, rate, float(scale.detach()))
        return losses

    def _bias(self) -> Float[Tensor, ""] | None:
        bias = getattr(self.student.model, "logit_bias", None)
        return None if bias is None else bias.reshape(())

    @torch.no_grad()
    def _bound_scale(self) -> None:
        """Keep the temperature in its bounds: in place, since a clamp in the loss would leave no gradient to come back by."""
        self.student.logit_scale.clamp_(max=math.log(self.settings.largest_scale))

    def _similarities(self, step: int, rows: BatchRows, pixels_BCHW: Tensor) -> Float[Tensor, "B B"]:
        student = self.student
        captions = self._augmenter.captions([self._texts[row] for row in rows.captions], step)
        tokens = {name: tensor.to(student.device) for name, tensor in student.tokens(captions).items()}
        pixels_BCHW = self._augmenter.pictures(pixels_BCHW, step).to(student.device)
        # Weights stay float32; a lower precision is used where autocast finds it safe.
        lower = student.dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(student.device.type, dtype=student.dtype if lower else torch.bfloat16, enabled=lower):
            images_BD = student.embed_images(pixels_BCHW)
            captions_BD = student.embed_texts(**tokens)
        if lower:
            images_BD, captions_BD = images_BD.float(), captions_BD.float()
        return images_BD @ captions_BD.T

    def _log(self, step: int, losses: _Losses, rate: float, scale: float) -> None:
        row = {"step": step, "loss": losses.total, "contrastive": losses.contrastive}
        self.log.append(row | {"distillation": losses.distillation, "learning_rate": rate, "scale": scale})

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        if self._average is None:
            return
        # The average forgets the random start quickly: its memory grows with the number of steps.
        memory = min(self.settings.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self._average.parameters()), list(self.student.model.parameters()), 1 - memory)
        # Running statistics of a tower's batch norms are averages already.
        for kept, now in zip(self._average.buffers(), self.student.model.buffers(), strict=True):
            kept.copy_(now)

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.student.model.state_dict(),
            "average": {} if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "log": self.log,
        }

    def _resume(self) -> int:
        found = self._checkpoints.latest()
        if found is None:
            return 0
        step, state = found
        self.student.model.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.log = list(state["log"])
        return step


def _parameter_groups(model: nn.Module, settings: DistillSettings) -> list[dict[str, Any]]:
    """Decay on everything, or on weight matrices only (no norms, biases, temperature)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if settings.decay == "all" or parameter.ndim >= 2]
    spared = [parameter for parameter in trained if settings.decay == "weights" and parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]

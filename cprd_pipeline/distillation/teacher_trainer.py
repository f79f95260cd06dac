"""The training loop of every teacher: one step after the other, each a function of the state and the step number."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cprd_pipeline.corpus.reader import Rows, Split
from cprd_pipeline.distillation.batches import PairSampler
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.finite import check_finite_weights
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.schedule import learning_rate
from cprd_pipeline.distillation.teacher_batches import LengthBatches
from cprd_pipeline.distillation.teacher_recipe import Recipe, check_finite
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.models.device import random_devices
from cprd_pipeline.progress import Bar, announce, progress_bar

_STEP_SEED = 33


class TeacherTrainer:
    """Trains a teacher in place; resumable at every checkpoint with the same bits.

    Args:
        settings: The stage's settings.
        recipe: The teacher and its losses.
        split: What to train on.
        checkpoints: Where the state is kept.
    """

    def __init__(self, settings: TrainTeacherSettings, recipe: Recipe, split: Split, checkpoints: Checkpoints) -> None:
        self.settings = settings
        self.log: list[dict[str, float]] = []
        sampler = PairSampler(split, settings.batch_size, settings.seed)
        self.image_rows: Rows = sampler.image_rows
        self._recipe = recipe
        self._batches = LengthBatches(sampler, recipe.lengths, settings.length_window)
        self._checkpoints = checkpoints
        self._optimizer = torch.optim.AdamW(recipe.parameter_groups(), lr=settings.learning_rate, betas=settings.betas, fused=True)

    def run(self, pixels: PixelSource) -> None:
        """Train to the last step, from the newest checkpoint where there is one."""
        done, every = self._resume(), self.settings.checkpoint_steps
        self._recipe.module.train()
        device = next(self._recipe.module.parameters()).device
        with (
            progress_bar("training", self.settings.steps, "steps", done=done) as bar,
            torch.random.fork_rng(random_devices(device)),
        ):
            while done < self.settings.steps:
                until = min(self.settings.steps, (done // every + 1) * every)
                self._train(range(done, until), pixels, bar)
                done = until
                # Before it replaces an older one: a checkpoint is there to go on from. The last one is what is saved.
                check_finite_weights(self._recipe.module, done)
                self._checkpoints.save(done, self._state())
        self._recipe.module.eval()

    def _train(self, steps: range, pixels: PixelSource, bar: Bar) -> None:
        batches = self._batches.batches(steps)
        pictures = pixels.batches([rows.images for rows in batches])
        for step, rows, pixels_BCHW in zip(steps, batches, pictures, strict=True):
            # Dropout and anything else that draws from the global generator repeats after a resume.
            torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, _STEP_SEED, step]).generate_state(1)[0]))
            rate = learning_rate(step, self.settings.steps, self.settings.warmup_steps, self.settings.learning_rate)
            losses = self._recipe.losses(step, rows, pixels_BCHW)
            # All at once and before the update, for whose end a GPU would otherwise be waited for.
            values = dict(zip(losses, torch.stack([loss.detach() for loss in losses.values()]).tolist(), strict=True))
            check_finite(values["total"], step)
            self._update(losses["total"], rate)
            if (step + 1) % self.settings.log_steps == 0 or step + 1 == self.settings.steps:
                self.log.append({"step": step + 1, "learning_rate": rate, **values})
            bar.advance(1, f"loss {values['total']:.3f}, matching {values['matching']:.3f}")

    def _update(self, loss: Float[Tensor, ""], rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._recipe.module.parameters(), self.settings.clip_norm)
        self._optimizer.step()
        self._recipe.bound()

    def _state(self) -> dict[str, Any]:
        return {"model": self._recipe.module.state_dict(), "optimizer": self._optimizer.state_dict(), "log": self.log}

    def _resume(self) -> int:
        found = self._checkpoints.latest()
        if found is None:
            return 0
        step, state = found
        announce(f"going on after step {step:,} of {self.settings.steps:,}, where an earlier run was stopped")
        self._recipe.module.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.log = list(state["log"])
        return step

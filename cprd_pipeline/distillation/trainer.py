"""The training loop: stretches of steps, between which it evaluates and saves, each a function of the state and the step number."""

import copy

import numpy as np
import torch
from torch import nn

from cprd_pipeline.corpus.reader import Rows
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.evaluation import Evaluator
from cprd_pipeline.distillation.finite import check_finite_weights
from cprd_pipeline.distillation.history import History
from cprd_pipeline.distillation.learner import Learner, Stepped
from cprd_pipeline.distillation.log import LogRow, TensorBoard
from cprd_pipeline.distillation.meeting import Meetings
from cprd_pipeline.distillation.note import training_note
from cprd_pipeline.distillation.pace import Pace
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.models.device import random_devices
from cprd_pipeline.progress import Bar, announce, progress_bar


class Trainer:
    """Trains one student; resumable at every checkpoint with the same bits.

    Args:
        settings: The stage's settings.
        learner: The student and all that a step changes.
        meetings: What every step encodes.
        checkpoints: Where the state is kept.
        processes: Who takes part.
        evaluator: Measures the student on the way; None when `eval_steps` is.
    """

    def __init__(
        self,
        settings: DistillSettings,
        learner: Learner,
        meetings: Meetings,
        checkpoints: Checkpoints,
        processes: Processes,
        evaluator: Evaluator | None = None,
    ) -> None:
        self.settings = settings
        self.student = learner.student
        self.history = History(settings)
        self.pace = Pace()
        self._learner = learner
        self._meetings = meetings
        self._checkpoints = checkpoints
        self._processes = processes
        self._evaluator = evaluator

    @property
    def image_rows(self) -> Rows:
        """Corpus rows of the pictures that take part, int64."""
        rows = self._meetings.image_rows
        return rows if self._evaluator is None else np.union1d(rows, self._evaluator.image_rows)

    def run(self, pixels: PixelSource) -> nn.Module:
        """Train to the last step or until patience ends, from the newest checkpoint where there is one.

        Returns:
            The model to keep: as it is now, or as it was at the best evaluation when `keep` is `best`.
        """
        done = self._resume()
        self._learner.train()
        steps = self.settings.steps
        # The rate in pairs: that is the one that is compared between machines.
        bar = progress_bar("steps", steps, "pairs", done, each=self.settings.batch_size, shown=self._processes.leads)
        with (
            bar as shown,
            TensorBoard.open(self.settings.tensorboard, done, self._processes) as board,
            torch.random.fork_rng(random_devices(self.student.device)),
        ):
            while done < steps and not self.history.stopped:
                stretch = range(done, self._end_of_stretch(done))
                self._train(stretch, pixels, shown)
                done = stretch.stop
                if self._evaluates_after(done):
                    self._evaluate(done, pixels)
                board.write(self.history.rows)
                if done % self.settings.checkpoint_steps == 0 or done == steps or self.history.stopped:
                    self._save(done)
        final = self._learner.kept_model
        if self.settings.keep == "best" and self.history.best is not None:
            final.load_state_dict(self._checkpoints.best(int(self.history.best["step"])))
        return final.eval()

    def _end_of_stretch(self, done: int) -> int:
        """Where training next pauses, to evaluate or to save."""
        every = [self.settings.checkpoint_steps] + ([self.settings.eval_steps] if self.settings.eval_steps else [])
        return min(self.settings.steps, *((done // steps + 1) * steps for steps in every))

    def _evaluates_after(self, step: int) -> bool:
        return self._evaluator is not None and _is_due(step, self.settings.eval_steps, self.settings.steps)

    def _train(self, steps: range, pixels: PixelSource, bar: Bar) -> None:
        meetings = [self._meetings.at(step) for step in steps]
        encoded = [meeting.encoded_images.rows for meeting in meetings]
        mine = [rows[self._processes.part(len(rows))] for rows in encoded]
        pictures = self.pace.measure(pixels.batches(mine), self.settings.batch_size)
        rsum = self.history.evaluations[-1]["eval_rsum"] if self.history.evaluations else None
        for step, meeting, pixels_MCHW in zip(steps, meetings, pictures, strict=True):
            stepped = self._learner.step(step, meeting, pixels_MCHW)
            due = _is_due(step + 1, self.settings.log_steps, self.settings.steps)
            if due or self._evaluates_after(step + 1) or "gradient_cosine" in stepped.extra:
                self.history.rows.append(_log_row(step + 1, stepped))
            bar.advance(1, training_note(stepped.losses, stepped.rate, self.pace.waiting_share, rsum))

    def _evaluate(self, step: int, pixels: PixelSource) -> None:
        """Add the figures of the model that would be kept to the step's row of the log, and keep it where it is the best."""
        assert self._evaluator is not None
        judged = copy.copy(self.student)
        judged.model = self._learner.kept_model.eval()
        # Everyone measures its copy of the same weights, so that nobody waits for minutes; one result counts.
        figures = self._evaluator.measure(judged, pixels)
        agreed = self._processes.agree(list(figures.values()), self.student.device)
        self.history.rows[-1] |= dict(zip(figures, agreed, strict=True))
        self._learner.train()
        if self.settings.keep == "best" and self.history.best is self.history.rows[-1] and self._processes.leads:
            self._checkpoints.save_best(step, judged.model.state_dict())

    def _save(self, step: int) -> None:
        # Before it replaces an older one: a checkpoint is there to go on from.
        check_finite_weights(self.student.model, step)
        if self._processes.leads:
            self._checkpoints.save(step, {**self._learner.state(), "log": self.history.rows})
        self._processes.wait()

    def _resume(self) -> int:
        found = self._checkpoints.latest()
        if self._processes.leads:
            self._checkpoints.forget_best_after(0 if found is None else found[0])
        self._processes.wait()
        if found is None:
            return 0
        step, state = found
        if self._processes.leads:
            announce(f"going on after step {step:,} of {self.settings.steps:,}, where an earlier run was stopped")
        self._learner.load(state)
        self.history = History(self.settings, state["log"])
        return step


def _log_row(step: int, stepped: Stepped) -> LogRow:
    losses = stepped.losses
    row: LogRow = {"step": step, "loss": losses.total, "contrastive": losses.contrastive, "distillation": losses.distillation}
    return row | {"learning_rate": stepped.rate, "scale": stepped.scale} | stepped.extra


def _is_due(step: int, every: int | None, last: int) -> bool:
    """Whether something happens after a step: every so many steps, and after the last."""
    return every is not None and (step % every == 0 or step == last)

"""The training loop: one step after the other, each a function of the state and the step number."""

import copy
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cprd_pipeline.corpus.reader import Corpus, Rows, Split
from cprd_pipeline.distillation.augment import Augmenter
from cprd_pipeline.distillation.batches import BatchRows, PairSampler, PositivePairs
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.evaluation import Evaluator, best_evaluation, out_of_patience
from cprd_pipeline.distillation.gradients import gradient_cosine
from cprd_pipeline.distillation.note import Losses, training_note
from cprd_pipeline.distillation.objective import LossParts, Objective
from cprd_pipeline.distillation.pace import Pace
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.precision import training_precision
from cprd_pipeline.distillation.schedule import learning_rate
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.dual_encoder import DualEncoder
from cprd_pipeline.progress import Bar, progress_bar

LogRow = dict[str, int | float]
"""Of the training log: `step` (an integer), losses, learning rate and scale; `eval_*` and `gradient_cosine` where measured."""

_STEP_SEED = 21


class Trainer:
    """Trains one student; resumable at every checkpoint with the same bits.

    Args:
        settings: The stage's settings.
        student: Changed in place while training.
        corpus: Captions and ids.
        split: What to train on.
        objective: The loss.
        checkpoints: Where the state is kept.
        evaluator: Measures the student on the way; None when `eval_steps` is.
    """

    def __init__(
        self,
        settings: DistillSettings,
        student: DualEncoder,
        corpus: Corpus,
        split: Split,
        objective: Objective,
        checkpoints: Checkpoints,
        evaluator: Evaluator | None = None,
    ) -> None:
        self.settings = settings
        self.student = student
        self.log: list[LogRow] = []
        self.pace = Pace()
        self._texts = corpus.texts
        self._sampler = PairSampler(split, settings.batch_size, settings.seed)
        self._positives = PositivePairs(split, len(corpus.captions))
        self._objective = objective
        self._checkpoints = checkpoints
        self._evaluator = evaluator
        self._augmenter = Augmenter(settings.augmentation, student.image_processor.image_std, settings.seed)
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(student.model, settings), lr=settings.learning_rate, betas=settings.betas, fused=True
        )
        self._bound_scale()
        self._average = copy.deepcopy(student.model) if settings.ema else None

    @property
    def image_rows(self) -> Rows:
        """Corpus rows of the pictures that take part, int64."""
        rows = self._sampler.image_rows
        return rows if self._evaluator is None else np.union1d(rows, self._evaluator.image_rows)

    @property
    def evaluations(self) -> list[LogRow]:
        """The rows of the log that hold an evaluation."""
        return [row for row in self.log if "eval_rsum" in row]

    @property
    def best(self) -> LogRow | None:
        """The evaluation with the highest `eval_metric` so far; None before the first."""
        return self.evaluations[best_evaluation(self._judged)] if self.evaluations else None

    @property
    def stopped(self) -> bool:
        """Whether `patience` evaluations brought nothing better, with steps left to do."""
        if not self.evaluations or self.evaluations[-1]["step"] == self.settings.steps:
            return False
        return out_of_patience(self._judged, self.settings.patience)

    @property
    def _judged(self) -> list[float]:
        return [row[f"eval_{self.settings.eval_metric}"] for row in self.evaluations]

    def run(self, pixels: PixelSource) -> nn.Module:
        """Train to the last step or until patience ends, from the newest checkpoint where there is one.

        Returns:
            The model to keep: the moving average of the weights, or the weights themselves when `ema` is 0; as they are now,
            or as they were at the best evaluation when `keep` is `best`.
        """
        done = self._resume()
        self.student.model.train()
        # Pairs, so that the bar's own rate is the one that is compared between machines.
        size = self.settings.batch_size
        with progress_bar("training", self.settings.steps * size, "pairs", done * size) as bar, torch.random.fork_rng():
            while done < self.settings.steps and not self.stopped:
                stretch = range(done, self._end_of_stretch(done))
                self._train(stretch, pixels, bar)
                done = stretch.stop
                if self._evaluates_after(done):
                    self._evaluate(done, pixels)
                if done % self.settings.checkpoint_steps == 0 or done == self.settings.steps or self.stopped:
                    self._checkpoints.save(done, self._state())
        final = self._kept_model()
        if self.settings.keep == "best" and self.best is not None:
            final.load_state_dict(self._checkpoints.best(int(self.best["step"])))
        return final.eval()

    def _end_of_stretch(self, done: int) -> int:
        """Where training next pauses, to evaluate or to save."""
        every = [self.settings.checkpoint_steps] + ([self.settings.eval_steps] if self.settings.eval_steps else [])
        return min(self.settings.steps, *((done // steps + 1) * steps for steps in every))

    def _evaluates_after(self, step: int) -> bool:
        return self._evaluator is not None and _is_due(step, self.settings.eval_steps, self.settings.steps)

    def _kept_model(self) -> nn.Module:
        model: nn.Module = self.student.model if self._average is None else self._average
        return model

    def _train(self, steps: range, pixels: PixelSource, bar: Bar) -> None:
        batches = [self._sampler.batch(step) for step in steps]
        pictures = self.pace.measure(pixels.batches([rows.images for rows in batches]), self.settings.batch_size)
        rsum = self.evaluations[-1]["eval_rsum"] if self.evaluations else None
        for step, rows, pixels_BCHW in zip(steps, batches, pictures, strict=True):
            losses = self._step(step, rows, pixels_BCHW)
            bar.advance(self.settings.batch_size, training_note(losses, self.pace.waiting_share, rsum))

    def _evaluate(self, step: int, pixels: PixelSource) -> None:
        """Add the figures of the model that would be kept to the step's row of the log, and keep it where it is the best."""
        assert self._evaluator is not None
        judged = copy.copy(self.student)
        judged.model = self._kept_model().eval()
        self.log[-1] |= self._evaluator.measure(judged, pixels)
        self.student.model.train()
        if self.settings.keep == "best" and self.best is self.log[-1]:
            self._checkpoints.save_best(step, judged.model.state_dict())

    def _step(self, step: int, rows: BatchRows, pixels_BCHW: Float[Tensor, "B C H W"]) -> Losses:
        # Dropout and anything else that draws from the global generator repeats after a resume.
        torch.manual_seed(int(np.random.SeedSequence([self.settings.seed, _STEP_SEED, step]).generate_state(1)[0]))
        rate = learning_rate(step, self.settings.steps, self.settings.warmup_steps, self.settings.learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        # SigLIP holds its scale and its bias as vectors of one.
        scale = self.student.logit_scale.exp().reshape(())
        similarities_BB = self._similarities(step, rows, pixels_BCHW)
        parts = self._objective(similarities_BB, scale, rows, self._positives.among(rows), step, self._bias())
        losses = Losses(*(float(part.detach()) for part in parts))
        if not math.isfinite(losses.total):
            raise ModelError(
                f"loss is {losses.total} at step {step} (itc {losses.contrastive}, distill {losses.distillation})",
                expected="a finite loss",
                do="lower learning_rate or set clip_norm; the last checkpoint is kept",
            )
        cosine = self._cosine(step + 1, parts)
        self._optimizer.zero_grad(set_to_none=True)
        parts.total.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.student.model.parameters(), self.settings.clip_norm)
        self._optimizer.step()
        self._bound_scale()
        self._update_average(step)
        due = _is_due(step + 1, self.settings.log_steps, self.settings.steps)
        if due or self._evaluates_after(step + 1) or cosine:
            self._log(step + 1, losses, rate, float(scale.detach()), cosine)
        return losses

    def _cosine(self, step: int, parts: LossParts) -> dict[str, float]:
        """`gradient_cosine` of the two parts of the loss, on the steps that measure it and where it is defined."""
        if self.settings.cosine_steps is None or step % self.settings.cosine_steps:
            return {}
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        cosine = gradient_cosine(parts.contrastive, parts.distillation, parameters)
        return {} if cosine is None else {"gradient_cosine": cosine}

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
        with training_precision(student):
            images_BD = student.embed_images(pixels_BCHW)
            captions_BD = student.embed_texts(**tokens)
        if student.dtype in (torch.bfloat16, torch.float16):
            images_BD, captions_BD = images_BD.float(), captions_BD.float()
        return images_BD @ captions_BD.T

    def _log(self, step: int, losses: Losses, rate: float, scale: float, cosine: dict[str, float]) -> None:
        row: LogRow = {"step": step, "loss": losses.total, "contrastive": losses.contrastive}
        self.log.append(row | {"distillation": losses.distillation, "learning_rate": rate, "scale": scale} | cosine)

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
        self._checkpoints.forget_best_after(0 if found is None else found[0])
        if found is None:
            return 0
        step, state = found
        self.student.model.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.log = list(state["log"])
        return step


def _is_due(step: int, every: int | None, last: int) -> bool:
    """Whether something happens after a step: every so many steps, and after the last."""
    return every is not None and (step % every == 0 or step == last)


def _parameter_groups(model: nn.Module, settings: DistillSettings) -> list[dict[str, Any]]:
    """Decay on everything, or on weight matrices only (no norms, biases, temperature)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if settings.decay == "all" or parameter.ndim >= 2]
    spared = [parameter for parameter in trained if settings.decay == "weights" and parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]

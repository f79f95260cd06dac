"""The teacher's training loop: contrast in the batch finds negatives, matching and ranking learn from them.

Shape suffixes: B pairs of the batch, T text tokens, W width, P image tokens, K negatives of one query.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from cprd_pipeline.corpus.reader import Corpus, Rows, Split
from cprd_pipeline.distillation.batches import BatchRows, PairSampler, PositivePairs
from cprd_pipeline.distillation.checkpoints import Checkpoints
from cprd_pipeline.distillation.losses.itc import itc_loss
from cprd_pipeline.distillation.losses.matching import listwise_loss, matching_loss, sample_negatives
from cprd_pipeline.distillation.pixels import PixelSource
from cprd_pipeline.distillation.schedule import learning_rate
from cprd_pipeline.distillation.teacher_batches import LengthBatches
from cprd_pipeline.distillation.teacher_settings import TrainTeacherSettings
from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.scene_teacher import SceneTeacher
from cprd_pipeline.progress import Bar, progress_bar

_NEGATIVES = 32


class TeacherLosses(NamedTuple):
    """The weighted sum and its parts, scalars."""

    total: Float[Tensor, ""]
    contrastive: Float[Tensor, ""]
    tokens: Float[Tensor, ""]
    matching: Float[Tensor, ""]
    listwise: Float[Tensor, ""]


class TeacherTrainer:
    """Trains a scene teacher in place; resumable at every checkpoint with the same bits.

    Args:
        settings: The stage's settings.
        teacher: With fresh weights.
        corpus: Captions and ids.
        split: What to train on.
        checkpoints: Where the state is kept.
    """

    def __init__(
        self, settings: TrainTeacherSettings, teacher: SceneTeacher, corpus: Corpus, split: Split, checkpoints: Checkpoints
    ) -> None:
        self.settings = settings
        self.teacher = teacher
        self.log: list[dict[str, float]] = []
        sampler = PairSampler(split, settings.batch_size, settings.seed)
        self.image_rows: Rows = sampler.image_rows
        self._tokens = [ids[: teacher.max_text_tokens] for ids in teacher.tokens(corpus.texts)]
        lengths = np.array([len(ids) for ids in self._tokens], dtype=np.int64)
        self._batches = LengthBatches(sampler, lengths, settings.length_window)
        self._positives = PositivePairs(split, len(corpus.captions))
        self._checkpoints = checkpoints
        self._optimizer = torch.optim.AdamW(
            teacher.model.parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def run(self, pixels: PixelSource) -> None:
        """Train to the last step, from the newest checkpoint where there is one."""
        done, every = self._resume(), self.settings.checkpoint_steps
        self.teacher.model.train()
        with progress_bar("training", self.settings.steps, "steps", done=done) as bar:
            while done < self.settings.steps:
                until = min(self.settings.steps, (done // every + 1) * every)
                self._train(range(done, until), pixels, bar)
                done = until
                self._checkpoints.save(done, self._state())
        self.teacher.model.eval()

    def _train(self, steps: range, pixels: PixelSource, bar: Bar) -> None:
        batches = self._batches.batches(steps)
        pictures = pixels.batches([rows.images for rows in batches])
        for step, rows, pixels_BCHW in zip(steps, batches, pictures, strict=True):
            rate = learning_rate(step, self.settings.steps, self.settings.warmup_steps, self.settings.learning_rate)
            losses = self._losses(step, rows, pixels_BCHW)
            _check_finite(losses.total.detach(), step)
            self._update(losses.total, rate)
            if (step + 1) % self.settings.log_steps == 0 or step + 1 == self.settings.steps:
                parts = {name: float(loss.detach()) for name, loss in losses._asdict().items()}
                self.log.append({"step": step + 1, "learning_rate": rate, **parts})
            bar.advance(1, f"loss {float(losses.total.detach()):.3f}, matching {float(losses.matching.detach()):.3f}")

    def _losses(self, step: int, rows: BatchRows, pixels_BCHW: Tensor) -> TeacherLosses:
        settings, model, device = self.settings, self.teacher.model, self.teacher.device
        pad = model.config.pad_token_id
        ids_BT = pad_sequence([self._tokens[row] for row in rows.captions], batch_first=True, padding_value=pad).to(device)
        mask_BT = ids_BT != pad
        image_BPW = model.image_tower(pixels_BCHW.to(device))
        text_BTW = model.text_tower(ids_BT, mask_BT)
        # No annotated pair is a negative: positives are closed over equal pictures and equal texts.
        excluded_BB = torch.from_numpy(self._positives.among(rows)).to(device)
        dual_BB = model.dual_logits(text_BTW, image_BPW)
        tokens_BB = model.matcher.logits(text_BTW, mask_BT, image_BPW)
        likeness_BB = (dual_BB + tokens_BB).detach() / 2
        _check_finite(likeness_BB.mean(), step)
        matching, listwise = self._fused_losses(step, text_BTW, mask_BT, image_BPW, likeness_BB, excluded_BB)
        contrastive = (itc_loss(dual_BB, excluded_BB) + itc_loss(dual_BB.T, excluded_BB.T)) / 2
        tokens = (itc_loss(tokens_BB, excluded_BB) + itc_loss(tokens_BB.T, excluded_BB.T)) / 2
        total = settings.contrastive_weight * contrastive + settings.token_weight * tokens
        total = total + settings.matching_weight * matching + settings.listwise_weight * listwise
        return TeacherLosses(total, contrastive, tokens, matching, listwise)

    def _fused_losses(
        self,
        step: int,
        text_BTW: Float[Tensor, "B T W"],
        mask_BT: Bool[Tensor, "B T"],
        image_BPW: Float[Tensor, "B P W"],
        likeness_BB: Float[Tensor, "B B"],
        excluded_BB: Bool[Tensor, "B B"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Matching and listwise loss over each pair, K captions that its image might be taken for, and K such images."""
        generator = torch.Generator().manual_seed(self._draw_seed(step))
        draw = (self.settings.negatives, self.settings.hard_share, generator)
        captions_BK = sample_negatives(likeness_BB, excluded_BB, *draw)
        images_BK = sample_negatives(likeness_BB.T, excluded_BB.T, *draw)
        own_B = torch.arange(len(text_BTW), device=text_BTW.device)
        own_of_drawn = own_B.repeat_interleave(self.settings.negatives)
        text_rows = torch.cat([own_B, captions_BK.flatten(), own_of_drawn])
        image_rows = torch.cat([own_B, own_of_drawn, images_BK.flatten()])
        logits = self.teacher.model.match(
            text_BTW.index_select(0, text_rows), mask_BT.index_select(0, text_rows), image_BPW, image_rows
        )
        positive_B, negatives = logits[: len(own_B)], logits[len(own_B) :].view(2, *captions_BK.shape)
        drawn = torch.stack([excluded_BB.gather(1, captions_BK), excluded_BB.T.gather(1, images_BK)])
        # Both directions as one list of 2 B queries.
        both = (positive_B.repeat(2), negatives.flatten(0, 1), drawn.flatten(0, 1))
        return matching_loss(positive_B, negatives.transpose(0, 1).flatten(1), drawn.transpose(0, 1).flatten(1)), listwise_loss(
            *both
        )

    def _update(self, loss: Float[Tensor, ""], rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.teacher.model.parameters(), self.settings.clip_norm)
        self._optimizer.step()

    def _draw_seed(self, step: int) -> int:
        return int(np.random.SeedSequence([self.settings.seed, _NEGATIVES, step]).generate_state(1)[0])

    def _state(self) -> dict[str, Any]:
        return {"model": self.teacher.model.state_dict(), "optimizer": self._optimizer.state_dict(), "log": self.log}

    def _resume(self) -> int:
        found = self._checkpoints.latest()
        if found is None:
            return 0
        step, state = found
        self.teacher.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.log = list(state["log"])
        return step


def _check_finite(value: Float[Tensor, ""], step: int) -> None:
    if not math.isfinite(float(value)):
        raise ModelError(
            f"the teacher's training has come to {float(value)} at step {step}",
            expected="finite logits and losses",
            do="lower learning_rate or clip_norm; the last checkpoint is kept",
        )

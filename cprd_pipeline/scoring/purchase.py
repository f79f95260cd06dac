"""Loading the teacher and letting it score: only when something is left to score."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.models.device import choose_device
from cprd_pipeline.models.teachers import load_teacher
from cprd_pipeline.scoring.backoff import BudgetedTeacher
from cprd_pipeline.scoring.errands import Errand
from cprd_pipeline.scoring.pairs import PairSpace
from cprd_pipeline.scoring.scorer import Scorer, Shelf
from cprd_pipeline.scoring.settings import ScoreSettings
from cprd_pipeline.store.report import Stopwatch
from cprd_pipeline.store.scores import ScoreStore

_NAMED_CAPTIONS = 10


@dataclass
class Purchase:
    """What scoring cost, and what the report says about it.

    Args:
        scored: Pairs.
        images: Images encoded.
        facts: Device, sizes of calls in the end, captions cut, shares of the time; empty when nothing was scored.
    """

    scored: int = 0
    images: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shop:
    """Where the scores of a run come from and go to.

    Args:
        settings: Of the run.
        corpus: The corpus.
        space: Its pairs.
        store: The score store.
        fingerprint: Of the teacher.
        watch: Clock of the run.
    """

    settings: ScoreSettings
    corpus: Corpus
    space: PairSpace
    store: ScoreStore
    fingerprint: str
    watch: Stopwatch

    def buy(self, errands: Sequence[Errand]) -> Purchase:
        """Score what the errands' plans have left to do."""
        open_errands = [errand for errand in errands if len(errand.plan.todo)]
        if not open_errands:
            return Purchase()
        settings = self.settings
        device = choose_device(settings.device)
        with self.watch.measure("loading"):
            teacher = load_teacher(settings.teacher, device)
        done: list[Scorer] = []
        for errand in open_errands:
            facing = teacher if errand.key == "both" else teacher.facing(errand.key)
            budgeted = BudgetedTeacher(facing, settings.image_batch, settings.token_budget)
            shelf = Shelf(self.store, self.fingerprint, errand.key)
            scorer = Scorer(self.corpus, self.space, budgeted, shelf, settings.workers)
            with self.watch.measure("scoring"):
                scorer.run(errand.plan, settings.part_pairs)
            done.append(scorer)
        facts = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "token_budget": min(scorer.teacher.token_budget for scorer in done),
            "image_batch": min(scorer.teacher.image_batch for scorer in done),
            "seconds_in": {part: round(sum(getattr(s.times, part) for s in done), 3) for part in ("teacher", "data", "store")},
            "cut_captions": self._cut_captions(done, teacher.max_text_tokens),
        }
        scored = sum(len(errand.plan.todo) for errand in open_errands)
        return Purchase(scored, sum(scorer.images_done for scorer in done), facts)

    def _cut_captions(self, done: Sequence[Scorer], limit: int) -> dict[str, Any]:
        cut = sorted(set().union(*(scorer.cut_captions for scorer in done)))
        captions = self.space.captions
        first = [captions.items.ids[captions.rows[caption]] for caption in cut[:_NAMED_CAPTIONS]]
        return {"count": len(cut), "max_text_tokens": limit, "first": first}

"""The loop: decode, encode, score, append to the store, part by part."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Rows
from cprd_pipeline.errors import ModelError
from cprd_pipeline.progress import Bar, announce, compact, progress_bar
from cprd_pipeline.scoring.backoff import BudgetedTeacher, Scores
from cprd_pipeline.scoring.pairs import Codes, PairSpace
from cprd_pipeline.scoring.plan import Plan, image_ends
from cprd_pipeline.store.scores import ScoreStore

_ENOUGH_TO_TELL = 100
"""Pairs of a part that no teacher scores alike: its head has no weights, or not those that it was trained with."""

_CAPTION_BATCH = 256
"""Captions encoded together. Not a setting: with padding adapters it touches the last bits of the scores."""


@dataclass(frozen=True)
class Shelf:
    """Where scores go.

    Args:
        store: The score store.
        teacher: Fingerprint of the teacher.
        direction: Key of the scores: `both`, or the direction that they hold for.
    """

    store: ScoreStore
    teacher: str
    direction: str


@dataclass
class WorkTimes:
    """Wall-clock seconds of a run: `teacher` encodes and scores, `data` waits for pictures, `store` writes."""

    teacher: float = 0.0
    data: float = 0.0
    store: float = 0.0
    start: float = field(default_factory=time.perf_counter)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - start)

    def share(self, part: str) -> float:
        """Share of the time since the start that went into a part, 0 to 1."""
        passed = time.perf_counter() - self.start
        return float(getattr(self, part) / passed) if passed else 0.0


@dataclass
class Scorer:
    """Scores the pairs of a plan.

    Args:
        corpus: The corpus.
        space: Its pairs.
        teacher: The teacher.
        shelf: Where scores go.
        workers: Processes that decode and preprocess images; 0 does it in this one.
        cut_captions: After a run: contents of the captions that were longer than the teacher's maximum.
        images_done: Images encoded so far.
        warned: Whether the user knows that all scores are the same.
        times: Where the time of the run went.
    """

    corpus: Corpus
    space: PairSpace
    teacher: BudgetedTeacher
    shelf: Shelf
    workers: int
    cut_captions: set[int] = field(default_factory=set)
    images_done: int = 0
    warned: bool = False
    times: WorkTimes = field(default_factory=WorkTimes)

    def run(self, plan: Plan, part_pairs: int) -> None:
        """Score everything that is left to do; each part is in the store when the next one begins.

        Raises:
            CorpusError: An image is gone, changed or does not decode.
            ModelError: A score is not finite.
            MachineError: The device's memory does not hold one pair.
        """
        self.times = WorkTimes()
        with (
            ImageReader(self.corpus, self.workers, self.teacher.teacher.preprocess) as reader,
            progress_bar("scoring", plan.stored + len(plan.todo), "pairs", plan.stored) as bar,
        ):
            # One stream over all parts, so that pictures of the next part are decoded while this one is scored.
            inputs = reader.prepared(self.space.images.rows[plan.images])
            for part in plan.parts(part_pairs):
                scores = self._score_part(part, inputs, bar)
                with self.times.measure("store"):
                    self._append(part, scores)

    def _score_part(self, part: Codes, inputs: Iterator[Any], bar: Bar) -> Scores:
        """Scores of the part's pairs, image by image in their order."""
        with self.times.measure("teacher"):
            texts = self._encode_captions(np.unique(self.space.captions_of(part)))
        by_image = np.split(part, image_ends(self.space.images_of(part))[:-1])
        scores: list[Scores] = []
        start = 0
        while start < len(by_image):
            # Batches are cut from the beginning of the part: a resumed run makes the same ones, so the same bits.
            group = by_image[start : start + self.teacher.image_batch]
            with self.times.measure("data"):
                batch = [next(inputs) for _ in group]
            with self.times.measure("teacher"):
                images = self.teacher.encode_images(batch)
                captions = [[texts[caption] for caption in self.space.captions_of(codes).tolist()] for codes in group]
                scores.extend(self.teacher.score(list(zip(images, captions, strict=True))))
            start += len(group)
            self._show(bar, group)
        return np.concatenate(scores)

    def _show(self, bar: Bar, group: list[Codes]) -> None:
        self.images_done += len(group)
        rate = self.images_done / (time.perf_counter() - self.times.start)
        bar.advance(sum(map(len, group)), f"{compact(rate)} images/s, {self.times.share('data'):.0%} waiting")

    def _encode_captions(self, captions: Rows) -> dict[int, Any]:
        """Encoded captions by content. Only those of one part are held, so memory follows the part size."""
        adapter = self.teacher.teacher
        encoded: dict[int, Any] = {}
        for start in range(0, len(captions), _CAPTION_BATCH):
            batch = captions[start : start + _CAPTION_BATCH]
            values = self.teacher.encode_texts([self.corpus.texts[row] for row in self.space.captions.rows[batch]])
            for caption, value in zip(batch.tolist(), values, strict=True):
                encoded[caption] = value
                if adapter.text_tokens(value) > adapter.max_text_tokens:
                    self.cut_captions.add(caption)
        return encoded

    def _append(self, part: Codes, scores: Scores) -> None:
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise ModelError(
                f"the teacher's score of {self.space.name(int(part[bad[0]]))} is {scores[bad[0]]} "
                f"({len(bad)} of {len(part)} scores of this part are not finite)",
                expected="finite scores",
                do="check the teacher's weights, or set teacher.dtype to float32; nothing of this part was stored",
            )
        self._warn_of_one_score(scores)
        images = self.space.images.digests[self.space.images_of(part)]
        captions = self.space.captions.digests[self.space.captions_of(part)]
        self.shelf.store.append(self.shelf.teacher, self.shelf.direction, images, captions, scores)

    def _warn_of_one_score(self, scores: Scores) -> None:
        """While it can still be stopped: hours of such scores teach nothing."""
        if self.warned or len(scores) < _ENOUGH_TO_TELL or scores.min() < scores.max():
            return
        self.warned = True
        announce(
            f"warning: all {len(scores):,} pairs of a part have the score {scores[0]:.2f}: the teacher tells nothing apart; "
            "look at the weights of its head"
        )

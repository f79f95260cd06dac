"""The loop: decode, encode, score, append to the store, part by part."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus, Rows
from cprd_pipeline.errors import ModelError
from cprd_pipeline.progress import progress_bar
from cprd_pipeline.scoring.backoff import BudgetedTeacher
from cprd_pipeline.scoring.pairs import Codes, PairSpace
from cprd_pipeline.scoring.plan import Plan, image_ends
from cprd_pipeline.store.scores import ScoreStore

_CAPTION_BATCH = 256
"""Captions encoded together. Not a setting: with padding adapters it touches the last bits of the scores."""


@dataclass(frozen=True)
class Shelf:
    """Where scores go.

    Args:
        store: The score store.
        teacher: Fingerprint of the teacher.
        direction: Key of the scores: the teacher's `roles`.
    """

    store: ScoreStore
    teacher: str
    direction: str


@dataclass
class Scorer:
    """Scores the pairs of a plan.

    Args:
        corpus: The corpus.
        space: Its pairs.
        teacher: The teacher.
        shelf: Where scores go.
        workers: Processes that decode images; 0 decodes in this one.
        cut_captions: After a run: contents of the captions that were longer than the teacher's maximum.
    """

    corpus: Corpus
    space: PairSpace
    teacher: BudgetedTeacher
    shelf: Shelf
    workers: int
    cut_captions: set[int] = field(default_factory=set)

    def run(self, plan: Plan, part_pairs: int) -> None:
        """Score everything that is left to do; each part is in the store when the next one begins.

        Raises:
            CorpusError: An image is gone, changed or does not decode.
            ModelError: A score is not finite.
            MachineError: The device's memory does not hold one pair.
        """
        images = np.unique(self.space.images_of(plan.todo))
        with (
            ImageReader(self.corpus, self.workers) as reader,
            progress_bar("scoring", plan.stored + len(plan.todo), "pairs", plan.stored) as bar,
        ):
            # One stream over all parts, so that pictures of the next part are decoded while this one is scored.
            pictures = (picture for _, picture in reader.stream(self.space.images.rows[images]))
            for part in plan.parts(self.space, part_pairs):
                scores = []
                for codes, batch in self._score_part(part, pictures):
                    bar.advance(len(codes))
                    scores.append(batch)
                self._append(part, np.concatenate(scores))

    def _score_part(self, part: Codes, pictures: Iterator[Image.Image]) -> Iterator[tuple[Codes, npt.NDArray[np.float32]]]:
        """Scores of the part's pairs, image by image in their order."""
        texts = self._encode_captions(np.unique(self.space.captions_of(part)))
        by_image = np.split(part, image_ends(self.space.images_of(part))[:-1])
        start = 0
        while start < len(by_image):
            # Batches are cut from the beginning of the part: a resumed run makes the same ones, so the same bits.
            group = by_image[start : start + self.teacher.image_batch]
            encoded = self.teacher.encode_images([next(pictures) for _ in group])
            for codes, image in zip(group, encoded, strict=True):
                captions = [texts[caption] for caption in self.space.captions_of(codes).tolist()]
                yield codes, self.teacher.score(image, captions)
            start += len(group)

    def _encode_captions(self, captions: Rows) -> dict[int, Any]:
        """Encoded captions by content. Only those of one part are held, so memory follows the part size."""
        adapter = self.teacher.teacher
        encoded: dict[int, Any] = {}
        for start in range(0, len(captions), _CAPTION_BATCH):
            batch = captions[start : start + _CAPTION_BATCH]
            values = adapter.encode_texts([self.corpus.texts[row] for row in self.space.captions.rows[batch]])
            for caption, value in zip(batch.tolist(), values, strict=True):
                encoded[caption] = value
                if adapter.text_tokens(value) > adapter.max_text_tokens:
                    self.cut_captions.add(caption)
        return encoded

    def _append(self, part: Codes, scores: npt.NDArray[np.float32]) -> None:
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise ModelError(
                f"the teacher's score of {self.space.name(int(part[bad[0]]))} is {scores[bad[0]]} "
                f"({len(bad)} of {len(part)} scores of this part are not finite)",
                expected="finite scores",
                do="check the teacher's weights, or set teacher.dtype to float32; nothing of this part was stored",
            )
        images = self.space.images.digests[self.space.images_of(part)]
        captions = self.space.captions.digests[self.space.captions_of(part)]
        self.shelf.store.append(self.shelf.teacher, self.shelf.direction, images, captions, scores)

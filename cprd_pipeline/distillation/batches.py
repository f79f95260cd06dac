"""Which image meets which caption at which step, as a function of the seed and the step alone.

Nothing is remembered between steps but what could be computed again, so that a resumed run draws what an uninterrupted one
would have drawn.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.reader import Rows, Split
from cprd_pipeline.distillation.columns import Columns
from cprd_pipeline.errors import CorpusError

_EPOCH_ORDER, _CAPTION_CHOICE, _CAPTION_ORDER = 1, 2, 3
_NOWHERE = np.iinfo(np.int64).max

Arrange = Callable[[Rows, np.random.Generator], Rows]
"""Orders the images of one pass: their places in `PairSampler.image_rows`, int64 [N], ascending; the same places come back."""


class BatchRows(NamedTuple):
    """Corpus rows of one batch.

    Args:
        images: int64 [B].
        captions: int64 [B].
        paired: Whether image i and caption i count as a positive pair, annotated or drawn; bool [B].
    """

    images: Rows
    captions: Rows
    paired: npt.NDArray[np.bool_]

    @classmethod
    def of_pairs(cls, images: Rows, captions: Rows) -> "BatchRows":
        """A batch in which every image and its caption are a positive pair."""
        return cls(images, captions, np.ones(len(images), dtype=np.bool_))


def random_order(places: Rows, random: np.random.Generator) -> Rows:
    """Images in random order."""
    return places[random.permutation(len(places))]


class PairSampler:
    """Passes over the images, each image with one of its captions.

    An epoch has as many passes as `captions_per_image` says: the first over all images, pass p over those that have more than p
    captions, each time with another caption. Batches lie within a pass, so that no image is in a batch twice.

    Args:
        split: The split to train on.
        batch_size: Pairs in a batch; the rest of a pass that fills no batch is left out.
        seed: Of the order and the choices.
        captions_per_image: Passes of an epoch; all: as many as the image with most captions has.
        arrange: Puts the images of a pass in order.

    Raises:
        CorpusError: Fewer images with a caption than a batch needs.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        captions_per_image: int | Literal["all"] = 1,
        arrange: Arrange = random_order,
    ) -> None:
        ordered = split.positives[np.lexsort((split.positives[:, 1], split.positives[:, 0]))]
        self.image_rows, self._starts, self._counts = np.unique(ordered[:, 0], return_index=True, return_counts=True)
        self._captions = ordered[:, 1]
        self.batch_size = batch_size
        self.seed = seed
        self._arrange = arrange
        if len(self.image_rows) < batch_size:
            raise CorpusError(
                f"split {split.name} has {len(self.image_rows)} images with a caption, batch_size is {batch_size}",
                expected="at least one whole batch",
                do="lower batch_size or choose another split",
            )
        most = int(self._counts.max())
        passes = most if captions_per_image == "all" else min(captions_per_image, most)
        self._one_caption = captions_per_image == 1
        self._batches = [int((self._counts > number).sum()) // batch_size for number in range(passes)]
        self._planned: tuple[int, Rows, Rows] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches of all passes of an epoch."""
        return sum(self._batches)

    def batch(self, step: int) -> BatchRows:
        """The batch of a step, counted from 0."""
        epoch, position = divmod(step, self.batches_per_epoch)
        places, captions = self._epoch(epoch)
        inside = slice(position * self.batch_size, (position + 1) * self.batch_size)
        chosen = places[inside]
        if self._one_caption:
            pick = self._random(_CAPTION_CHOICE, step).random(self.batch_size)
            told = self._captions[self._starts[chosen] + (pick * self._counts[chosen]).astype(np.int64)]
        else:
            told = captions[inside]
        return BatchRows.of_pairs(self.image_rows[chosen].astype(np.int64), told.astype(np.int64))

    def _epoch(self, epoch: int) -> tuple[Rows, Rows]:
        """Places of the images in the order of an epoch's batches, and their captions where an epoch has several passes.

        The last one is kept: at a million images it takes longer than a step.
        """
        if self._planned is None or self._planned[0] != epoch:
            passes = [self._pass(epoch, number) for number in range(len(self._batches))]
            self._planned = (epoch, np.concatenate(passes), self._captions_of(epoch, passes))
        return self._planned[1:]

    def _pass(self, epoch: int, number: int) -> Rows:
        random = self._random(_EPOCH_ORDER, epoch) if number == 0 else self._random(_EPOCH_ORDER, epoch, number)
        order = self._arrange(np.flatnonzero(self._counts > number), random)
        return order[: self._batches[number] * self.batch_size]

    def _captions_of(self, epoch: int, passes: list[Rows]) -> Rows:
        """Caption of each image of each pass: every image's captions are shuffled anew each epoch, pass p takes the p-th."""
        if self._one_caption:
            return np.empty(0, dtype=np.int64)
        owner = np.repeat(np.arange(len(self.image_rows)), self._counts)
        shuffled = self._captions[np.lexsort((self._random(_CAPTION_ORDER, epoch).random(len(owner)), owner))]
        return np.concatenate([shuffled[self._starts[places] + number] for number, places in enumerate(passes)])

    def _random(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose])


class Contents(NamedTuple):
    """Which rows are one content.

    Args:
        images: For each image row the first with its digest; int64 [I].
        captions: The same for captions; int64 [C].
    """

    images: Rows
    captions: Rows


class PositivePairs:
    """Looks up which pairs are annotated.

    Args:
        split: The split; its positives are closed over equal digests.
        captions: Number of captions of the corpus.
        contents: Given, a pair is one of contents: also rows of other splits that hold the same are recognised. None: of rows.
    """

    def __init__(self, split: Split, captions: int, contents: Contents | None = None) -> None:
        self._captions = captions
        self._contents = contents
        images, told = self._as_contents(split.positives[:, 0], split.positives[:, 1])
        codes = np.unique(images * captions + told)
        owners, starts = np.unique(codes // captions, return_index=True)
        # The last ones are for what would be sought behind the last.
        self._codes, self._images = np.append(codes, _NOWHERE), np.append(owners, _NOWHERE)
        self._starts = np.append(starts, [len(codes), len(codes)])

    def among(self, rows: BatchRows) -> npt.NDArray[np.bool_]:
        """Whether image i and caption j of a batch are an annotated pair; bool [B, B]."""
        return self.known(rows.images, rows.captions)

    def known(self, images: Rows, captions: Rows) -> npt.NDArray[np.bool_]:
        """Whether image i and caption j are an annotated pair, for each of both; cost grows with the images' pairs.

        Args:
            images: Corpus rows in any order, repeated or not; int64 [Q].
            captions: The same; int64 [N].

        Returns:
            bool [Q, N].
        """
        images, captions = self._as_contents(images, captions)
        columns = Columns(captions)
        place = np.searchsorted(self._images, images)
        begins = self._starts[place]
        lengths = np.where(self._images[place] == images, self._starts[place + 1] - begins, 0)
        owner = np.repeat(np.arange(len(images)), lengths)
        flat = np.arange(len(owner)) + np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)
        hit, column = columns.find(self._codes[flat] % self._captions)
        found = np.zeros((len(images), columns.different), dtype=np.bool_)
        found[owner[hit], column] = True
        return columns.spread(found)

    def are(self, images: npt.NDArray[np.integer], captions: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Whether pairs are annotated, one by one.

        Args:
            images: Corpus rows of any shape.
            captions: The same, of a shape that fits.

        Returns:
            bool, of both shapes broadcast. `known` is faster for all pairs of two lists.
        """
        images, captions = self._as_contents(images, captions)
        codes = images * self._captions + captions
        found: npt.NDArray[np.bool_] = self._codes[np.searchsorted(self._codes, codes)] == codes
        return found

    def _as_contents(
        self, images: npt.NDArray[np.integer], captions: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        if self._contents is None:
            return images.astype(np.int64), captions.astype(np.int64)
        return self._contents.images[images], self._contents.captions[captions]

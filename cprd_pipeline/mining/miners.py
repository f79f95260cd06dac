"""Puts a direction's miner together."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64

from cprd_pipeline.corpus.reader import Split
from cprd_pipeline.mining.candidates import Direction, Miner, Sampling
from cprd_pipeline.mining.draws import item_keys
from cprd_pipeline.mining.earlier import EarlierLists
from cprd_pipeline.mining.filters import Filters
from cprd_pipeline.mining.groups import same_group
from cprd_pipeline.mining.indexes import check_index, make_search
from cprd_pipeline.mining.inputs import Inputs
from cprd_pipeline.mining.relations import Relation, SameGroup, SameText, SimilarText, text_classes
from cprd_pipeline.mining.search import Search
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.mining.sides import Sides
from cprd_pipeline.models.embeddings import CorpusEmbeddings
from cprd_pipeline.store.folder import cache_folder

DIRECTIONS: tuple[Direction, ...] = ("i2t", "t2i")


@dataclass(frozen=True)
class Workshop:
    """What both directions are made from.

    Args:
        settings: Of the stage.
        inputs: Of the stage.
        split: The split.
        sides: Of the split.
        gpus: GPUs to search on; none for the CPU.
    """

    settings: MineSettings
    inputs: Inputs
    split: Split
    sides: Sides
    gpus: tuple[int, ...]

    def check(self) -> None:
        """Read what may be wrong before hours of embedding.

        Raises:
            StoreError: An earlier round has other queries than the split.
            CorpusError: The group file is not as it must be.
            SettingsError: The index does not fit the number of items.
        """
        for side in (self.sides.captions, self.sides.images):
            check_index(self.settings.index, len(side))
        for direction in DIRECTIONS:
            self._earlier(direction)
        _ = self._groups

    def miner(self, direction: Direction, vectors: CorpusEmbeddings) -> Miner:
        """The miner of a direction; its index is built or read here.

        Args:
            direction: Who asks.
            vectors: Of both sides, one a content in the order of the contents.
        """
        settings, sides = self.settings, self.sides
        by_image = direction == "i2t"
        queries, items = (sides.images, sides.captions) if by_image else (sides.captions, sides.images)
        of_items = self.inputs.corpus.captions if by_image else self.inputs.corpus.images
        item_rows = (self.split.captions if by_image else self.split.images)[items.first]
        merged, rankings = self._earlier(direction)
        return Miner(
            direction,
            queries,
            vectors.images if by_image else vectors.captions,
            items,
            self.search(direction, vectors),
            sides.captions_of_images if by_image else sides.images_of_captions,
            settings.k,
            self._filters(by_image, vectors),
            Sampling(settings.sampler, min(settings.pool, len(items)), item_keys(of_items.digests[item_rows]), rankings),
            merged,
        )

    def search(self, direction: Direction, vectors: CorpusEmbeddings) -> Search:
        """The search among the contents that a direction asks for; vectors as for `miner`."""
        settings = self.settings
        return make_search(
            vectors.captions if direction == "i2t" else vectors.images,
            settings.index,
            identity=f"{self.inputs.encoder} {self.inputs.corpus.digest} {settings.split} {direction}",
            cache=cache_folder(),
            query_block=settings.query_block,
            index_block=settings.index_block,
            gpus=self.gpus,
        )

    def _earlier(self, direction: Direction) -> tuple[tuple[EarlierLists, ...], EarlierLists | None]:
        """Candidates and rankings of earlier rounds."""
        sides, rankings = self.sides, self.inputs.rankings
        pair = (sides.images, sides.captions) if direction == "i2t" else (sides.captions, sides.images)
        merged = tuple(EarlierLists(folder, direction, *pair) for folder in self.inputs.merged)
        return merged, EarlierLists(rankings, direction, *pair) if rankings is not None else None

    def _filters(self, by_image: bool, vectors: CorpusEmbeddings) -> Filters:
        classes = self._text_classes if by_image and self.settings.filters.same_text else None
        shared = classes is not None and len(np.unique(classes)) < len(classes)
        return Filters(self.settings.filters, self._relations(vectors), by_image, classes if shared else None)

    @cached_property
    def _text_classes(self) -> Int64[np.ndarray, " C"]:
        texts = self.inputs.corpus.texts
        return text_classes([texts[row] for row in self.split.captions[self.sides.captions.first]])

    @cached_property
    def _groups(self) -> SameGroup | None:
        filters = self.settings.filters
        if filters.groups is None:
            return None
        return same_group(filters.groups, filters.group_column, self.inputs.corpus, self.split, self.sides)

    def _relations(self, vectors: CorpusEmbeddings) -> dict[str, Relation]:
        """In the order of the filters."""
        filters, sides = self.settings.filters, self.sides
        found: dict[str, Relation] = {}
        if self._groups is not None:
            found["same_group"] = self._groups
        if filters.same_text and (same := SameText(sides.captions_of_images, self._text_classes)).possible:
            found["same_text"] = same
        if filters.similar_text is not None:
            found["similar_text"] = SimilarText(sides.captions_of_images, vectors.captions, filters.similar_text)
        return found

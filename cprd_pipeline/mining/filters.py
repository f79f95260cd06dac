"""What keeps an item from becoming a candidate, decided for one pair of query and item at a time.

Shape suffix: N pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int64

from cprd_pipeline.mining.relations import Relation
from cprd_pipeline.mining.settings import FilterSettings
from cprd_pipeline.store.schemas import CANDIDATE_FILTERS as FILTERS

PASSED = -1


@dataclass(frozen=True)
class Filters:
    """The filters of one direction.

    Args:
        settings: The bounds.
        relations: By the filter's name: what a pair must not have.
        asked_by_image: Whether the queries are images.
        classes: Class of each item's text, of which a list holds one; None where no two items have the same.
    """

    settings: FilterSettings
    relations: Mapping[str, Relation]
    asked_by_image: bool
    classes: Int64[np.ndarray, " M"] | None = None

    @property
    def idle(self) -> bool:
        """Whether every item passes."""
        bounds = ("min_similarity", "max_similarity", "absolute_margin", "relative_margin")
        off = all(getattr(self.settings, name) is None for name in bounds)
        return off and not self.relations and self.classes is None and not self.settings.ranges

    @property
    def costly(self) -> bool:
        """Whether so many items may be filtered that a deeper fetch at once is better than a second one."""
        # Few captions have the same text.
        return bool(self.settings.in_force().keys() - {"same_text"})

    def copies(self, owners: Int64[np.ndarray, " N"], items: Int64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Whether an earlier item of the same owner has the same text but for case and space."""
        if self.classes is None:
            return np.zeros(len(items), dtype=np.bool_)
        return later_copies(owners, self.classes[items])

    def verdicts(
        self,
        queries: Int64[np.ndarray, " N"],
        items: Int64[np.ndarray, " N"],
        similarities: Float32[np.ndarray, " N"],
        lowest: Float64[np.ndarray, " N"],
    ) -> Int8[np.ndarray, " N"]:
        """The filter that objects to each pair, as its place in `FILTERS`, or `PASSED`; ranks are the caller's.

        Args:
            queries: Content that asks.
            items: Content that is asked for.
            similarities: Of the pair.
            lowest: Lowest similarity of the query's positives; infinite when it has none, and then no margin counts.
        """
        found = np.full(len(queries), PASSED, dtype=np.int8)
        if self.settings.min_similarity is not None:
            _object(found, "min_similarity", similarities < np.float32(self.settings.min_similarity))
        for name, ceiling in self._ceilings(lowest).items():
            _object(found, name, similarities > ceiling)
        for name, relation in self.relations.items():
            undecided = np.flatnonzero(found == PASSED)
            pair = queries[undecided], items[undecided]
            holds = relation.holds(*pair if self.asked_by_image else pair[::-1])
            found[undecided[holds]] = FILTERS.index(name)
        return found

    def _ceilings(self, lowest: Float64[np.ndarray, " N"]) -> dict[str, Float64[np.ndarray, " N"]]:
        """Highest similarity that each bound lets pass. In float64, since a margin of float32 would round."""
        ceilings = {}
        if self.settings.max_similarity is not None:
            ceilings["max_similarity"] = np.full(len(lowest), np.float32(self.settings.max_similarity), dtype=np.float64)
        if self.settings.absolute_margin is not None:
            ceilings["absolute_margin"] = lowest - self.settings.absolute_margin
        if self.settings.relative_margin is not None:
            # Infinite minus infinite is no number; and a negative similarity must fall, not rise, by the margin.
            drop = np.where(np.isfinite(lowest), np.abs(lowest), 0) * self.settings.relative_margin
            ceilings["relative_margin"] = lowest - drop
        return ceilings


def _object(found: Int8[np.ndarray, " N"], name: str, objects: Bool[np.ndarray, " N"]) -> None:
    """Record, in place, the objections to pairs that nothing objected to before."""
    found[objects & (found == PASSED)] = FILTERS.index(name)


def later_copies(owners: Int64[np.ndarray, " N"], classes: Int64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Whether an earlier item of the same owner has the same class."""
    codes = owners * (classes.max(initial=0) + 1) + classes
    later = np.ones(len(codes), dtype=np.bool_)
    later[np.unique(codes, return_index=True)[1]] = False
    return later

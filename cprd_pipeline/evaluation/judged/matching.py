"""Which image or caption of a split a judged id means, and how many ids mean none."""

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Int64

from cprd_pipeline.corpus.reader import Corpus, Items, Rows, Split
from cprd_pipeline.errors import CorpusError

NAMED = 3
"""Unknown ids that messages and results name."""

UNKNOWN_LIMIT = 0.05
"""Share of a set's ids that may be unknown unless the user says otherwise."""

Key = int | str

_COCO_IMAGE = re.compile(r"(?:COCO_(?:train|val|test)20\d\d_)?(\d+)(?:\.jpe?g)?", re.ASCII | re.IGNORECASE)
_COCO_CAPTION = re.compile(r"(?:COCO_(?:train|val|test)20\d\d:sentid:)?(\d+)", re.ASCII)


def image_key(name: str) -> Key:
    """What names of one image have in common.

    Numbers for COCO: `391895`, `000000391895.jpg` and `val2014/COCO_val2014_000000391895.jpg` are all image 391895.
    The file name without its folder for anything else.
    """
    base = PurePosixPath(name).name
    number = _COCO_IMAGE.fullmatch(base)
    return int(number[1]) if number else base


def caption_key(name: str) -> Key:
    """What ids of one caption have in common: COCO's number (`732091`, `COCO_val2014:sentid:732091`), or the id itself."""
    number = _COCO_CAPTION.fullmatch(name)
    return int(number[1]) if number else name


class Lookup:
    """Places of one side of a split; remembers which names it was asked for and did not know.

    Args:
        places: Place of each key.
        key: Key of a judged name.
        ambiguous: Ids that share a key, by key.
    """

    def __init__(
        self, places: Mapping[Key, int], key: Callable[[str], Key], ambiguous: Mapping[Key, tuple[str, str]] | None = None
    ) -> None:
        self._places = places
        self._key = key
        self._ambiguous = ambiguous or {}
        self._asked: set[str] = set()
        self._unknown: dict[str, None] = {}

    def places(self, names: Iterable[str]) -> Int64[np.ndarray, " N"]:
        """Place of each name in the split's side; -1 for an unknown one.

        Raises:
            CorpusError: Two items of the split go by a name.
        """
        return np.fromiter((self._place(name) for name in names), dtype=np.int64)

    @property
    def asked(self) -> int:
        """Distinct names that it was asked for."""
        return len(self._asked)

    @property
    def unknown(self) -> list[str]:
        """Distinct names that it did not know, in the order in which they came."""
        return list(self._unknown)

    def _place(self, name: str) -> int:
        key = self._key(name)
        if key in self._ambiguous:
            first, second = self._ambiguous[key]
            raise CorpusError(
                f"judged id {name!r} could be {first!r} or {second!r} of the split",
                expected="one item",
                do="prepare the corpus with each image or caption once",
            )
        self._asked.add(name)
        place = self._places.get(key, -1)
        if place < 0:
            self._unknown[name] = None
        return place


def image_lookup(corpus: Corpus, split: Split) -> Lookup:
    """Places in `split.images` by `image_key`."""
    return _lookup(corpus.images, split.images, image_key, None)


def caption_lookup(corpus: Corpus, split: Split, among: Container[Key] | None = None) -> Lookup:
    """Places in `split.captions` by `caption_key`.

    Args:
        corpus: The corpus.
        split: One of its splits.
        among: Keys of the only captions that count; None for all.
    """
    return _lookup(corpus.captions, split.captions, caption_key, among)


def _lookup(items: Items, rows: Rows, key: Callable[[str], Key], among: Container[Key] | None) -> Lookup:
    places: dict[Key, int] = {}
    ambiguous: dict[Key, tuple[str, str]] = {}
    for place, row in enumerate(rows):
        name = items.ids[row]
        known = key(name)
        if among is not None and known not in among:
            continue
        first = places.setdefault(known, place)
        if first != place:
            ambiguous[known] = (items.ids[rows[first]], name)
    return Lookup(places, key, ambiguous)


def check_known(where: object, split: Split, lookups: Sequence[Lookup], limit: float) -> tuple[str, ...]:
    """Refuse a set of which too many ids are unknown.

    Args:
        where: File or folder of the set, for messages.
        split: The split that was searched.
        lookups: Asked for all ids of the set, each side once.
        limit: Largest share of unknown ids among the distinct ids, in [0, 1].

    Returns:
        The first `NAMED` unknown ids.

    Raises:
        CorpusError: The share is larger, or no id is known.
    """
    unknown = [name for lookup in lookups for name in lookup.unknown]
    asked = sum(lookup.asked for lookup in lookups)
    first = tuple(unknown[:NAMED])
    if len(unknown) > limit * asked or len(unknown) == asked:
        raise CorpusError(
            f"{where}: {len(unknown):,} of {asked:,} ids are not in split {split.name!r}, the first {', '.join(map(repr, first))}",
            expected=f"at most {limit:.0%} unknown" if len(unknown) < asked else "ids of this split",
            do="choose the split that the set was judged on, or raise judged.unknown_limit for a part of it",
        )
    return first

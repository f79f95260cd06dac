"""A seeded holdout by content: equal pictures, and pictures that share a caption, do not part.

What decides about a group is the smallest digest of its pictures and the seed alone: an item of a corpus that grows stays where it
was, unless a newcomer joins its group.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cprd_pipeline.corpus.formats.records import ONLY_SPLIT
from cprd_pipeline.corpus.settings import HoldoutSettings
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import bytes_digest

_LARGEST = 100
"""Pictures that equal texts may hold together, a hundredth of all at most. Beyond that a text links nothing and counts as a leak:
"a photo" under everything, or chains of such texts, would put nearly all pictures into one split."""


def check_new_names(splits: Iterable[str], settings: HoldoutSettings) -> None:
    """Refuse shares of splits that the source brings.

    Args:
        splits: Of the source's images.
        settings: Shares by name.

    Raises:
        CorpusError: A split of that name is there already.
    """
    taken = set(splits) & set(settings.shares)
    if taken:
        raise CorpusError(
            f"holdout.shares names {', '.join(sorted(taken))}, which the source has already",
            expected="names that are new",
            do="mend holdout.shares, or set it to {}",
        )


def draw_holdout(
    splits: Sequence[str],
    digests: Sequence[bytes],
    texts: Mapping[bytes, Sequence[int]],
    shared: Sequence[Sequence[int]],
    settings: HoldoutSettings,
) -> list[str]:
    """The split of every image, those of `train` drawn anew.

    Args:
        splits: As the source gave them; `check_new_names` has seen them.
        digests: Of the images' contents.
        texts: Text digest to the rows of the images that it was written for.
        shared: Rows of the images of each caption that describes several.
        settings: Shares and seed.

    Raises:
        CorpusError: A split gets no image.
    """
    drawable = [row for row, split in enumerate(splits) if split == ONLY_SPLIT]
    drawn = list(splits)
    for group in _groups(drawable, digests, texts, shared):
        # Of the smallest digest, hashed: the smallest hash of a group would favour the splits that come first.
        chance = _chance(settings.seed, min(digests[row] for row in group))
        for row in group:
            drawn[row] = _split_of(chance, settings.shares)
    empty = [name for name, share in settings.shares.items() if share > 0 and name not in drawn]
    if empty:
        raise CorpusError(
            f"holdout.shares: {empty[0]} gets none of {len(drawable):,} images", expected="at least one", do="raise its share"
        )
    return drawn


class _Groups:
    """Rows that must not part: union-find with sizes."""

    def __init__(self, rows: Sequence[int]) -> None:
        self._parent = {row: row for row in rows}
        self._size = dict.fromkeys(rows, 1)

    def link(self, rows: Sequence[int], largest: int | None = None) -> None:
        """Unite the groups of some rows, unless the group would grow too large; rows that are not drawn are passed over."""
        roots = list({self.find(row): None for row in rows if row in self._parent})
        size = sum(self._size[root] for root in roots)
        if len(roots) > 1 and (largest is None or size <= largest):
            for root in roots[1:]:
                self._parent[root] = roots[0]
            self._size[roots[0]] = size

    def find(self, row: int) -> int:
        """The row that stands for a group."""
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row


def _groups(
    rows: Sequence[int], digests: Sequence[bytes], texts: Mapping[bytes, Sequence[int]], shared: Sequence[Sequence[int]]
) -> Iterable[list[int]]:
    groups = _Groups(rows)
    same = defaultdict(list)
    for row in rows:
        same[digests[row]].append(row)
    for linked in (*same.values(), *shared):
        groups.link(linked)
    largest = min(_LARGEST, max(2, len(rows) // 100))
    # In the order of the texts' digests: which links are left out must not depend on the order of the files.
    for _, linked in sorted((text, owners) for text, owners in texts.items() if len(owners) > 1):
        groups.link(linked, largest)
    found = defaultdict(list)
    for row in rows:
        found[groups.find(row)].append(row)
    return found.values()


def _chance(seed: int, digest: bytes) -> float:
    """A number in [0, 1) that the seed and the content decide."""
    return int.from_bytes(bytes_digest(f"holdout {seed} ".encode() + digest)[:7]) / 2**56


def _split_of(chance: float, shares: Mapping[str, float]) -> str:
    below = 0.0
    for name, share in shares.items():
        below += share
        if chance < below:
            return name
    return ONLY_SPLIT

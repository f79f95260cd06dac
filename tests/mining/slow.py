"""The candidates by the words of their documentation: one query, one item and one comparison at a time."""

import math
from typing import Any

import numpy as np

from cprd_pipeline.mining.draws import item_keys, query_keys, uniform
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.store.fingerprint import bytes_digest, stack_digests
from cprd_pipeline.store.schemas import CANDIDATE_FILTERS
from tests.mining.small_world import TEXTS, Earlier, World


def _normal(text: int) -> str:
    return " ".join(TEXTS[text].lower().split())


class SlowMiner:
    """One direction.

    Args:
        world: The corpus.
        settings: Of the run.
        direction: Who asks.
        groups: Groups of each content, of images and of captions.
        merged: Earlier rounds.
        rankings: An earlier round with scores.
    """

    def __init__(
        self,
        world: World,
        settings: MineSettings,
        direction: str,
        groups: tuple[dict[int, set[str]], dict[int, set[str]]],
        merged: list[Earlier],
        rankings: Earlier | None,
    ) -> None:
        self.world, self.settings, self.direction, self.groups = world, settings, direction, groups
        self.merged, self.rankings = merged, rankings
        self.query_ids, self.item_ids = world.ids(direction)
        self.query_contents, self.item_contents = world.contents(direction)

    def row(self, number: int) -> dict[str, Any]:
        """A row of the table."""
        k, query = self.settings.k, self.query_contents[number]
        ordered = self.ordered(query, set(self.item_contents) - self.positives(query))
        dropped = dict.fromkeys(CANDIDATE_FILTERS, 0)
        if self.settings.sampler.kind == "teacher":
            pool = self.named(query, self.rankings.lists[self.direction][number], dropped)
        else:
            pool = self.walk(query, ordered, dropped)
        chosen = self.ordered(query, self.sample(number, pool))
        late = dict.fromkeys(CANDIDATE_FILTERS, 0)
        known = [item for earlier in self.merged for item in earlier.lists[self.direction][number] if item not in chosen]
        extra = self.named(query, dict.fromkeys(known), late, seen=chosen)
        final = self.ordered(query, [*chosen, *extra])
        best = self.ordered(query, set(self.item_contents))
        plain = set(ordered[:k])
        ahead, count = 0, 0
        for item in best:
            if count < k and item not in plain:
                ahead += self.item_contents.count(item)
            count += item in plain
        positive_ids = sorted(
            name for name, item in zip(self.item_ids, self.item_contents, strict=True) if item in self.positives(query)
        )
        of_id = dict(zip(self.item_ids, self.item_contents, strict=True))
        return {
            "query_id": self.query_ids[number],
            "direction": self.direction,
            "candidate_ids": [self.first_id(item) for item in final],
            "similarities": [float(self.similarity(query, item)) for item in final],
            "positive_ids": positive_ids,
            "positive_similarities": [float(self.similarity(query, of_id[name])) for name in positive_ids],
            "dropped_positive": ahead,
            "dropped_duplicate": sum(self.item_contents.count(item) - 1 for item in final),
            **{f"dropped_{name}": number_ for name, number_ in dropped.items()},
            "passed": len(pool),
            "merged": len(extra),
            "dropped_merged": sum(late.values()),
        }

    def first_id(self, item: int) -> str:
        """The lowest id of a content."""
        return min(name for name, content in zip(self.item_ids, self.item_contents, strict=True) if content == item)

    def similarity(self, query: int, item: int) -> np.float32:
        """Of two contents."""
        return self.world.similarity(self.direction, query, item)

    def ordered(self, query: int, items: Any) -> list[int]:
        """By similarity, then by id."""
        return sorted(items, key=lambda item: (-self.similarity(query, item), self.first_id(item)))

    def pair(self, query: int, item: int) -> tuple[int, int]:
        """Image and caption."""
        return (query, item) if self.direction == "i2t" else (item, query)

    def positives(self, query: int) -> set[int]:
        """Contents that are annotated."""
        return {item for item in self.item_contents if self.pair(query, item) in self.world.positives()}

    def objection(self, query: int, item: int, better: list[int]) -> str | None:
        """The first filter that keeps an item out, ranks aside; `better` passed before it."""
        filters, similarity = self.settings.filters, float(self.similarity(query, item))
        lowest = min((float(self.similarity(query, other)) for other in self.positives(query)), default=math.inf)
        image, caption = self.pair(query, item)
        theirs = [text for other, text in self.world.positives() if other == image]
        vectors = self.world.caption_vectors.astype(float)
        objections = {
            "min_similarity": filters.min_similarity is not None and similarity < filters.min_similarity,
            "max_similarity": filters.max_similarity is not None and similarity > filters.max_similarity,
            "absolute_margin": filters.absolute_margin is not None and similarity > lowest - filters.absolute_margin,
            "relative_margin": filters.relative_margin is not None
            and lowest < math.inf
            and similarity > lowest - abs(lowest) * filters.relative_margin,
            "same_group": bool(self.groups[0].get(image, set()) & self.groups[1].get(caption, set())),
            "same_text": filters.same_text and _normal(caption) in [_normal(text) for text in theirs],
            "similar_text": filters.similar_text is not None
            and any(vectors[text] @ vectors[caption] >= filters.similar_text for text in theirs),
        }
        for name, objects in objections.items():
            if objects:
                return name
        same = self.direction == "i2t" and filters.same_text and _normal(item) in [_normal(other) for other in better]
        return "same_text" if same else None

    def walk(self, query: int, ordered: list[int], dropped: dict[str, int]) -> list[int]:
        """The pool, from the best item down."""
        filters, taken = self.settings.filters, []
        for rank, item in enumerate(ordered, 1):
            if len(taken) == self.settings.pool:
                break
            if rank < filters.first_rank:
                dropped["rank"] += 1
                continue
            reason = self.objection(query, item, taken)
            over = filters.last_rank is not None and rank > filters.last_rank
            if over or reason == "min_similarity":
                empty = max(self.settings.k - len(taken), 0)
                dropped["rank" if over else "min_similarity"] += min(empty, len(ordered) - rank + 1)
                break
            if reason:
                dropped[reason] += 1
            else:
                taken.append(item)
        return taken

    def named(self, query: int, items: Any, dropped: dict[str, int], seen: Any = ()) -> list[int]:
        """What passes of given items."""
        taken: list[int] = []
        for item in self.ordered(query, items):
            reason = self.objection(query, item, [*seen, *taken])
            if reason:
                dropped[reason] += 1
            else:
                taken.append(item)
        return taken

    def sample(self, number: int, pool: list[int]) -> list[int]:
        """What the sampler takes of a pool."""
        sampler, k, query = self.settings.sampler, self.settings.k, self.query_contents[number]
        key = query_keys(sampler.seed, [self.query_ids[number]])
        draw = {item: float(uniform(key, self.key(item))[0]) for item in pool}
        if sampler.kind == "top":
            return pool[:k]
        if sampler.kind == "random":
            return sorted(pool, key=draw.__getitem__)[:k]
        if sampler.kind == "softmax":
            noise = {item: -math.log(-math.log(draw[item])) for item in pool}
            return sorted(pool, key=lambda item: -(float(self.similarity(query, item)) / sampler.temperature + noise[item]))[:k]
        values = {item: float(self.similarity(query, item)) for item in pool}
        if sampler.kind == "teacher":
            values = {item: self.rankings.lists[self.direction][number][item] for item in pool}
        return self.spread(pool, values, draw)

    def spread(self, pool: list[int], values: dict[int, float], draw: dict[int, float]) -> list[int]:
        """Turn by turn, one item of each range of values, the highest range first."""
        strata: list[list[int]] = [[] for _ in range(self.settings.sampler.strata)]
        for item in sorted(pool, key=draw.__getitem__):
            width = (max(values.values()) - min(values.values())) or 1
            place = int((max(values.values()) - values[item]) / width * len(strata))
            strata[min(place, len(strata) - 1)].append(item)
        turns = [stratum[turn] for turn in range(len(pool)) for stratum in strata if turn < len(stratum)]
        return turns[: self.settings.k]

    def key(self, item: int) -> np.ndarray:
        """Of an item's content."""
        content = TEXTS[item].encode() if self.direction == "i2t" else bytes([item])
        return item_keys(stack_digests([bytes_digest(content)]))

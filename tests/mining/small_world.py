"""Corpora of a dozen items with many ties, copies and nearly equal texts, and earlier rounds over them; nothing is embedded."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.mining.inputs import open_inputs
from cprd_pipeline.mining.miners import Workshop
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.mining.sides import group_sides
from cprd_pipeline.models.embeddings import CorpusEmbeddings
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CANDIDATES, RANKINGS
from tests.tiny_encoders import write_corpus

DIRECTIONS = ("i2t", "t2i")
# Equal but for case and space: 0, 1 and 2; 3 and 4.
TEXTS = ["a dog", "A  dog", "a dog ", "Two cats", "two cats", "a bird", "a house", "a tree", "red", "blue", "green", "a b c"]


@dataclass(frozen=True)
class World:
    """A corpus with vectors.

    Args:
        images: Content of each image row; the row's id is in `image_ids`.
        captions: Index into `TEXTS` of each caption row.
        pairs: Annotated (image row, caption row).
        image_vectors: Of each image content, exact in float32.
        caption_vectors: Of each text of `TEXTS`.
        order: Seed of the ids, which are in another order than the rows.
    """

    images: list[int]
    captions: list[int]
    pairs: set[tuple[int, int]]
    image_vectors: np.ndarray
    caption_vectors: np.ndarray
    order: int

    def ids(self, direction: str) -> tuple[list[str], list[str]]:
        """Ids of the rows that ask, and of those that are asked for."""
        rng = np.random.default_rng(self.order)
        images = [f"i{number:02d}" for number in rng.permutation(len(self.images))]
        captions = [f"c{number:02d}" for number in rng.permutation(len(self.captions))]
        return (images, captions) if direction == "i2t" else (captions, images)

    def contents(self, direction: str) -> tuple[list[int], list[int]]:
        """Contents of the rows that ask, and of those that are asked for."""
        return (self.images, self.captions) if direction == "i2t" else (self.captions, self.images)

    def positives(self) -> set[tuple[int, int]]:
        """Annotated (image content, text)."""
        return {(self.images[image], self.captions[caption]) for image, caption in self.pairs}

    def similarity(self, direction: str, query: int, item: int) -> np.float32:
        """Of two contents."""
        image, caption = (query, item) if direction == "i2t" else (item, query)
        return np.float32(np.dot(self.image_vectors[image].astype(float), self.caption_vectors[caption].astype(float)))

    def write(self, folder: Path) -> Corpus:
        """The corpus folder, with one more image and caption in another split."""
        image_ids, caption_ids = self.ids("i2t")
        images = [(name, bytes([content]), "train") for name, content in zip(image_ids, self.images, strict=True)]
        captions = [(name, TEXTS[text], "train") for name, text in zip(caption_ids, self.captions, strict=True)]
        pairs = [(image_ids[image], caption_ids[caption]) for image, caption in sorted(self.pairs)]
        images.insert(1, ("elsewhere", b"elsewhere", "test"))
        captions.insert(1, ("elsewhere", "elsewhere", "test"))
        return Corpus(write_corpus(folder, images, captions, [*pairs, ("elsewhere", "elsewhere")]))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """At least four different images and texts."""
    images = [*range(draw(st.integers(4, 7)))]
    texts = draw(st.lists(st.sampled_from(range(len(TEXTS))), min_size=4, max_size=12, unique=True))
    images += draw(st.lists(st.sampled_from(images), max_size=2))
    captions = [*texts, *draw(st.lists(st.sampled_from(texts), max_size=3))]
    rows = st.tuples(st.integers(0, len(images) - 1), st.integers(0, len(captions) - 1))
    pairs = draw(st.sets(rows, max_size=8))
    eighths = st.integers(-8, 8).map(lambda number: number / 8)

    def vectors(count: int) -> np.ndarray:
        flat = draw(st.lists(eighths, min_size=2 * count, max_size=2 * count))
        return (np.array(flat, dtype=np.float32) / 2).reshape(count, 2)

    return World(images, captions, pairs, vectors(max(images) + 1), vectors(len(TEXTS)), draw(st.integers(0, 99)))


@dataclass(frozen=True)
class Earlier:
    """Lists of an earlier round: for each direction and query row the items' contents, and a teacher score of each."""

    lists: dict[str, list[dict[int, float]]]

    def write(self, world: World, corpus: Corpus, folder: Path, kind: str, made_from: str = "") -> Path:
        """Write a folder of candidates or rankings, cut at other places than the run's."""
        writer = OutputWriter(folder, kind, {"name": folder.name}, {"corpus": made_from or corpus.digest})
        schema = CANDIDATES if kind == "candidates" else RANKINGS
        for direction in DIRECTIONS:
            queries, items = world.ids(direction)
            contents = world.contents(direction)[1]
            first = {
                content: min(name for name, other in zip(items, contents, strict=True) if other == content) for content in contents
            }
            rows = []
            for name, listed in zip(queries, self.lists[direction], strict=True):
                row: dict[str, Any] = {field.name: [] if pa.types.is_list(field.type) else 0 for field in schema}
                row |= {"query_id": name, "direction": direction, "candidate_ids": [first[content] for content in listed]}
                row |= {name: list(listed.values()) for name in ("similarities", "teacher_scores") if name in schema.names}
                if kind == "rankings":
                    row["false_negative"] = [False] * len(listed)
                rows.append(row)
            for number, start in enumerate(range(0, len(rows), 3)):
                table = pa.Table.from_pylist(rows[start : start + 3], schema=schema)
                writer.write_table(f"{direction}-{number:05d}.parquet", table)
        writer.finish()
        return folder


@st.composite
def earlier_rounds(draw: st.DrawFn, world: World) -> Earlier:
    """Some non-positives of each query, with scores of which many are equal."""
    lists: dict[str, list[dict[int, float]]] = {}
    for direction in DIRECTIONS:
        queries, items = world.contents(direction)
        lists[direction] = []
        for query in queries:
            others = sorted({item for item in items if (query, item)[:: 1 if direction == "i2t" else -1] not in world.positives()})
            chosen = draw(st.lists(st.sampled_from(others), max_size=6, unique=True)) if others else []
            lists[direction].append({item: float(draw(st.integers(-4, 4))) for item in chosen})
    return Earlier(lists)


def write_groups(path: Path, column: str, groups: dict[str, list[str]]) -> Path:
    """A CSV file of (id, group)."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow([column, "group"])
        lines.writerows([name, group] for name, found in groups.items() for group in found)
    return path


def mined(world: World, corpus: Corpus, settings: MineSettings, part: int = 4) -> dict[str, list[dict[str, Any]]]:
    """Rows of both directions, made part by part."""
    split = corpus.split("train")
    sides = group_sides(corpus, split, settings.k)
    workshop = Workshop(settings, open_inputs(settings, corpus, "encoder"), split, sides, gpus=())
    workshop.check()
    images, captions = np.array(world.images)[sides.images.first], np.array(world.captions)[sides.captions.first]
    vectors = CorpusEmbeddings(world.image_vectors[images], world.caption_vectors[captions], "encoder", 0.0)
    rows: dict[str, list[dict[str, Any]]] = {}
    for direction in DIRECTIONS:
        miner = workshop.miner(direction, vectors)
        count = len(world.contents(direction)[0])
        rows[direction] = [row for start in range(0, count, part) for row in miner.part(start, start + part).to_pylist()]
    return rows

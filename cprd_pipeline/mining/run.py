"""The stage `mine`: embeds a split, searches both directions, writes candidates part by part."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cprd_pipeline.corpus.reader import Corpus, Split
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.mining.candidates import Direction, Miner, group_positives
from cprd_pipeline.mining.contents import Contents, group_contents
from cprd_pipeline.mining.search import ExactSearch, count_gpus
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.mining.summary import summarise
from cprd_pipeline.models.device import choose_device, choose_dtype
from cprd_pipeline.models.dual_encoder import encoder_fingerprint
from cprd_pipeline.models.embeddings import CorpusEmbeddings, embed_corpus
from cprd_pipeline.progress import progress_bar
from cprd_pipeline.store.folder import InputFolder, OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch, earlier_report

_DIRECTIONS: tuple[Direction, ...] = ("i2t", "t2i")


@dataclass(frozen=True)
class _Sides:
    """Both sides of a split by content, and the annotated pairs as rows of the split."""

    images: Contents
    captions: Contents
    pairs: np.ndarray[Any, np.dtype[np.int64]]


def run(settings: MineSettings) -> StageReport:
    """Mine candidates of a split in both directions.

    Raises:
        CorpusError: The split is empty, or one of its sides has a single content, so that nothing can be a negative.
        ModelError: The encoder cannot be loaded, or gave NaN or a zero vector.
        MissingDependencyError: faiss is not installed.
    """
    corpus = Corpus(settings.corpus)
    split = corpus.split(settings.split)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    fingerprint = encoder_fingerprint(settings.encoder, dtype)
    writer = OutputWriter(
        settings.output,
        "candidates",
        {"split": settings.split, "k": settings.k, "round": settings.round, "part_queries": settings.part_queries},
        {"corpus": corpus.digest, "encoder": fingerprint},
    )
    if writer.is_current():
        earlier = earlier_report(settings.report)
        if earlier is not None:
            return earlier
        return _report(settings, device, dtype, Stopwatch()).save(settings.report)
    watch = Stopwatch()
    _mine(settings, corpus, split, device, dtype, writer, watch)
    writer.finish()
    return _report(settings, device, dtype, watch).save(settings.report)


def _mine(
    settings: MineSettings,
    corpus: Corpus,
    split: Split,
    device: torch.device,
    dtype: torch.dtype,
    writer: OutputWriter,
    watch: Stopwatch,
) -> None:
    """Write the parts that are not there yet."""
    sides = _group(corpus, split)
    total = len(split.images) + len(split.captions)
    todo = {direction: _missing_parts(settings, sides, direction, writer) for direction in _DIRECTIONS}
    left = sum(stop - start for parts in todo.values() for _, start, stop in parts)
    if not left:
        return
    # FAISS is looked for before hours of embedding, not after.
    gpus = count_gpus() > 0 and device.type == "cuda"
    with watch.measure("embedding"):
        embeddings = embed_corpus(
            settings.encoder,
            corpus,
            split.images,
            split.captions,
            device=device,
            dtype=dtype,
            batch_size=settings.batch_size,
            workers=settings.workers,
        )
    with watch.measure("searching"), progress_bar("mining", total, "queries", total - left) as bar:
        for direction, parts in todo.items():
            if not parts:
                continue
            miner = _miner(settings, sides, embeddings, direction, gpus)
            for name, start, stop in parts:
                writer.write_table(name, miner.part(start, stop))
                bar.advance(stop - start, direction)


def _group(corpus: Corpus, split: Split) -> _Sides:
    images, captions = group_contents(corpus.images, split.images), group_contents(corpus.captions, split.captions)
    if min(len(images), len(captions)) < 2:
        raise CorpusError(
            f"{corpus.path}: split {split.name!r} has {len(images)} different images and {len(captions)} different captions",
            expected="at least two of each, since candidates are what does not belong to the query",
            do="prepare a larger corpus, or choose another split",
        )
    pairs = np.stack(
        [np.searchsorted(split.images, split.positives[:, 0]), np.searchsorted(split.captions, split.positives[:, 1])], axis=1
    )
    return _Sides(images, captions, pairs)


def _missing_parts(settings: MineSettings, sides: _Sides, direction: Direction, writer: OutputWriter) -> list[tuple[str, int, int]]:
    """Name, first query and end of the parts that a killed run did not finish."""
    count = len((sides.images if direction == "i2t" else sides.captions).ids)
    return [part for part in _parts(direction, count, settings.part_queries) if not writer.has(part[0])]


def _parts(direction: Direction, count: int, size: int) -> Iterator[tuple[str, int, int]]:
    for number, start in enumerate(range(0, count, size)):
        yield f"{direction}-{number:05d}.parquet", start, min(start + size, count)


def _miner(settings: MineSettings, sides: _Sides, embeddings: CorpusEmbeddings, direction: Direction, gpus: bool) -> Miner:
    if direction == "i2t":
        queries, query_vectors, items, item_vectors = sides.images, embeddings.images, sides.captions, embeddings.captions
        pairs = sides.pairs
    else:
        queries, query_vectors, items, item_vectors = sides.captions, embeddings.captions, sides.images, embeddings.images
        pairs = sides.pairs[:, ::-1]
    search = ExactSearch(item_vectors[items.first], query_block=settings.query_block, index_block=settings.index_block, gpus=gpus)
    return Miner(direction, queries, query_vectors, items, search, group_positives(pairs, queries, items), settings.k)


def _report(settings: MineSettings, device: torch.device, dtype: torch.dtype, watch: Stopwatch) -> StageReport:
    folder = InputFolder(settings.output, "candidates")
    directions = summarise(folder, settings.k)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    number_type = str(dtype).removeprefix("torch.")
    table = [("split", settings.split), ("round", settings.round)]
    for direction, results in directions.items():
        table.append((f"{direction} queries", f"{results['queries']:,}"))
        table.append((f"{direction} candidates", f"{results['candidates']:,}"))
        table.append((f"{direction} lists shorter than {settings.k}", f"{results['short_lists']:,}"))
        if results["recall_at_k"] is not None:
            table.append((f"{direction} recall@{settings.k}", f"{100 * results['recall_at_k']:.1f} %"))
    table += [("device", f"{where}, {number_type}"), ("candidates", str(settings.output))]
    return StageReport(
        stage="mine",
        settings=settings.as_json(),
        results={
            "encoder": folder.manifest.inputs["encoder"],
            "device": where,
            "dtype": number_type,
            "directions": directions,
        },
        table=table,
        seconds=dict(watch.seconds),
    )

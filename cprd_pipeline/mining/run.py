"""The stage `mine`: embeds a split, searches both directions, writes candidates part by part."""

from typing import Any

import numpy as np

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.mining.candidates import Direction, Miner
from cprd_pipeline.mining.gpus import choose_gpus
from cprd_pipeline.mining.inputs import open_inputs
from cprd_pipeline.mining.miners import DIRECTIONS, Workshop
from cprd_pipeline.mining.parts import check_parts, cut_parts
from cprd_pipeline.mining.recall import recall
from cprd_pipeline.mining.report import Ran, make_report
from cprd_pipeline.mining.search import ExactSearch, Excluded
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.mining.sides import Sides, group_sides
from cprd_pipeline.models.device import device_name, dtype_name
from cprd_pipeline.models.embeddings import CorpusEmbeddings, embed_corpus
from cprd_pipeline.models.encoder_identity import encoder_fingerprint
from cprd_pipeline.progress import progress_bar
from cprd_pipeline.store.conclusion import conclude, earlier_report
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch


def run(settings: MineSettings) -> StageReport:
    """Mine candidates of a split in both directions.

    Raises:
        CorpusError: The split is empty, one of its sides has a single content, so that nothing can be a negative, or the
            group file is not there or does not fit the corpus.
        SettingsError: k is larger than a side of the split, the parts are too small for it, or the index does not fit it.
        StoreError: An earlier round is missing, damaged, or of another corpus or split.
        ModelError: The encoder cannot be loaded, or gave NaN or a zero vector.
        MissingDependencyError: faiss is not installed.
    """
    corpus = Corpus(settings.corpus)
    split = corpus.split(settings.split)
    check_parts(max(len(split.images), len(split.captions)), settings.part_queries)
    device = device_name(settings.device)
    dtype = dtype_name(settings.dtype, device)
    inputs = open_inputs(settings, corpus, encoder_fingerprint(settings.encoder, dtype))
    writer = OutputWriter(settings.output, "candidates", settings.in_force(), inputs.digests())
    if (earlier := earlier_report(settings.report, writer)) is not None:
        return earlier
    watch = Stopwatch()
    with watch.measure("grouping"):
        sides = group_sides(corpus, split, settings.k)
    indexes: dict[str, dict[str, Any]] = {}
    if not writer.is_current():
        # FAISS is looked for before hours of embedding, not after.
        # Its GPUs are its own affair: torch may see none, and brought embeddings need no torch.
        workshop = Workshop(settings, inputs, split, sides, choose_gpus(settings.device, settings.index))
        if missing := _missing_parts(workshop, writer):
            with watch.measure("grouping"):
                workshop.check()
            with watch.measure("embedding"):
                embeddings = embed_corpus(
                    settings.encoder,
                    corpus,
                    split.images[sides.images.first],
                    split.captions[sides.captions.first],
                    device=device,
                    dtype=dtype,
                    batch_size=settings.batch_size,
                    workers=settings.workers,
                    fingerprint=inputs.encoder,
                )
            indexes = _mine(workshop, embeddings, missing, writer, watch)
        writer.finish()
    return conclude(make_report(settings, sides, Ran(device, dtype, indexes, watch.seconds)), settings.report, writer)


_Parts = dict[Direction, list[tuple[str, int, int]]]


def _missing_parts(workshop: Workshop, writer: OutputWriter) -> _Parts:
    """Name, first query and end of the parts of each direction that no killed run finished; directions without any are left out."""
    sides, size = workshop.sides, workshop.settings.part_queries
    missing: _Parts = {}
    for direction in DIRECTIONS:
        parts = [part for part in cut_parts(direction, _queries(sides, direction), size) if not writer.has(part[0])]
        if parts:
            missing[direction] = parts
    return missing


def _queries(sides: Sides, direction: Direction) -> int:
    return len((sides.images if direction == "i2t" else sides.captions).ids)


def _mine(
    workshop: Workshop, embeddings: CorpusEmbeddings, missing: _Parts, writer: OutputWriter, watch: Stopwatch
) -> dict[str, dict[str, Any]]:
    """Write the missing parts; says what the indexes were."""
    total = sum(_queries(workshop.sides, direction) for direction in DIRECTIONS)
    left = sum(stop - start for parts in missing.values() for _, start, stop in parts)
    indexes: dict[str, dict[str, Any]] = {}
    with progress_bar("mining", total, "queries", total - left) as bar:
        for direction, parts in missing.items():
            with watch.measure("indexing"):
                miner = workshop.miner(direction, embeddings)
            for name, start, stop in parts:
                with watch.measure("searching"):
                    table = miner.part(start, stop)
                with watch.measure("writing"):
                    writer.write_table(name, table)
                bar.advance(stop - start, direction)
            indexes[direction] = miner.search.describe()
            with watch.measure("recall of the index"):
                indexes[direction] |= _recall(workshop, miner, embeddings)
            # The GPUs let go of its index before that of the other direction comes there.
            del miner
    return indexes


def _recall(workshop: Workshop, miner: Miner, embeddings: CorpusEmbeddings) -> dict[str, float]:
    """Recall of an approximate index on a sample of the queries, spread evenly."""
    settings = workshop.settings
    count = min(settings.index.recall_sample, len(miner.queries.ids))
    if settings.index.kind == "exact" or not count:
        return {}
    rows = np.linspace(0, len(miner.queries.ids) - 1, count).astype(np.int64)
    asking = miner.queries.of_row[rows]
    _, contents = miner.positives.of(asking)
    excluded = Excluded(np.concatenate([[0], np.cumsum(miner.positives.counts()[asking])]), contents)
    items = embeddings.captions if miner.direction == "i2t" else embeddings.images
    exact = ExactSearch(items, query_block=settings.query_block, index_block=settings.index_block)
    return {"recall": recall(miner.search, exact, miner.query_vectors[asking], settings.k, excluded)}

"""The stage `prepare`: reads a source, decodes every image once, writes the corpus folder."""

import json
import shutil
from collections.abc import Sequence
from functools import partial
from typing import Any

from cprd_pipeline.corpus.formats.generated import World
from cprd_pipeline.corpus.formats.karpathy import read_annotations, read_karpathy
from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.images import DECODER_VERSION
from cprd_pipeline.corpus.inspection import Inspected, files_changed, inspect_images
from cprd_pipeline.corpus.relevance import relevance_name
from cprd_pipeline.corpus.scenes import WORLD_VERSION
from cprd_pipeline.corpus.settings import KarpathySettings, PrepareSettings
from cprd_pipeline.corpus.tables import build_tables
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.folder import InputFolder, OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch, earlier_report

COUNTS = "counts.json"


def run(settings: PrepareSettings) -> StageReport:
    """Write the corpus, or find that it is there already and that its image files are still the same.

    Raises:
        CorpusError: The source is incomplete or damaged, or more images are bad than the settings allow.
        MachineError: The disk is full, or a worker died.
    """
    watch = Stopwatch()
    annotations = read_annotations(settings.files.annotations) if settings.files else b""
    writer = _open_output(settings, annotations)
    if writer.is_current():
        with watch.measure("comparing"):
            changed = settings.files is not None and _files_changed(settings, settings.files)
        if not changed:
            return earlier_report(settings.report) or _report(settings, watch).save(settings.report)
        # The manifest knows the annotations, not the files: the corpus must go before it can be made anew.
        shutil.rmtree(settings.output)
        writer = _open_output(settings, annotations)
    _write_corpus(settings, annotations, writer, watch)
    return _report(settings, watch).save(settings.report)


def _open_output(settings: PrepareSettings, annotations: bytes) -> OutputWriter:
    shaping: dict[str, Any] = {"source": settings.source, "decoder": DECODER_VERSION}
    if settings.files is None:
        shaping |= {"image_root": ".", "world": WORLD_VERSION, "scenes": settings.scenes.as_json()}
        return OutputWriter(settings.output, "corpus", shaping, {})
    shaping |= {
        "image_root": str(settings.files.images),
        "restval_as_train": settings.files.restval_as_train,
        "max_images": settings.max_images,
        "bad_images": settings.bad_images,
    }
    return OutputWriter(settings.output, "corpus", shaping, {"annotations": bytes_digest(annotations).hex()})


def _write_corpus(settings: PrepareSettings, annotations: bytes, writer: OutputWriter, watch: Stopwatch) -> None:
    world = None
    with watch.measure("reading"):
        if settings.files is not None:
            records = read_karpathy(annotations, settings.files, settings.max_images)
        else:
            world = World(settings.scenes)
            records = world.records
    with watch.measure("decoding"):
        inspected = inspect_images(records.images, records.image_root, settings.workers, writer.state)
    _check_bad_images(settings, records, inspected)
    with watch.measure("writing"):
        tables = build_tables(records, inspected)
        writer.write_table("images.parquet", tables.images)
        writer.write_table("captions.parquet", tables.captions)
        writer.write_table("positives.parquet", tables.positives)
        if settings.bad_images != "error":
            writer.write_table("rejected.parquet", tables.rejected)
        writer.write_json(COUNTS, tables.counts)
    if world is not None:
        with watch.measure("relevance"):
            _write_relevance(world, settings, writer)
    writer.finish()


def _write_relevance(world: World, settings: PrepareSettings, writer: OutputWriter) -> None:
    for split, size in settings.scenes.splits.items():
        if size.relevance and not writer.has(relevance_name(split)):
            writer.write_part(relevance_name(split), partial(world.write_relevance, split))


def _check_bad_images(settings: PrepareSettings, records: Records, inspected: Sequence[Inspected]) -> None:
    bad = [(image, seen.reason) for image, seen in zip(records.images, inspected, strict=True) if seen.reason]
    if not bad or (len(bad) <= settings.most_bad_images * len(inspected) and len(bad) < len(inspected)):
        return
    image, reason = bad[0]
    raise CorpusError(
        f"{len(bad):,} of {len(inspected):,} images cannot be used, the first is {image.image_id}: {reason}",
        expected=f"at most {settings.most_bad_images:.3g} of all" if settings.most_bad_images < 1 else "at least one that can",
        do="mend the files, or leave bad ones out with bad_images: skip (or a larger share)",
    )


def _files_changed(settings: PrepareSettings, files: KarpathySettings) -> bool:
    """Whether image files differ from those that the finished corpus was made from."""
    folder = InputFolder(settings.output, "corpus")
    images = folder.table("images.parquet")
    rejected = [path for name in folder.part_names("rejected") for path in folder.table(name)["path"].to_pylist()]
    return files_changed(images["digest"].to_pylist(), images["path"].to_pylist(), rejected, files.images, settings.workers)


def _report(settings: PrepareSettings, watch: Stopwatch) -> StageReport:
    folder = InputFolder(settings.output, "corpus")
    counts: dict[str, Any] = json.loads(folder.part_path(COUNTS).read_text(encoding="utf-8"))
    by_split = [(f"{split}", f"{n['images']:,} images, {n['captions']:,} captions") for split, n in counts["splits"].items()]
    added = counts["positives"] - counts["annotated_positives"]
    table = [
        ("source", settings.source),
        *by_split,
        ("positives", f"{counts['positives']:,} ({added:,} of them by equal content)"),
        ("duplicates in a split", f"{counts['duplicate_images']:,} images, {counts['duplicate_captions']:,} captions"),
        ("leaks between splits", f"{counts['leaked_images']:,} images, {counts['leaked_captions']:,} captions"),
        ("rejected", f"{counts['rejected_images']:,} images with {counts['rejected_captions']:,} captions"),
        ("seconds", f"{sum(watch.seconds.values()):.1f}"),
        ("corpus", str(settings.output)),
    ]
    return StageReport("prepare", settings.as_json(), counts, table, watch.seconds)

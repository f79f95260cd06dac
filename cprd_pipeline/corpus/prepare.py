"""The stage `prepare`: reads a source, decodes every image once, writes the corpus folder."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from cprd_pipeline.corpus.formats.generated import World
from cprd_pipeline.corpus.formats.records import StoredImage
from cprd_pipeline.corpus.holdout import check_new_names
from cprd_pipeline.corpus.images import DECODER_VERSION
from cprd_pipeline.corpus.inspection import Inspected, files_changed, inspect_images
from cprd_pipeline.corpus.intake import Intake, Taken, check_bad, doubts_about_images
from cprd_pipeline.corpus.packing import pack_images
from cprd_pipeline.corpus.pause import without_collector
from cprd_pipeline.corpus.relevance import relevance_name
from cprd_pipeline.corpus.roots import Root
from cprd_pipeline.corpus.scenes import WORLD_VERSION
from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.corpus.tables import build_tables
from cprd_pipeline.store.conclusion import conclude, earlier_report
from cprd_pipeline.store.folder import InputFolder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch

COUNTS = "counts.json"


def run(settings: PrepareSettings) -> StageReport:
    """Write the corpus, or find that it is there already and that its image files are still the same.

    Raises:
        CorpusError: The source is incomplete or damaged, or more images or captions are bad than the settings allow.
        MachineError: The disk is full, or a worker died.
    """
    watch = Stopwatch()
    intake = None if settings.source == "scenes" else Intake(settings)
    writer = _open_output(settings, intake)
    if writer.is_current():
        with watch.measure("comparing"):
            changed = intake is not None and _files_changed(settings, intake.image_root)
        if not changed:
            return earlier_report(settings.report, writer) or conclude(_report(settings, watch), settings.report, writer)
        writer.renew()  # The manifest knows the annotations, not the files.
    _write_corpus(settings, intake, writer, watch)
    return conclude(_report(settings, watch), settings.report, writer)


def _open_output(settings: PrepareSettings, intake: Intake | None) -> OutputWriter:
    shaping: dict[str, Any] = {"decoder": DECODER_VERSION, "pack": settings.pack}
    if intake is None:
        shaping |= {"source": "scenes", "image_root": ".", "world": WORLD_VERSION, "scenes": settings.scenes.shaping()}
        return OutputWriter(settings.output, "corpus", shaping, {})
    shaping |= {"bad_images": settings.bad_images, "bad_captions": settings.bad_captions, "holdout": settings.holdout.shaping()}
    return OutputWriter(settings.output, "corpus", shaping | intake.shaping(), intake.inputs())


def _write_corpus(settings: PrepareSettings, intake: Intake | None, writer: OutputWriter, watch: Stopwatch) -> None:
    world = None
    with watch.measure("reading"):
        if intake is not None:
            taken = intake.read()
            check_new_names((image.split for image in taken.records.images), settings.holdout)
        else:
            world = World(settings.scenes)
            taken = Taken(world.records)
    bad_captions = [(bad.caption.caption_id, bad.reason) for bad in taken.bad_captions]
    check_bad(bad_captions, len(taken.records.captions) + len(bad_captions), settings.most_bad_captions, "captions")
    with watch.measure("decoding"):
        inspected = inspect_images(taken.records.images, taken.records.image_root, settings.workers, writer.state)
    bad_images = [(image.image_id, seen.reason) for image, seen in zip(taken.records.images, inspected, strict=True) if seen.reason]
    check_bad(bad_images, len(inspected), settings.most_bad_images, "images")
    with watch.measure("writing"):
        _write_tables(settings, taken, inspected, writer)
    if world is not None:
        with watch.measure("relevance"):
            _write_relevance(world, settings, writer)
    writer.finish()


def _write_tables(settings: PrepareSettings, taken: Taken, inspected: Sequence[Inspected], writer: OutputWriter) -> None:
    # Files inside of larger files are not left in place: the corpus' other readers know folders and shards only.
    packed = settings.pack or any(isinstance(image.stored, StoredImage) for image in taken.records.images)
    with without_collector():
        tables = build_tables(taken.records, inspected, taken.bad_captions, settings.holdout, packed=packed)
    if packed:
        pack_images(tables.kept, tables.digests, taken.records.image_root, writer, settings.workers)
    writer.write_table("images.parquet", tables.images)
    writer.write_table("captions.parquet", tables.captions)
    writer.write_table("positives.parquet", tables.positives)
    if settings.source != "scenes":
        writer.write_table("rejected.parquet", tables.rejected)
    writer.write_json(COUNTS, tables.counts | taken.counts | {"notes": taken.records.notes})


def _write_relevance(world: World, settings: PrepareSettings, writer: OutputWriter) -> None:
    for split, size in settings.scenes.splits.items():
        if size.relevance and not writer.has(relevance_name(split)):
            writer.write_part(relevance_name(split), partial(world.write_relevance, split))


def _files_changed(settings: PrepareSettings, root: Root) -> bool:
    """Whether image files differ from those that the finished corpus was made from; files inside larger ones are inputs."""
    folder = InputFolder(settings.output, "corpus")
    images = folder.table("images.parquet")
    rejected = [path for name in folder.part_names("rejected") for path in folder.table(name)["path"].to_pylist() if path]
    paths = images["path"].to_pylist()
    if None in paths:
        return False
    return files_changed(images["digest"].to_pylist(), paths, rejected, root, settings.workers)


def _report(settings: PrepareSettings, watch: Stopwatch) -> StageReport:
    folder = InputFolder(settings.output, "corpus")
    counts: dict[str, Any] = json.loads(folder.part_path(COUNTS).read_text(encoding="utf-8"))
    by_split = [(f"{split}", f"{n['images']:,} images, {n['captions']:,} captions") for split, n in counts["splits"].items()]
    table = [
        ("source", str(folder.manifest.settings["source"])),
        *by_split,
        *tell_counts(counts),
        ("seconds", f"{sum(watch.seconds.values()):.1f}"),
        ("corpus", str(settings.output)),
    ]
    return StageReport("prepare", settings.as_json(), counts, table, watch.seconds)


def _where(counts: dict[str, Any]) -> str:
    """Where rejected items are named."""
    return " (rejected.parquet)" if counts["rejected_images"] or counts["bad_captions"] else ""


def tell_counts(counts: dict[str, Any]) -> list[tuple[str, str]]:
    """The report's rows about a corpus: rows about things that did not occur are left out."""
    added = counts["positives"] - counts["annotated_positives"]
    length = counts["caption_characters"]
    rows = [
        ("positives", f"{counts['positives']:,} ({added:,} of them by equal content)"),
        ("duplicates in a split", f"{counts['duplicate_images']:,} images, {counts['duplicate_captions']:,} captions"),
        ("leaks between splits", f"{counts['leaked_images']:,} images, {counts['leaked_captions']:,} captions"),
        ("rejected", f"{counts['rejected_images']:,} images with {counts['rejected_captions']:,} captions{_where(counts)}"),
    ]
    if counts["bad_captions"]:
        rows.append(("rejected by themselves", f"{counts['bad_captions']:,} captions"))
    if counts["unpaired_images"] or counts["unpaired_captions"]:
        rows.append(("unpaired", f"{counts['unpaired_images']:,} images, {counts['unpaired_captions']:,} captions"))
    if counts.get("unlisted_images"):
        rows.append(("in no list", f"{counts['unlisted_images']:,} images with {counts['unlisted_captions']:,} captions, left out"))
    if counts.get("unknown_listed_names"):
        rows.append(("listed, not there", f"{counts['unknown_listed_names']:,} names"))
    if length:
        rows.append(
            (
                "characters a caption",
                f"{length['shortest']:,} to {length['longest']:,}, median {length['median']:,}, 95 % up to {length['p95']:,}",
            )
        )
    images = sum(n["images"] for n in counts["splits"].values()) + counts["rejected_images"]
    notes = [*doubts_about_images(counts["rejected_images"], images), *counts.get("notes", [])]
    return rows + [("note", note) for note in notes[:5]]

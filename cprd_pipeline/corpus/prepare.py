"""Stage `prepare`: any source becomes the corpus folder that all other stages read."""

import multiprocessing
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cprd_pipeline.corpus.formats.generated import generate_scenes
from cprd_pipeline.corpus.formats.karpathy import read_karpathy
from cprd_pipeline.corpus.formats.records import ImageRecord, Source
from cprd_pipeline.corpus.images import decode_image, ignore_interrupts, read_inside
from cprd_pipeline.corpus.relevance import relevance_name
from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.progress import progress_bar
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.folder import OutputWriter
from cprd_pipeline.store.report import StageReport, Stopwatch, earlier_report
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES, REJECTED

_CHUNK = 32  # pictures per task of the worker pool


class _Checked(NamedTuple):
    """What one full decoding told of a picture; `reason` is set instead when it is bad."""

    digest: bytes
    width: int
    height: int
    reason: str = ""


def run(settings: PrepareSettings) -> StageReport:
    """Read the source, decode every picture once, write the corpus.

    Raises:
        CorpusError: The source cannot be read, or a picture is bad and `bad_images` is `error`.
    """
    watch = Stopwatch()
    with watch.measure("reading"):
        source = _limit(_read(settings), settings.max_images)
    shaping = {
        "source": settings.source,
        "image_root": source.image_root,
        "bad_images": settings.bad_images,
        "max_images": settings.max_images,
    }
    writer = OutputWriter(settings.output, "corpus", shaping, {"source": source.digest})
    if writer.is_current() and (earlier := earlier_report(settings.report)):
        return earlier
    with watch.measure("decoding"):
        checked = _check_images(source, settings.workers)
    _refuse_bad_images(source, checked, settings)
    with watch.measure("writing"):
        results = _write(writer, source, checked)
    return _report(settings, results, watch).save(settings.report)


def _read(settings: PrepareSettings) -> Source:
    if settings.source == "scenes":
        return generate_scenes(settings.scenes)
    assert settings.karpathy is not None
    return read_karpathy(settings.karpathy)


def _limit(source: Source, most: int | None) -> Source:
    """The first `most` images of each split, with their captions."""
    if most is None:
        return source
    seen: Counter[str] = Counter()
    kept = set()
    for image in source.images:
        seen[image.split] += 1
        if seen[image.split] <= most:
            kept.add(image.image_id)
    positives = [pair for pair in source.positives if pair[0] in kept]
    described = {caption for _, caption in positives}
    return Source(
        source.image_root,
        source.digest,
        [image for image in source.images if image.image_id in kept],
        [caption for caption in source.captions if caption.caption_id in described],
        positives,
    )


def _check_images(source: Source, workers: int) -> list[_Checked]:
    check = partial(_check_image, Path(source.image_root))
    checked = []
    with progress_bar("decoding", len(source.images), "images") as bar, _mapper(workers) as mapper:
        for result in mapper(check, source.images):
            checked.append(result)
            bar.advance()
    return checked


@contextmanager
def _mapper(workers: int) -> Iterator[Any]:
    """`map` in this process, or over a pool of workers."""
    if not workers:
        yield map
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=ignore_interrupts) as pool:
        yield partial(pool.map, chunksize=_CHUNK)


def _check_image(root: Path, image: ImageRecord) -> _Checked:
    try:
        content = image.content if image.content is not None else read_inside(root, image.path or "")
        picture = decode_image(content)
    except CorpusError as error:
        return _Checked(b"", 0, 0, str(error))
    return _Checked(bytes_digest(content), picture.width, picture.height)


def _refuse_bad_images(source: Source, checked: list[_Checked], settings: PrepareSettings) -> None:
    bad = [(image, found.reason) for image, found in zip(source.images, checked, strict=True) if found.reason]
    if bad and settings.bad_images == "error":
        image, reason = bad[0]
        raise CorpusError(
            f"{len(bad)} of {len(checked)} images are bad (first: {image.image_id}: {reason})",
            do="mend or remove them, or set bad_images: skip to leave them out and list them in rejected.parquet",
        )
    if len(bad) == len(checked):
        raise CorpusError("not one image could be read", expected="at least one", do="check the image root and the file names")


def _write(writer: OutputWriter, source: Source, checked: list[_Checked]) -> dict[str, Any]:
    good = [(image, found) for image, found in zip(source.images, checked, strict=True) if not found.reason]
    rejected = [(image, found) for image, found in zip(source.images, checked, strict=True) if found.reason]
    kept = {image.image_id for image, _ in good}
    given = [pair for pair in source.positives if pair[0] in kept]
    described = {caption for _, caption in given}
    captions = [caption for caption in source.captions if caption.caption_id in described]
    image_digest = {image.image_id: found.digest for image, found in good}
    caption_digest = {caption.caption_id: bytes_digest(caption.text.encode()) for caption in captions}
    split_of_image = {image.image_id: image.split for image, _ in good}
    split_of_caption = {caption.caption_id: caption.split for caption in captions}
    positives = close_positives(given, image_digest, caption_digest, split_of_image, split_of_caption)

    columns: list[list[Any]] = [
        [image.image_id for image, _ in good],
        [image.path for image, _ in good],
        [image.content for image, _ in good],
        [found.digest for _, found in good],
        [found.width for _, found in good],
        [found.height for _, found in good],
        [image.split for image, _ in good],
    ]
    writer.write_table("images.parquet", pa.table(columns, schema=IMAGES))
    columns = [
        [caption.caption_id for caption in captions],
        [caption.text for caption in captions],
        [caption_digest[caption.caption_id] for caption in captions],
        [caption.split for caption in captions],
    ]
    writer.write_table("captions.parquet", pa.table(columns, schema=CAPTIONS))
    writer.write_table("positives.parquet", pa.table([list(side) for side in zip(*positives, strict=True)], schema=POSITIVES))
    if rejected:
        columns = [
            [image.image_id for image, _ in rejected],
            [image.path for image, _ in rejected],
            [f.reason for _, f in rejected],
        ]
        writer.write_table("rejected.parquet", pa.table(columns, schema=REJECTED))
    for split, relevance in source.relevance.items():
        writer.write_part(relevance_name(split), lambda path, array=relevance: np.save(path, array, allow_pickle=False))  # type: ignore[misc]
    writer.finish()
    return {
        "images": len(good),
        "captions": len(captions),
        "positives": len(positives),
        "positives_given": len(given),
        "rejected": len(rejected),
        "splits": dict(sorted(Counter(split_of_image.values()).items())),
        "duplicate_images": len(good) - len(set(image_digest.values())),
        "duplicate_captions": len(captions) - len(set(caption_digest.values())),
        "leaked_images": _leaks(image_digest, split_of_image),
        "leaked_captions": _leaks(caption_digest, split_of_caption),
    }


def close_positives(
    given: list[tuple[str, str]],
    image_digest: dict[str, bytes],
    caption_digest: dict[str, bytes],
    split_of_image: dict[str, str],
    split_of_caption: dict[str, str],
) -> list[tuple[str, str]]:
    """Annotated pairs, and those of the same content in the same split: the same picture or text under another id.

    Args:
        given: (image id, caption id) as annotated.
        image_digest: Content digest of each image.
        caption_digest: Content digest of each caption.
        split_of_image: Split of each image.
        split_of_caption: Split of each caption.

    Returns:
        Distinct pairs in the order of images and captions in the dictionaries.
    """
    images, captions = defaultdict(list), defaultdict(list)
    for image, digest in image_digest.items():
        images[digest].append(image)
    for caption, digest in caption_digest.items():
        captions[digest].append(caption)
    contents = {(image_digest[image], caption_digest[caption]) for image, caption in given}
    closed = {
        (image, caption)
        for image_content, caption_content in contents
        for image in images[image_content]
        for caption in captions[caption_content]
        if split_of_image[image] == split_of_caption[caption]
    } | set(given)
    image_row = {image: row for row, image in enumerate(image_digest)}
    caption_row = {caption: row for row, caption in enumerate(caption_digest)}
    return sorted(closed, key=lambda pair: (image_row[pair[0]], caption_row[pair[1]]))


def _leaks(digests: dict[str, bytes], splits: dict[str, str]) -> int:
    """Contents that lie in more than one split."""
    where: defaultdict[bytes, set[str]] = defaultdict(set)
    for item, digest in digests.items():
        where[digest].add(splits[item])
    return sum(len(names) > 1 for names in where.values())


def _report(settings: PrepareSettings, results: dict[str, Any], watch: Stopwatch) -> StageReport:
    splits = ", ".join(f"{name} {count:,}" for name, count in results["splits"].items())
    table = [
        ("corpus", f"{settings.output} from {settings.source}"),
        ("images", f"{results['images']:,} ({splits})"),
        ("captions", f"{results['captions']:,}"),
        ("positives", f"{results['positives']:,} ({results['positives'] - results['positives_given']:,} by equal content)"),
        ("duplicates", f"{results['duplicate_images']:,} images, {results['duplicate_captions']:,} captions"),
        ("in more than one split", f"{results['leaked_images']:,} images, {results['leaked_captions']:,} captions"),
        ("rejected images", f"{results['rejected']:,}"),
    ]
    return StageReport("prepare", settings.as_json(), results, table, watch.seconds)

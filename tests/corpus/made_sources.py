"""The same six pictures and their twelve captions in every format that `prepare` reads."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cprd_pipeline.corpus.formats.places import open_sources
from cprd_pipeline.corpus.formats.recognition import choose_format
from cprd_pipeline.corpus.formats.records import Records
from cprd_pipeline.corpus.settings import FilesSettings
from tests.corpus.conftest import picture

NAMES = [f"{number}.png" for number in range(6)]
TEXTS = {name: [f"picture {number}, text {c}" for c in range(2)] for number, name in enumerate(NAMES)}


def read(paths: Any, source: str = "auto", **settings: Any) -> Records:
    """Recognise and read."""
    files = FilesSettings.model_validate({"paths": paths} | settings)
    sources = open_sources(files)
    return choose_format(source, sources, files).read(sources, files)


def texts_of(records: Records) -> dict[str, list[str]]:
    """Captions of each image."""
    found: dict[str, list[str]] = {image.image_id: [] for image in records.images}
    for caption in records.captions:
        for owner in caption.image_ids:
            found[owner].append(caption.text)
    return found


def save_pictures(folder: Path) -> None:
    """The files themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(picture(number))


def karpathy(folder: Path) -> Path:
    """Karpathy's JSON."""
    images = [
        {"filename": name, "split": "train", "sentences": [{"raw": t, "sentid": n * 2 + c} for c, t in enumerate(TEXTS[name])]}
        for n, name in enumerate(NAMES)
    ]
    return _text(folder / "dataset.json", json.dumps({"images": images}))


def coco(folder: Path) -> Path:
    """COCO's captions JSON."""
    images = [{"id": number, "file_name": name} for number, name in enumerate(NAMES)]
    notes = [{"id": n * 2 + c, "image_id": n, "caption": t} for n, name in enumerate(NAMES) for c, t in enumerate(TEXTS[name])]
    return _text(folder / "captions_val2017.json", json.dumps({"images": images, "annotations": notes}))


def tokens(folder: Path) -> Path:
    """A token file."""
    return _text(folder / "made.token.txt", "".join(f"{n}#{c}\t{t}\n" for n in NAMES for c, t in enumerate(TEXTS[n])))


def results(folder: Path) -> Path:
    """Flickr30k's results.csv."""
    rows = "".join(f"{n}| {c}| {t}\n" for n in NAMES for c, t in enumerate(TEXTS[n]))
    return _text(folder / "results.csv", f"image_name| comment_number| comment\n{rows}")


def table(folder: Path, delimiter: str = ",", name: str = "captions.csv") -> Path:
    """A CSV file with quoted captions."""
    rows = [delimiter.join(("image", "caption"))] + [delimiter.join((n, f'"{t}"')) for n in NAMES for t in TEXTS[n]]
    return _text(folder / name, "\r\n".join(rows) + "\r\n")


def json_lines(folder: Path) -> Path:
    """One image a line."""
    return _text(folder / "made.jsonl", "".join(json.dumps({"file_name": n, "captions": TEXTS[n]}) + "\n" for n in NAMES))


def parquet(folder: Path) -> Path:
    """Paths and lists of captions."""
    path = folder / "made.parquet"
    pq.write_table(pa.table({"path": NAMES, "captions": [TEXTS[n] for n in NAMES], "unused": [1] * 6}), path, row_group_size=4)
    return path


def parquet_bytes(folder: Path) -> Path:
    """Hugging Face's struct with the files' bytes, and no path that means anything."""
    path = folder / "bytes.parquet"
    images = [{"bytes": picture(number), "path": "x"} for number in range(6)]
    pq.write_table(pa.table({"image": images, "text": [TEXTS[n] for n in NAMES], "image_id": NAMES}), path, row_group_size=4)
    return path


def dataset(folder: Path, splits: Sequence[str] = ("train",), **columns: Any) -> Path:
    """What `Dataset.save_to_disk` writes, or `DatasetDict.save_to_disk` for several splits."""
    columns = columns or {
        "image": [{"bytes": picture(number), "path": None} for number in range(6)],
        "caption": [TEXTS[n] for n in NAMES],
        "image_id": NAMES,
    }
    home = folder / "saved"
    rows = len(next(iter(columns.values()))) // len(splits)
    for number, split in enumerate(splits):
        part = home if len(splits) == 1 else home / split
        part.mkdir(parents=True)
        share = pa.table({name: values[number * rows : (number + 1) * rows] for name, values in columns.items()})
        with pa.ipc.new_stream(part / "data-00000-of-00001.arrow", share.schema) as stream:
            stream.write_table(share, max_chunksize=2)
        _text(part / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}))
        _text(part / "dataset_info.json", "{}")
    if len(splits) > 1:
        _text(home / "dataset_dict.json", json.dumps({"splits": list(splits)}))
    return home


def shard(folder: Path, members: dict[str, bytes] | None = None, name: str = "00000.tar") -> Path:
    """A tar shard with two captions an image, numbered."""
    if members is None:
        members = {}
        for number, image in enumerate(NAMES):
            members[image] = picture(number)
            members |= {f"{number}.{c}.txt": text.encode() for c, text in enumerate(TEXTS[image])}
    path = folder / name
    with tarfile.open(path, "w") as archive:
        for member, content in members.items():
            header = tarfile.TarInfo(member)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def folder_of_images(folder: Path) -> Path:
    """A text file beside each image, one caption a line."""
    home = folder / "pictures"
    save_pictures(home)
    for name, texts in TEXTS.items():
        _text((home / name).with_suffix(".txt"), "\n".join(texts) + "\n")
    return home


FORMATS: dict[str, Callable[[Path], Path]] = {
    "karpathy": karpathy,
    "coco_captions": coco,
    "flickr_tokens": tokens,
    "flickr30k_results": results,
    "csv": table,
    "jsonl": json_lines,
    "parquet": parquet,
    "webdataset": shard,
    "datasets": dataset,
    "folder": folder_of_images,
}


def _text(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path

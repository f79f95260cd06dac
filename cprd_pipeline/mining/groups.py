"""The user's groups of images or captions (a product, a video), read from a file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jaxtyping import Int64

from cprd_pipeline.corpus.reader import Corpus, Split, look_up_column
from cprd_pipeline.errors import CorpusError, first_line
from cprd_pipeline.mining.contents import Contents
from cprd_pipeline.mining.relations import SameGroup
from cprd_pipeline.mining.search import Excluded
from cprd_pipeline.mining.sides import Sides, pairs_by_owner
from cprd_pipeline.store.atomic import checksum

_READABLE = "a .csv or .parquet file"
_ID_COLUMNS = ("image_id", "caption_id")


def digest_groups(path: Path) -> str:
    """Digest of the file's bytes, by which it is a part of what the output is made from.

    Raises:
        CorpusError: There is no such file. A folder of Parquet files, which Arrow reads too, has no one digest.
    """
    if path.is_dir():
        raise CorpusError(f"{path}: is a folder", expected=_READABLE, do="write its parts into one file")
    if not path.is_file():
        raise CorpusError(f"{path}: there is no such file", expected=_READABLE, do="mend filters.groups")
    return checksum(path)


def same_group(path: Path, column: str, corpus: Corpus, split: Split, sides: Sides) -> SameGroup:
    """The relation of sharing a group.

    The file gives groups to one side; the other side has those of the items that it is annotated with. An item may have
    several groups (several lines), or none, and then it is in nobody's group.

    Args:
        path: CSV or Parquet file with a column `image_id` or `caption_id`.
        column: Its column with the group.
        corpus: The corpus; lines about its other splits are passed over.
        split: The split.
        sides: Of the split.

    Raises:
        CorpusError: The file cannot be read, lacks a column or a value, or names an id that is not in the corpus.
    """
    ids, groups, of_images = _read(path, column)
    items, rows = (corpus.images, split.images) if of_images else (corpus.captions, split.captions)
    named, other = (sides.images, sides.captions) if of_images else (sides.captions, sides.images)
    found = look_up_column(items, ids, f"{path}, {_ID_COLUMNS[not of_images]}")
    places = np.minimum(np.searchsorted(rows, found), len(rows) - 1)
    inside = rows[places] == found
    own = pairs_by_owner(named.of_row[places[inside]], groups[inside], len(named))
    positives = sides.captions_of_images if of_images else sides.images_of_captions
    inherited = _inherit(own, positives, other)
    return SameGroup(own, inherited) if of_images else SameGroup(inherited, own)


def _inherit(own: Excluded, positives: Excluded, other: Contents) -> Excluded:
    """Groups of the other side: those of the items that each of its items is annotated with."""
    pair, groups = own.of(np.repeat(np.arange(len(positives.offsets) - 1), positives.counts()))
    return pairs_by_owner(positives.positions[pair], groups, len(other))


def _read(path: Path, column: str) -> tuple[pa.StringArray, Int64[np.ndarray, " N"], bool]:
    """Ids, the number of each one's group, and whether they are images."""
    table = _table(path)
    sides = [name for name in _ID_COLUMNS if name in table.column_names]
    if [table.column_names.count(name) for name in (*_ID_COLUMNS, column)] not in ([1, 0, 1], [0, 1, 1]):
        raise CorpusError(
            f"{path}: has the columns {', '.join(table.column_names)}",
            expected=f"either image_id or caption_id, and {column}, each once",
            do="rename its columns, or set filters.group_column",
        )
    (ids, groups) = (_texts(path, table, name) for name in (sides[0], column))
    # No text at all is no group either: CSV cannot tell the two apart, Parquet can.
    if empty := sum(pc.fill_null(pc.equal(values, ""), True).true_count for values in (ids, groups)):
        raise CorpusError(
            f"{path}: {empty} empty values",
            expected="an id and a group on every line",
            do="leave out the lines of items without a group",
        )
    if any(pc.any(pc.match_substring(values, "\n")).as_py() for values in (ids, groups)):
        raise CorpusError(
            f"{path}: a value goes over several lines", expected="one line an item", do="look for a quote that is not closed"
        )
    numbers = groups.dictionary_encode().indices.to_numpy().astype(np.int64)
    return ids, numbers, sides[0] == "image_id"


def _texts(path: Path, table: pa.Table, name: str) -> pa.StringArray:
    try:
        return table[name].cast(pa.string()).combine_chunks()
    except pa.ArrowException:
        raise CorpusError(f"{path}: {name} is of type {table[name].type}", expected="text or numbers") from None


def _table(path: Path) -> pa.Table:
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise CorpusError(f"{path}: cannot tell what kind of file this is", expected=_READABLE, do="mend filters.groups")
    try:
        return pq.read_table(path) if path.suffix.lower() == ".parquet" else _csv(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read ({first_line(error)})", expected=f"{_READABLE} in UTF-8") from None


def _csv(path: Path) -> pa.Table:
    """Every column as text: an id such as 0042 is no number."""
    # By path: Arrow reads a Python file ahead on a thread of its own, and with a bad line the process then may never end.
    with pa_csv.open_csv(path) as reader:
        header = reader.schema.names
    convert = pa_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True, null_values=[""])
    return pa_csv.read_csv(path, convert_options=convert)

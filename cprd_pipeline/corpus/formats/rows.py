"""Rows of any table become records."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cprd_pipeline.corpus.formats.collector import Collector
from cprd_pipeline.corpus.formats.columns import Columns
from cprd_pipeline.corpus.formats.records import StoredImage
from cprd_pipeline.corpus.settings import FilesSettings
from cprd_pipeline.errors import CorpusError


class Row(NamedTuple):
    """One row.

    Args:
        where: File and line or row, for messages.
        values: Value of each column; a missing one counts as null. The image is a path or a `StoredImage`.
        name: Id of a stored image where no column holds one.
    """

    where: str
    values: Mapping[str, Any]
    name: str = ""


class RowReader:
    """Adds rows to a collector.

    Args:
        found: Where records go.
        columns: What the columns are called.
        settings: What to do with rows that lack an image or a caption.
    """

    def __init__(self, found: Collector, columns: Columns, settings: FilesSettings) -> None:
        self._found = found
        self._columns = columns
        self._keep_unpaired = settings.unpaired == "keep"

    def add(self, row: Row, split: str | None) -> None:
        """Add one row's image and captions.

        Args:
            row: The row.
            split: Of its file, where the settings name one.

        Raises:
            CorpusError: A value is of a wrong kind, or what the collector refuses.
        """
        if split is None and self._columns.split is not None:
            split = _text(row, self._columns.split)
            if not split:
                raise CorpusError(
                    f"{row.where}: {self._columns.split} is empty", expected="a split's name", do="mend or remove this row"
                )
        image_id = self._add_image(row, split)
        texts = self._texts(row)
        ids = self._caption_ids(row, len(texts))
        for text, caption_id in zip(texts, ids, strict=True):
            if caption_id and image_id is not None and self._found.has_caption(caption_id):
                self._found.share_caption(caption_id, text, image_id, row.where)
            else:
                self._found.add_caption(caption_id, text, image_id, row.where, split)

    def _add_image(self, row: Row, split: str | None) -> str | None:
        column = self._columns.image or ""
        image_id = _identity(row, self._columns.image_id)
        image = row.values.get(column)
        if isinstance(image, StoredImage):
            return self._found.add_stored_image(image_id or row.name, image, split, row.where, again=True)
        path = _text(row, column)
        if path:
            return self._found.add_image(image_id, path, split, row.where, again=True)
        if self._keep_unpaired:
            return None
        raise CorpusError(
            f"{row.where}: {column} is empty",
            expected="an image file",
            do="mend the row, or keep unpaired captions with files.unpaired: keep",
        )

    def _texts(self, row: Row) -> list[str]:
        """Captions of a row. Null is none; an empty one is refused later, but is none where unpaired images are welcome."""
        value = row.values.get(self._columns.caption or "")
        values = value if isinstance(value, list) else [value]
        wrong = next((text for text in values if text is not None and not isinstance(text, str)), None)
        if wrong is not None:
            raise CorpusError(f"{row.where}: {self._columns.caption} is {str(wrong)[:60]!r}", expected="text, or a list of texts")
        return [text for text in values if text or (text == "" and not self._keep_unpaired)]

    def _caption_ids(self, row: Row, count: int) -> list[str]:
        column = self._columns.caption_id
        value = row.values.get(column) if column else None
        if value is None or value == "":
            return [""] * count
        ids = [_checked_identity(one, row, column) for one in (value if isinstance(value, list) else [value])]
        if count and len(ids) != count:
            raise CorpusError(
                f"{row.where}: {len(ids)} of {column} for {count} captions", expected="one id a caption", do="mend the row"
            )
        return ids[:count]


def _text(row: Row, column: str) -> str:
    value = row.values.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CorpusError(f"{row.where}: {column} is {str(value)[:60]!r}", expected="text", do="mend the row, or files.columns")
    return "" if value.isspace() else value


def _identity(row: Row, column: str | None) -> str:
    value = row.values.get(column) if column else None
    return "" if value is None else _checked_identity(value, row, column)


def _checked_identity(value: object, row: Row, column: str | None) -> str:
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise CorpusError(f"{row.where}: {column} is {str(value)[:60]!r}", expected="a whole number or text", do="mend the row")
    return str(value)

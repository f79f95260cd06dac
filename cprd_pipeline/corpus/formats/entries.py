"""A JSON object of an annotation file with the place where it stands, so that a missing key can be named."""

from typing import Any, NamedTuple

from cprd_pipeline.errors import CorpusError


class Entry(NamedTuple):
    """One JSON object.

    Args:
        content: The parsed value, which may be no object at all.
        where: File and key, such as `captions.json: images[3]`.
    """

    content: Any
    where: str

    def get(self, key: str, kinds: tuple[type, ...], kind_name: str) -> Any:
        """A value of one of the kinds.

        Raises:
            CorpusError: It is missing or of another kind.
        """
        value = self.content.get(key) if isinstance(self.content, dict) else None
        if not isinstance(value, kinds) or isinstance(value, bool):
            found = "is missing" if value is None else f"is {str(value)[:60]!r}"
            raise CorpusError(f"{self.where}: {key} {found}", expected=kind_name, do="mend or remove this entry")
        return value

    def name(self, key: str) -> str:
        """A string that holds more than spaces, for file names and splits.

        Raises:
            CorpusError: It is missing, no text, or empty.
        """
        value: str = self.get(key, (str,), "text")
        if not value.strip():
            raise CorpusError(f"{self.where}: {key} is empty", expected="text", do="mend or remove this entry")
        return value

    def identity(self, key: str) -> str:
        """A whole number or a text, as text.

        Raises:
            CorpusError: It is missing or something else.
        """
        return str(self.get(key, (int, str), "a number"))

"""The bytes of an image's file, wherever it lies: under the image root, inside a larger file, or in memory."""

from cprd_pipeline.corpus.formats.records import ImageRecord
from cprd_pipeline.corpus.roots import Root, read_inside
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import bytes_digest


def read_original(root: Root, image: ImageRecord) -> bytes:
    """The file's bytes.

    Args:
        root: What its path is relative to.
        image: The image.

    Raises:
        CorpusError: They cannot be read; the message is the reason.
        MachineError: A remote root cannot be reached.
    """
    content = image.content  # once: it may be read from a disk each time
    return read_inside(root, image.path or "") if content is None else content


def read_unchanged(root: Root, image: ImageRecord, digest: bytes) -> bytes:
    """The file's bytes, which must be those that `prepare` saw.

    Args:
        root: As for `read_original`.
        image: The image.
        digest: Of the bytes.

    Raises:
        CorpusError: The file is gone or has changed; the message is the reason.
        MachineError: A remote root cannot be reached.
    """
    content = read_original(root, image)
    if bytes_digest(content) != digest:
        raise CorpusError("its bytes changed since the corpus was prepared", do="run `cprd-pipeline prepare` again")
    return content

"""Vectors of one encoder and one side on the disk, in chunks, found again by content digest.

A chunk is three files: `<name>.npy` (float32 [N, D]), `<name>.digests.npy` (uint8 [N, 16]) and, written last,
`<name>.json` with the checksum of the vectors; without it the chunk does not exist. The name is the digest of the
chunk's digests, so that two processes never write different content under one name.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cprd_pipeline.errors import StoreError
from cprd_pipeline.models.vector_room import room_for
from cprd_pipeline.store.atomic import checksum, write_file, write_json
from cprd_pipeline.store.fingerprint import DigestArray, bytes_digest, digest_keys

Vectors = npt.NDArray[np.float32]


class EmbeddingCache:
    """The chunks of a folder.

    Args:
        folder: Made when the first chunk is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._verified: set[str] = set()
        self._scan()

    def missing(self, digests: DigestArray) -> npt.NDArray[np.bool_]:
        """Which contents have no vector yet.

        A chunk that is needed and whose vectors changed on the disk is reported, set aside, and counts as missing.

        Args:
            digests: uint8 [N, 16].

        Returns:
            bool [N].
        """
        while True:
            entries = self._find(digests)
            needed = np.unique(self._chunk[entries[entries >= 0]])
            damaged = [name for name in (self._names[chunk] for chunk in needed) if not self._is_whole(name)]
            if not damaged:
                return entries < 0
            for name in damaged:
                self._set_aside(name)
            self._scan()

    def gather(self, digests: DigestArray) -> Vectors:
        """Vectors of contents, float32 [N, D]; very many of them lie in a file (see `vector_room`).

        Args:
            digests: uint8 [N, 16]; N >= 1; none of them missing.

        Raises:
            StoreError: A content has no vector.
            MachineError: There is no room on the disk.
        """
        entries = self._find(digests)
        if (entries < 0).any():
            raise StoreError(f"{self.folder}: {int((entries < 0).sum())} embeddings are not there", do="run the same command again")
        chunks, rows = self._chunk[entries], self._row[entries]
        by_chunk = np.argsort(chunks, kind="stable")
        needed = np.unique(chunks)
        vectors = room_for(len(digests), self._mapped(self._names[needed[0]]).shape[1], self.folder)
        for chunk, wanted in zip(needed, np.split(by_chunk, np.searchsorted(chunks[by_chunk], needed[1:])), strict=True):
            vectors[wanted] = self._mapped(self._names[chunk])[rows[wanted]]
        return vectors

    def add(self, digests: DigestArray, vectors: Vectors) -> None:
        """Write one chunk; it exists once this returns.

        Args:
            digests: uint8 [N, 16], distinct.
            vectors: float32 [N, D].
        """
        name = bytes_digest(digests.tobytes()).hex()
        write_file(self._vectors(name), lambda path: np.save(path, vectors))
        write_file(self._digests(name), lambda path: np.save(path, digests))
        write_json(self._marker(name), {"vectors": checksum(self._vectors(name)), "rows": len(digests)})
        self._verified.add(name)

    def refresh(self) -> None:
        """See the chunks that were written since this object was made."""
        self._scan()

    def _scan(self) -> None:
        named = sorted(path.stem for path in self.folder.glob("*.json"))
        found = {name: digests for name in named if (digests := self._read_digests(name)) is not None}
        self._names, parts = list(found), list(found.values())
        keys = digest_keys(np.concatenate(parts)) if parts else np.empty(0, dtype="S16")
        # Two writers may have embedded the same content: the first chunk by name wins, in every run.
        self._keys, first = np.unique(keys, return_index=True)
        self._chunk = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[first]
        self._row = np.concatenate([np.arange(len(part)) for part in parts])[first] if parts else np.empty(0, dtype=np.int64)

    def _read_digests(self, name: str) -> DigestArray | None:
        """The contents of a chunk, which its name is the digest of; what is damaged is set aside."""
        try:
            digests: DigestArray = np.load(self._digests(name), allow_pickle=False)
            whole = bytes_digest(digests.tobytes()).hex() == name
        except (OSError, ValueError, EOFError):
            whole = False
        if whole:
            return digests
        self._set_aside(name)
        return None

    def _find(self, digests: DigestArray) -> npt.NDArray[np.int64]:
        """Entry of each content in the sorted keys, -1 where there is none."""
        keys = digest_keys(digests)
        if not len(self._keys):
            return np.full(len(keys), -1, dtype=np.int64)
        entries = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[entries] == keys, entries, -1)

    def _mapped(self, name: str) -> Vectors:
        mapped: Vectors = np.load(self._vectors(name), mmap_mode="r", allow_pickle=False)
        return mapped

    def _is_whole(self, name: str) -> bool:
        if name not in self._verified:
            path = self._vectors(name)
            if not path.is_file() or checksum(path) != self._expected(name):
                return False
            self._verified.add(name)
        return True

    def _expected(self, name: str) -> str | None:
        """The checksum that the vectors were written with; None where the marker is damaged."""
        try:
            return str(json.loads(self._marker(name).read_text(encoding="utf-8"))["vectors"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _set_aside(self, name: str) -> None:
        aside = self.folder / "damaged"
        aside.mkdir(exist_ok=True)
        for path in (self._marker(name), self._vectors(name), self._digests(name)):
            if path.exists():
                os.replace(path, aside / path.name)
        print(f"{self._vectors(name)}: changed after it was written; set aside in {aside}, made again", file=sys.stderr)  # noqa: T201

    def _vectors(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _digests(self, name: str) -> Path:
        return self.folder / f"{name}.digests.npy"

    def _marker(self, name: str) -> Path:
        return self.folder / f"{name}.json"

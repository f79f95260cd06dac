"""Output folders in the making: parts written one by one, the manifest last, the whole put into place.

An output is staged in `<cache>/state/<stage>/<fingerprint>/output`, where a killed run finds its finished parts again,
and put into place whole. DVC deletes outputs before it runs a stage, so nothing resumable may lie inside one.
"""

import json
import os
import shutil
import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.atomic import (
    checksum,
    make_folder,
    place_folder,
    sync_file,
    sync_folder,
    write_bytes,
    write_file,
    write_json,
)
from cprd_pipeline.store.folder import InputFolder, Manifest, Part, cache_folder
from cprd_pipeline.store.leftovers import make_aside, remove_leftovers
from cprd_pipeline.store.places import MANIFEST, check_cache, check_output_place
from cprd_pipeline.store.run_lock import hold, let_go

JOURNAL = "_parts"
ROW_GROUP_ROWS = 65_536


class OutputWriter:
    """Stages one output folder; every finished part survives a kill.

    Args:
        target: Where the finished folder is to lie.
        kind: As in `Manifest`.
        settings: As in `Manifest`.
        inputs: As in `Manifest`.
        leads: Whether this process writes; of several that make one output together, one does.

    Raises:
        StoreError: Something that no stage of this kind wrote lies at the target, or another process is making it.
        MachineError: Target or state cannot be written.
    """

    def __init__(
        self, target: Path, kind: str, settings: Mapping[str, Any], inputs: Mapping[str, str], *, leads: bool = True
    ) -> None:
        self.target = target
        self._leads = leads
        self._plan = Manifest(kind, dict(settings), dict(inputs))
        self.state = cache_folder() / "state" / kind / self.identity
        self.folder = self.state / "output"
        self._parts: dict[str, Part] = {}
        # A run that fails is done with its state when its writer is gone.
        self._let_go: Callable[[], object] | None = None
        self._current = self._is_there()
        if not self._current:
            check_output_place(target, kind)
            check_cache(cache_folder())
            holds = self._hold()
            # Whoever held it until now may have finished.
            self._current = self._is_there()
            if holds and not self._current:
                self._take_up()

    def _hold(self) -> bool:
        """Keep other processes off the state; whether it is this one's to change."""
        if not self._leads:
            return False
        hold(self.state, self.target)
        self._let_go = weakref.finalize(self, let_go, self.state)
        return True

    def _take_up(self) -> None:
        """Go on with what a killed run left."""
        make_folder(self.folder)
        for folder in (self.state.parent, self.folder):
            remove_leftovers(folder)
        (self.folder / MANIFEST).unlink(missing_ok=True)  # of a run that got as far as putting it into place
        self._parts = self._recover()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that shape the output."""
        return self._plan.settings

    @property
    def inputs(self) -> dict[str, str]:
        """Digests of what the output is made from."""
        return self._plan.inputs

    def renew(self) -> None:
        """Make the output anew although it is there, because what it was made from has changed and its identity does not tell.

        The one that is there stays until the new one is finished.
        """
        if self._hold():
            if not self._renewal.is_file():
                # Of the output that is there, which a run did not conclude.
                shutil.rmtree(self.folder, ignore_errors=True)
                shutil.rmtree(self.state / JOURNAL, ignore_errors=True)
            self._take_up()
            write_json(self._renewal, {})
        self._current = False

    @property
    def _renewal(self) -> Path:
        return self.state / "_renewal.json"

    @property
    def identity(self) -> str:
        """Of the output: digest of all that determines its bytes."""
        return self._plan.identity

    def is_current(self) -> bool:
        """Whether the target already holds exactly this output, whole and unchanged."""
        return self._current

    def _is_there(self) -> bool:
        try:
            existing = InputFolder(self.target, self._plan.kind)
            if existing.manifest.identity != self.identity:
                return False
            existing.verify()
        except StoreError:
            return False
        return True

    def has(self, name: str) -> bool:
        """Whether a part is already there, from this run or from one that was killed."""
        return name in self._parts

    def write_table(self, name: str, table: pa.Table) -> None:
        """Add a Parquet part."""
        self.write_part(name, lambda path: write_parquet(path, table), rows=table.num_rows)

    def write_json(self, name: str, content: Any) -> None:
        """Add a JSON part."""
        write_json(self.folder / name, content)
        self._record(name, None)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Add a part from bytes."""
        write_bytes(self.folder / name, content)
        self._record(name, None)

    def write_part(self, name: str, write: Callable[[Path], None], rows: int | None = None) -> None:
        """Add a part that `write` puts at the temporary path it is given."""
        write_file(self.folder / name, write)
        self._record(name, rows)

    def adopt(self, name: str) -> None:
        """Add a file that a library wrote into `folder` by itself (a model folder, say); libraries do not sync."""
        sync_file(self.folder / name)
        sync_folder((self.folder / name).parent)
        self._record(name, None)

    def finish(self) -> Manifest:
        """Write the manifest and put the folder into place; the resumable state stays until `forget_state`.

        Raises:
            StoreError: A part is gone: another run of the same command, at the same time, has moved it into place.
        """
        if gone := [name for name in self._parts if not (self.folder / name).is_file()]:
            raise StoreError(
                f"{self.folder / gone[0]}: is gone; another run of the same command was at work here",
                do="run one at a time; start this one again",
            )
        manifest = Manifest(
            self._plan.kind, self._plan.settings, self._plan.inputs, tuple(self._parts[name] for name in sorted(self._parts))
        )
        write_json(self.folder / MANIFEST, asdict(manifest))
        for stray in self.folder.rglob("*"):
            if stray.is_file() and stray.name != MANIFEST and str(stray.relative_to(self.folder)) not in self._parts:
                stray.unlink()
        place_folder(self.folder, self.target)
        self._current = True
        return manifest

    def forget_state(self) -> None:
        """Remove what a killed run would go on from, unless another process is at work there, on another output of this identity.

        Not before all that follows from the output is written: DVC removes the output of a stage that failed after it.
        """
        if not self.state.is_dir():
            return
        try:
            holds = self._let_go is not None or self._hold()
        except StoreError:
            holds = False
        if holds and self._let_go is not None:
            # Out of the way first: who finds no state makes its own, which must not be removed with this one.
            aside = make_aside(self.state.parent)
            os.rename(self.state, aside / "state")
            self._let_go()
            self._let_go = None
            shutil.rmtree(aside, ignore_errors=True)

    def _journal(self, name: str) -> Path:
        return self.state / JOURNAL / f"{name.replace('/', '~')}.json"

    def _record(self, name: str, rows: int | None) -> None:
        part = Part(name, checksum(self.folder / name), rows)
        # One small file a part: appending to a shared journal could tear a line.
        write_json(self._journal(name), asdict(part))
        self._parts[name] = part

    def _recover(self) -> dict[str, Part]:
        """Parts of a killed run whose bytes are still what was written; others are reported and set aside."""
        found: dict[str, Part] = {}
        for entry in sorted((self.state / JOURNAL).glob("*.json")):
            part = Part(**json.loads(entry.read_text(encoding="utf-8")))
            path = self.folder / part.name
            if path.is_file() and checksum(path) == part.checksum:
                found[part.name] = part
                continue
            entry.unlink()
            if path.is_file():
                aside = self.state / "damaged" / part.name
                aside.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, aside)
                print(f"{path}: changed after it was written; made again; kept as {aside} until the run ends", file=sys.stderr)
        return found


def write_parquet(path: Path, table: pa.Table) -> None:
    """One way of writing Parquet, so that equal tables are equal bytes."""
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_statistics=True)

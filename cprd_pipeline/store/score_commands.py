"""What the commands `scores list`, `verify`, `compact`, `export` and `import` do and say."""

import sys
from pathlib import Path
from typing import Any

from cprd_pipeline.errors import StoreError
from cprd_pipeline.store.report import StageReport, Stopwatch
from cprd_pipeline.store.score_check import forget, summary, teachers_in, verify
from cprd_pipeline.store.score_compaction import Compaction, compact
from cprd_pipeline.store.score_exchange import export_scores, import_scores
from cprd_pipeline.store.scores import ScoreStore, default_store

_SHORT = 12


def list_scores(uri: str | None) -> StageReport:
    """What the store holds of each teacher.

    Raises:
        StoreError: There is no store, or a file of it is damaged.
    """
    store, watch = _store(uri), Stopwatch()
    with watch.measure("reading"):
        found = summary(store)
    names = _short_names([one.teacher for one in found])
    table = [("store", store.uri)]
    for one in found:
        doubled = f", {one.doubled:,} of them doubled" if one.doubled else ""
        table += [
            (names[one.teacher], f"{_count(one.rows, 'score')} ({', '.join(one.directions)}){doubled}"),
            ("", f"{_count(one.files, 'file')}, {_size(one.bytes, one.rows)}"),
        ]
    if not found:
        table.append(("scores", "none"))
    teachers = [{**one._asdict(), "bytes_per_score": round(one.bytes / max(1, one.rows), 2)} for one in found]
    return StageReport("scores list", {"store": store.uri}, {"teachers": teachers}, table, watch.seconds)


def verify_scores(uri: str | None, *, forget_damaged: bool) -> StageReport:
    """Compare every file with its digest; with `forget_damaged`, take the damaged ones out of the table.

    Raises:
        StoreError: Files are damaged or gone, each named on stderr, and they were not to be forgotten; or there is no store.
    """
    store, watch = _store(uri), Stopwatch()
    with watch.measure("reading"):
        check = verify(store)
    for file, wrong in check.damaged:
        sys.stderr.write(f"{file.path}: {wrong} ({_count(file.rows, 'score')})\n")
    lost = sum(file.rows for file, _ in check.damaged)
    if check.damaged and not forget_damaged:
        first, wrong = check.damaged[0]
        raise StoreError(
            f"{store.uri}: {len(check.damaged):,} of {_count(check.files, 'file')} damaged (first: {first.path}: {wrong})",
            do="restore them from a copy, or give their scores up with `cprd-pipeline scores verify --forget-damaged`: "
            f"then {lost:,} scores are bought again",
        )
    if check.damaged:
        forget(store, [file for file, _ in check.damaged])
    whole, rows = check.files - len(check.damaged), check.rows - lost
    size = check.bytes - sum(file.size for file, _ in check.damaged)
    table = [
        ("store", store.uri),
        ("verified", f"{_count(whole, 'file')}, {_count(rows, 'score')}, {_size(size, rows)}"),
        ("without a digest", f"{_count(check.undigested, 'file')} of another writer: readable, nothing more is known"),
        ("forgotten", f"{_count(len(check.damaged), 'file')}, {_count(lost, 'score')}, to be bought again"),
        ("not in the table", f"{_count(check.stray, 'file')}: replaced, or of a killed run; compact deletes them"),
    ]
    counts = {"store": 1, "verified": 1, "without a digest": check.undigested, "forgotten": lost, "not in the table": check.stray}
    results = {**check._asdict(), "damaged": [[file.path, wrong] for file, wrong in check.damaged], "forgotten": lost}
    shown = [(what, value) for what, value in table if counts[what]]
    return StageReport("scores verify", {"store": store.uri, "forget_damaged": forget_damaged}, results, shown, watch.seconds)


def compact_scores(uri: str | None, teacher: str | None) -> StageReport:
    """Rewrite many small files into few large ones and delete what is not needed any more.

    Raises:
        StoreError: Another process uses the store, or a file of it is damaged; or there is no store or no such teacher.
        MachineError: The disk is full.
    """
    store, watch = _store(uri), Stopwatch()
    chosen = _choose(store, teacher)
    with watch.measure("compaction"):
        done, deleted = compact(store, chosen)
    names = _short_names(list(teachers_in(store)))
    table = [("store", store.uri)]
    for one in done:
        table += _compaction_rows(names[one.teacher], one)
    local = store.table.disk.folder is not None
    table.append(
        (
            "deleted",
            _count(deleted, "file") if local else "nothing: an object store has no lock against writers; vacuum it yourself",
        )
    )
    results: dict[str, Any] = {"compacted": [one._asdict() for one in done], "deleted": deleted}
    settings = {"store": store.uri, "teacher": teacher}
    return StageReport("scores compact", settings, results, table, watch.seconds, up_to_date=not done and not deleted)


def _compaction_rows(name: str, one: Compaction) -> list[tuple[str, str]]:
    dropped = f", {one.doubled:,} doubled dropped" if one.doubled else ""
    return [
        (name, f"{_count(one.rows, 'score')}{dropped}"),
        ("before", f"{_count(one.files_before, 'file')}, {_size(one.bytes_before, one.rows + one.doubled)}"),
        ("after", f"{_count(one.files, 'file')}, {_size(one.bytes, one.rows)}"),
    ]


def export_to(uri: str | None, target: Path, teacher: str | None) -> StageReport:
    """Write the scores to one Parquet file.

    Raises:
        StoreError: The file is there already, a file of the store is damaged, or there is no store or no such teacher.
        MachineError: The disk is full.
    """
    store, watch = _store(uri), Stopwatch()
    chosen = _choose(store, teacher)
    with watch.measure("writing"):
        rows = export_scores(store, target, chosen)
    size = target.stat().st_size
    table = [
        ("store", store.uri),
        ("exported", f"{_count(rows, 'score')} of {_count(len(chosen), 'teacher')}, {_size(size, rows)}"),
        ("file", str(target)),
    ]
    results = {"rows": rows, "teachers": chosen, "bytes": size}
    settings = {"store": store.uri, "file": str(target), "teacher": teacher}
    return StageReport("scores export", settings, results, table, watch.seconds)


def import_from(uri: str | None, source: Path) -> StageReport:
    """Add an exported file's scores to the store.

    Raises:
        StoreError: The file is not a whole export, or the store cannot be read or written.
        MachineError: The disk is full.
    """
    store, watch = _store(uri), Stopwatch()
    with watch.measure("importing"):
        done = import_scores(store, source)
    table = [
        ("store", store.uri),
        ("new", _count(done.new, "score")),
        ("already there", f"{done.same:,}"),
        ("conflicting", f"{done.conflicting:,} (the lower score counts: the file's {done.lowered:,} times)"),
    ]
    if not done.conflicting:
        table.pop()
    settings = {"store": store.uri, "file": str(source)}
    return StageReport("scores import", settings, done._asdict(), table, watch.seconds, up_to_date=not done.new + done.lowered)


def _store(uri: str | None) -> ScoreStore:
    return ScoreStore(uri or default_store())


def _choose(store: ScoreStore, prefix: str | None) -> list[str]:
    """The teachers that a beginning of a fingerprint names; without one all."""
    teachers = list(teachers_in(store))
    if prefix is None:
        return teachers
    found = [teacher for teacher in teachers if teacher.startswith(prefix)]
    if prefix in found:
        return [prefix]
    if len(found) != 1:
        names = _short_names(teachers)
        raise StoreError(
            f"--teacher {prefix}: {len(found)} teachers of {store.uri} begin so",
            expected=f"one of {', '.join(names[teacher] for teacher in found or teachers)}",
            do="see `cprd-pipeline scores list`",
        )
    return found


def _short_names(teachers: list[str]) -> dict[str, str]:
    """Fingerprints cut to twelve characters, or to as many as tell them apart."""
    length = _SHORT
    while len({teacher[:length] for teacher in teachers}) < len(set(teachers)):
        length += 1
    return {teacher: teacher[:length] for teacher in teachers}


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _size(size: int, rows: int) -> str:
    total = f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
    return f"{total}, {size / max(1, rows):.2f} bytes a score"

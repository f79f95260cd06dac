"""The stage `score-teacher`: buys the scores that the store lacks, then sorts the candidates by them."""

from dataclasses import dataclass, field
from typing import Any

import torch

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.device import choose_device
from cprd_pipeline.models.teachers import load_teacher, teacher_adapter, teacher_fingerprint
from cprd_pipeline.progress import progress_bar
from cprd_pipeline.scoring.backoff import BudgetedTeacher
from cprd_pipeline.scoring.candidates import open_candidates, read_part, read_parts
from cprd_pipeline.scoring.pairs import DIRECTIONS, Direction, PairSpace
from cprd_pipeline.scoring.plan import Plan, make_plan, wanted_pairs
from cprd_pipeline.scoring.rankings import Ranker, rules_of
from cprd_pipeline.scoring.scorer import Scorer, Shelf
from cprd_pipeline.scoring.settings import ScoreSettings
from cprd_pipeline.scoring.summary import summarise
from cprd_pipeline.store.folder import InputFolder, OutputWriter, cache_folder
from cprd_pipeline.store.report import StageReport, Stopwatch, earlier_report
from cprd_pipeline.store.scores import KnownScores, ScoreStore

_NAMED_CAPTIONS = 10


@dataclass
class _Run:
    """What all steps of a run share."""

    settings: ScoreSettings
    corpus: Corpus
    candidates: InputFolder
    directions: tuple[Direction, ...]
    shelf: Shelf
    watch: Stopwatch = field(default_factory=Stopwatch)

    def known(self, space: PairSpace) -> KnownScores:
        """Scores of the corpus's pairs that the store has."""
        return self.shelf.store.known(self.shelf.teacher, self.shelf.direction, space.images.digests, space.captions.digests)


def run(settings: ScoreSettings) -> StageReport:
    """Score every pair of the candidates, and of their positives, that was never scored; write the rankings.

    Raises:
        StoreError: The candidates are of another corpus, or the store is damaged.
        ModelError: The teacher cannot be loaded, or a score is not finite.
        CorpusError: An image is not what was prepared.
    """
    corpus = Corpus(settings.corpus)
    candidates = open_candidates(settings, corpus)
    roles = teacher_adapter(settings.teacher).roles
    fingerprint = teacher_fingerprint(settings.teacher)
    writer = OutputWriter(
        settings.output,
        "rankings",
        rules_of(settings),
        {"corpus": corpus.digest, "candidates": candidates.manifest.digest, "teacher": fingerprint},
    )
    current = writer.is_current()
    earlier = earlier_report(settings.report)
    if current and earlier is not None:
        return earlier
    shelf = Shelf(ScoreStore(settings.store or str(cache_folder() / "scores")), fingerprint, roles)
    directions = DIRECTIONS if roles == "both" else (roles,)
    work = _Run(settings, corpus, candidates, directions, shelf)
    space = PairSpace(corpus.images, corpus.captions)
    with work.watch.measure("planning"):
        wanted, requested = wanted_pairs(read_parts(candidates, space, directions))
        # Rankings that are whole hold every score: only the report is made again then.
        plan = make_plan(wanted, requested, wanted if current else work.known(space).codes)
    facts = _score(work, space, plan) if len(plan.todo) else {}
    if not current:
        with work.watch.measure("ranking"):
            _rank(work, space, writer)
        writer.finish()
    return _report(work, plan, facts).save(settings.report)


def _score(work: _Run, space: PairSpace, plan: Plan) -> dict[str, Any]:
    """Load the teacher and score; what the report says about it."""
    settings = work.settings
    device = choose_device(settings.device)
    with work.watch.measure("loading"):
        teacher = load_teacher(settings.teacher, device)
    scorer = Scorer(
        work.corpus, space, BudgetedTeacher(teacher, settings.image_batch, settings.token_budget), work.shelf, settings.workers
    )
    with work.watch.measure("scoring"):
        scorer.run(plan, settings.part_pairs)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "token_budget": scorer.teacher.token_budget,
        "image_batch": scorer.teacher.image_batch,
        "cut_captions": _cut_captions(space, scorer, teacher),
    }


def _cut_captions(space: PairSpace, scorer: Scorer, teacher: CrossEncoder) -> dict[str, Any]:
    first = sorted(scorer.cut_captions)[:_NAMED_CAPTIONS]
    return {
        "count": len(scorer.cut_captions),
        "max_text_tokens": teacher.max_text_tokens,
        "first": [space.captions.items.ids[space.captions.rows[caption]] for caption in first],
    }


def _rank(work: _Run, space: PairSpace, writer: OutputWriter) -> None:
    """Write the parts that a killed run did not finish, from what the store now says."""
    ranker = Ranker(space, work.known(space), work.settings)
    parts = [(direction, name) for direction in work.directions for name in work.candidates.part_names(f"{direction}-")]
    with progress_bar("ranking", len(parts), "parts", sum(writer.has(name) for _, name in parts)) as bar:
        for direction, name in parts:
            if not writer.has(name):
                writer.write_table(name, ranker.table(read_part(work.candidates, space, direction, name)))
                bar.advance()


def _report(work: _Run, plan: Plan, facts: dict[str, Any]) -> StageReport:
    settings = work.settings
    scored = len(plan.todo)
    seconds = work.watch.seconds.get("scoring")
    rate = round(scored / seconds, 2) if seconds else None
    speed = f" ({rate:,.0f} pairs/s on {facts['device']}, {settings.teacher.dtype})" if rate else ""
    figures = summarise(InputFolder(settings.output, "rankings"), work.candidates, settings.false_negative_margin)
    table = [
        ("requested pairs", f"{plan.requested:,}"),
        ("named twice", f"{plan.duplicate:,}"),
        ("already in the store", f"{plan.stored:,} (saved)"),
        ("scored", f"{scored:,}{speed}"),
    ]
    if facts and facts["cut_captions"]["count"]:
        cut = facts["cut_captions"]
        table.append(("captions cut", f"{cut['count']:,} longer than {cut['max_text_tokens']} tokens (first: {cut['first'][0]})"))
    for direction, found in figures["directions"].items():
        table += _direction_rows(direction, found)
    table.append(("rankings", str(settings.output)))
    results = {
        "teacher": work.shelf.teacher,
        "requested": plan.requested,
        "duplicate": plan.duplicate,
        "stored": plan.stored,
        "scored": scored,
        "pairs_per_second": rate,
        **facts,
        **figures,
    }
    return StageReport("score-teacher", settings.as_json(), results, table, dict(work.watch.seconds))


def _direction_rows(direction: str, found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [(f"{direction} queries", f"{found['queries']:,}")]
    if found["first_is_no_positive"] is not None:
        rows.append((f"{direction} a candidate above every positive", f"{found['first_is_no_positive']:.1%} of the queries"))
    if found["false_negative_share"] is not None:
        rows.append((f"{direction} probable false negatives", f"{found['false_negative_share']:.2%} of the candidates"))
    rows.append((f"{direction} valid candidates", f"{found['valid']:,}"))
    if found["kendall_tau"] is not None:
        rows.append((f"{direction} agreement with the miner", f"Kendall tau {found['kendall_tau']:.2f}"))
    return rows

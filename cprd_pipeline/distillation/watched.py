"""What was seen while a student trained, for its report: evaluations, speed, and the state of the teacher's targets."""

from collections.abc import Mapping
from typing import Any

from cprd_pipeline.distillation.collapse import TeacherTargets
from cprd_pipeline.distillation.history import History
from cprd_pipeline.distillation.log import LogRow
from cprd_pipeline.distillation.pace import Pace
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.distillation.teacher_loss import list_rules
from cprd_pipeline.progress import announce, compact
from cprd_pipeline.store.report import save_series


def warn_before_training(settings: DistillSettings, targets: TeacherTargets | None) -> None:
    """Say on stderr what is known to leave a student worse than its settings promise."""
    if targets is not None and targets.collapsed:
        announce(
            f"warning: the teacher's targets have collapsed: the first item of a list takes {targets.top_share:.1%} on average "
            f"(entropy {targets.entropy_share:.1%} of the largest), so that the order of the rest is not learned; "
            "raise teacher_temperature"
        )
    if targets is not None and targets.flat:
        announce(
            "warning: the teacher's scores of a list are all the same, so that there is no order to learn; "
            "look at the scores in the report of score-teacher"
        )
    if settings.items == "bank" and settings.objective in ("cprd", "kl") and list_rules(settings).easy_negatives != "bank":
        announce(
            "warning: a bank's features take no gradient, and nothing pushes a query away from those at random: in the demo "
            f"such students collapsed; set {settings.objective}.easy_negatives to bank"
        )


def watched_results(history: History, pace: Pace, targets: TeacherTargets | None) -> dict[str, Any]:
    """What the report's results hold beyond the run itself; figures of speed are those of this process."""
    return {
        "best": history.best,
        "stopped_early": history.stopped,
        "teacher_targets": targets._asdict() | {"collapsed": targets.collapsed, "flat": targets.flat} if targets else None,
        "pairs_per_s": pace.pairs_per_s,
        "waiting_share": pace.waiting_share,
    }


def watched_rows(settings: DistillSettings, history: History, pace: Pace, targets: TeacherTargets | None) -> list[tuple[str, str]]:
    """The same for the terminal."""
    rows = []
    if pace.pairs_per_s is not None:
        speed = f"{compact(pace.pairs_per_s)} pairs/s, {pace.waiting_share:.0%} of the time waiting for pictures"
        rows.append(("speed", speed))
    if history.best is not None:
        rows.append((f"evaluated on {settings.eval_split}", evaluation_of_saved(settings, history)))
    if history.stopped:
        rows.append(("stopped early", f"{settings.patience} evaluations brought nothing better"))
    cosines = [row["gradient_cosine"] for row in history.rows if "gradient_cosine" in row]
    if cosines:
        rows.append(("cosine of the two gradients", f"{sum(cosines) / len(cosines):.2f} on average, {cosines[-1]:.2f} at the end"))
    if targets is not None and targets.collapsed:
        rows.append(("teacher's targets", f"COLLAPSED: the first item takes {targets.top_share:.1%}; raise teacher_temperature"))
    if targets is not None and targets.flat:
        rows.append(("teacher's targets", "FLAT: the scores of a list are all the same"))
    return rows


def batch_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """For the terminal: what batches are made of, where that is more than random pairs.

    Args:
        facts: Of the sampler.
    """
    rows = []
    if neighbours := facts.get("neighbours"):
        reached = "" if neighbours["reached"] else "; no group size reaches what known_share asks for"
        known = f"{neighbours['known_share']:.1%} of a batch's pairs known, {neighbours['random_known_share']:.1%} at random"
        rows.append((f"groups of {neighbours['group_size']} neighbours", known + reached))
    if unpaired := facts.get("unpaired"):
        pools = f"{unpaired['images']:,} images and {unpaired['captions']:,} captions"
        left = unpaired["without_candidates"] + unpaired["below_floor"]
        used = f"{unpaired['queries_of_a_batch']} of a batch, from {pools}"
        rows.append(("unpaired queries", used + (f"; {left:,} have no partner above the floor" if left else "")))
    return rows


def evaluation_of_saved(settings: DistillSettings, history: History) -> str:
    """What the saved weights reached, and what the best ones did where they are others; empty without evaluations."""
    best = history.best
    if best is None:
        return ""
    saved = best if settings.keep == "best" else history.evaluations[-1]
    found = f"{_figure(settings, saved)} at step {saved['step']:,}"
    return found if saved is best else f"{found}; best {_figure(settings, best)} at step {best['step']:,}"


def _figure(settings: DistillSettings, row: LogRow) -> str:
    name = settings.eval_metric
    title = "" if name == "rsum" else f", {name.replace('_r', ' R@')} {row[f'eval_{name}']:.1f} %"
    return f"RSUM {row['eval_rsum']:.1f}{title}"


def save_series_of(settings: DistillSettings, history: History) -> None:
    """The log's columns for plots: one file of those that every row has, one for each kind that only some have."""
    plain = ["step", *sorted(name for name in history.rows[0] if name != "step" and not _is_sparse(name))]
    save_series(settings.report, "log", {name: [row[name] for row in history.rows] for name in plain})
    if history.evaluations:
        names = ["step", *sorted(name for name in history.evaluations[0] if name.startswith("eval_"))]
        save_series(settings.report, "eval", {name: [row[name] for row in history.evaluations] for name in names})
    if settings.cosine_steps is not None:
        rows = [row for row in history.rows if "gradient_cosine" in row]
        save_series(settings.report, "cosine", {name: [row[name] for row in rows] for name in ("step", "gradient_cosine")})


def _is_sparse(name: str) -> bool:
    return name.startswith(("eval_", "bank_")) or name == "gradient_cosine"

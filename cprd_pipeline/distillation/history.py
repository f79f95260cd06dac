"""A training's log, and what its evaluations say."""

from collections.abc import Iterable

from cprd_pipeline.distillation.evaluation import best_evaluation, out_of_patience
from cprd_pipeline.distillation.log import LogRow
from cprd_pipeline.distillation.settings import DistillSettings


class History:
    """The rows that a training has logged so far.

    Args:
        settings: The stage's settings.
        rows: Of an interrupted or finished training.
    """

    def __init__(self, settings: DistillSettings, rows: Iterable[LogRow] = ()) -> None:
        self._settings = settings
        self.rows: list[LogRow] = list(rows)

    @property
    def evaluations(self) -> list[LogRow]:
        """The rows that hold an evaluation."""
        return [row for row in self.rows if "eval_rsum" in row]

    @property
    def best(self) -> LogRow | None:
        """The evaluation with the highest `eval_metric` so far; None before the first."""
        return self.evaluations[best_evaluation(self._judged)] if self.evaluations else None

    @property
    def stopped(self) -> bool:
        """Whether `patience` evaluations brought nothing better, with steps left to do."""
        if not self.evaluations or self.evaluations[-1]["step"] == self._settings.steps:
            return False
        return out_of_patience(self._judged, self._settings.patience)

    @property
    def _judged(self) -> list[float]:
        return [row[f"eval_{self._settings.eval_metric}"] for row in self.evaluations]

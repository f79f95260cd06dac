"""How a study writes its numbers, in Markdown and on the terminal."""

from collections.abc import Sequence
from statistics import mean, stdev

from cprd_pipeline.evaluation.study.comparison import Comparison

MISSING = "\N{EN DASH}"


def number(value: float | None, digits: int) -> str:
    """With a true minus, which zero never has; a dash for what is not known."""
    return MISSING if value is None else f"{_rounded(value, digits):.{digits}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int) -> str:
    """With its sign, also when it is positive."""
    return f"{_rounded(value, digits):+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def spread(values: Sequence[float | None], digits: int) -> str:
    """Mean and standard deviation of what is known; a dash when nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return MISSING
    return number(mean(known), digits) + (f" ± {stdev(known):.{digits}f}" if len(known) > 1 else "")


def with_interval(one: Comparison, digits: int) -> str:
    """A difference with its interval over seeds."""
    return f"{signed(one.difference, digits)} [{signed(one.low, digits)}, {signed(one.high, digits)}]"


def p_value(p: float) -> str:
    """Three decimals, or that it is below them."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _rounded(value: float, digits: int) -> float:
    return round(value, digits) + 0.0

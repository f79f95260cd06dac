"""Settings of the objectives, a group each."""

from typing import Literal

from cprd_pipeline.settings import PositiveFloat, Settings


class ListSettings(Settings):
    """What every objective over the teacher's lists has.

    Args:
        student_temperature: Divides the student's similarities; null shares the contrastive loss's learned temperature.
        positive_in_list: One positive of the query takes its place in the list.
    """

    student_temperature: PositiveFloat | None = None
    positive_in_list: bool = True


class SoftmaxSettings(ListSettings):
    """What the objectives have that take a softmax of the teacher, and whose denominators may hold more than the list.

    Args:
        teacher_temperature: Of that softmax.
        easy_negatives: `in_batch`: the rest of the batch counts as certainly wrong; `bank`: random banked items too; `none`.
    """

    teacher_temperature: PositiveFloat = 4.0
    easy_negatives: Literal["in_batch", "bank", "none"] = "in_batch"


class CprdSettings(SoftmaxSettings):
    """The CPRD objective; the README tells whose each choice is.

    Args:
        weights: `soft`: the teacher's softmax over the list; `hard`: 1 / list length; `normalised`: 1 / valid items.
        valid: `listed`: every listed item carries knowledge; `rankings`: those that reach the ranking's valid_cutoff.
    """

    weights: Literal["soft", "hard", "normalised"] = "soft"
    valid: Literal["listed", "rankings"] = "listed"


class KlSettings(SoftmaxSettings):
    """The KL objective.

    Args:
        standardise: Scores and similarities of a query get mean 0 and deviation 1 before their temperatures divide them;
            a student_temperature of null is then the teacher's.
    """

    standardise: bool = False


class MarginMseSettings(Settings):
    """The MarginMSE objective: all candidates of a list against the query's positive, which is always in it.

    Args:
        teacher_temperature: Divides the teacher scores.
        student_temperature: Divides the student's similarities; null shares the contrastive loss's learned temperature.
        standardise: As in `KlSettings`.
    """

    teacher_temperature: PositiveFloat = 1.0
    student_temperature: PositiveFloat | None = None
    standardise: bool = False


class ListNetSettings(ListSettings):
    """The ListNet objective with top-1 probabilities.

    Args:
        teacher_temperature: Divides the teacher scores.
    """

    teacher_temperature: PositiveFloat = 1.0


class ListMleSettings(ListSettings):
    """The ListMLE objective over the whole list."""


class RankNetSettings(ListSettings):
    """The RankNet objective.

    Args:
        weights: Of the pairs of a list: `equal`, or the `difference` of their teacher scores.
    """

    weights: Literal["equal", "difference"] = "equal"

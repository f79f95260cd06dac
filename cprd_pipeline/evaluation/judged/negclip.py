"""NegCLIP's validation captions, in the manner of ARO: COCO captions with words swapped.

Source: Yuksekgonul et al. 2023, "When and why vision-language models behave like bags-of-words, and what to do about it?",
arXiv:2210.01936; the file `valid_neg_clip.tsv`.
"""

import ast
from pathlib import Path

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.hard_negatives import HardNegatives, HardPair
from cprd_pipeline.evaluation.judged.reading import Row, read_table

KIND = "swapped_words"

_COLUMNS = ("", "title", "filepath", "neg_caption", "neg_image")


def read_negclip(path: Path) -> HardNegatives:
    """Read `valid_neg_clip.tsv`; each of a row's wrong captions makes a pair, named `<row>.<number>`, both from 0.

    Raises:
        CorpusError: No such file, other columns, or a row whose wrong captions are no list of texts.
    """
    rows = read_table(path, "NegCLIP's captions", "\t", _COLUMNS, header=True, quoted=True)
    return HardNegatives(path, tuple(pair for number, row in enumerate(rows) for pair in _pairs(number, row)))


def _pairs(number: int, row: Row) -> list[HardPair]:
    _, caption, image, *_ = row.cells
    if not caption.strip() or not image.strip():
        raise CorpusError(
            f"{row.where}: title or filepath is empty", expected="a caption and an image", do="mend or remove this row"
        )
    return [HardPair(f"{number}.{place}", KIND, image, caption, foil) for place, foil in enumerate(_foils(row))]


def _foils(row: Row) -> list[str]:
    """The cell holds a Python list literal."""
    try:
        foils = ast.literal_eval(row.cells[3])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        foils = None
    if not isinstance(foils, list) or not foils or not all(isinstance(foil, str) and foil.strip() for foil in foils):
        raise CorpusError(f"{row.where}: neg_caption {row.cells[3][:60]!r}", expected="a list of quoted captions")
    return foils

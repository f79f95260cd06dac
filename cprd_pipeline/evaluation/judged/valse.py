"""VALSE: images of several data sets, with captions of which one linguistic thing was made wrong.

Source: Parcalabescu et al. 2022, "VALSE: A Task-Independent Benchmark for Vision and Language Models Centered on Linguistic
Phenomena", arXiv:2112.07566.
"""

from pathlib import Path
from typing import Any

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.hard_negatives import HardNegatives, HardPair
from cprd_pipeline.evaluation.judged.reading import read_object, text_of

_VALID_FROM = 2


def read_valse(path: Path) -> HardNegatives:
    """Read all `*.json` of a folder: `{name: {image_file, caption, foil, mturk: {caption}}}`; a kind is a file's name.

    Entries for which fewer than two of three people chose the caption are left out, as the authors do.

    Raises:
        CorpusError: There is no such file, one is damaged or of another layout, or none of its entries is valid.
    """
    files = sorted(path.glob("*.json"))
    if not files:
        raise CorpusError(f"{path}: no *.json", expected="VALSE's files", do="fetch its folder data/ again")
    pairs: list[HardPair] = []
    left_out = 0
    for file in files:
        entries = read_object(file, "VALSE's JSON")
        valid = {name: entry for name, entry in entries.items() if _votes(entry, f"{file}: entry {name!r}") >= _VALID_FROM}
        if not valid:
            raise CorpusError(f"{file}: none of its {len(entries)} entries has two votes for the caption", expected="valid entries")
        left_out += len(entries) - len(valid)
        for name, entry in valid.items():
            image, caption, foil = (text_of(entry, key, f"{file}: entry {name!r}") for key in ("image_file", "caption", "foil"))
            pairs.append(HardPair(name, file.stem, image, caption, foil))
    return HardNegatives(path, tuple(pairs), left_out)


def _votes(entry: Any, where: str) -> int:
    asked = entry.get("mturk") if isinstance(entry, dict) else None
    votes = asked.get("caption") if isinstance(asked, dict) else None
    if not isinstance(votes, int) or isinstance(votes, bool):
        raise CorpusError(
            f"{where}: mturk.caption is {str(votes)[:40]!r}", expected="a number of votes", do="mend or remove this entry"
        )
    return votes

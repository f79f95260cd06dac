"""SugarCrepe: COCO val2017 images, with captions that a language model made wrong yet plausible.

Source: Hsieh et al. 2023, "SugarCrepe: Fixing Hackable Benchmarks for Vision-Language Compositionality", arXiv:2306.14610.
"""

from pathlib import Path

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.hard_negatives import HardNegatives, HardPair
from cprd_pipeline.evaluation.judged.reading import read_object, text_of

KINDS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


def read_sugarcrepe(path: Path) -> HardNegatives:
    """Read a folder with the seven files `add_att.json` to `swap_obj.json`: `{"0": {filename, caption, negative_caption}}`.

    Raises:
        CorpusError: A file is missing, damaged or of another layout; the message names the entry.
    """
    missing = [f"{kind}.json" for kind in KINDS if not (path / f"{kind}.json").is_file()]
    if missing:
        raise CorpusError(
            f"{path}: {', '.join(missing)} missing", expected=f"SugarCrepe's {len(KINDS)} files", do="fetch its folder data/ again"
        )
    return HardNegatives(path, tuple(pair for kind in KINDS for pair in _read_kind(path / f"{kind}.json", kind)))


def _read_kind(path: Path, kind: str) -> list[HardPair]:
    pairs = []
    for name, entry in read_object(path, "SugarCrepe's JSON").items():
        where = f"{path}: entry {name!r}"
        image, caption, foil = (text_of(entry, key, where) for key in ("filename", "caption", "negative_caption"))
        pairs.append(HardPair(name, kind, image, caption, foil))
    return pairs

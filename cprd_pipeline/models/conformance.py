"""Whether a teacher keeps the promises of `CrossEncoder`: run `check_teacher` on an own one before it scores millions of pairs.

from cprd_pipeline.models.conformance import check_teacher

def test_my_teacher():
    check_teacher(MyTeacher.load(Path("my/folder"), torch.device("cpu"), torch.float32))
"""

import pickle
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.cross_encoder import CrossEncoder

CAPTIONS = (
    "a dog",
    "a man rides a horse on the beach while the sun goes down",
    "two children play with a red ball in front of a house",
    "an old boat",
    "a plate of food on a wooden table next to a glass of water",
)
_TOLERANCE = 1e-4
_IMAGES = 3
_UNLIMITED = 1 << 20  # what tokenizers say that know no limit is far more


def check_teacher(
    teacher: CrossEncoder, captions: Sequence[str] = CAPTIONS, images: Sequence[Image.Image] = (), tolerance: float = _TOLERANCE
) -> None:
    """Try a teacher on a few pairs, in every company that the scoring loop may put them into; says in one line what was tried.

    Args:
        teacher: Loaded, float32 at best.
        captions: At least two different ones that the teacher's tokenizer tells apart.
        images: At least two different RGB pictures; noise of several sizes by default.
        tolerance: By how much a score may move with the other pairs of a call; a low dtype needs more.

    Raises:
        ModelError: A promise is broken; the message names it.
    """
    pictures = list(images) or noise()
    sides = [teacher] if teacher.roles == "both" else [teacher.facing("i2t"), teacher.facing("t2i")]
    moved = 0.0
    for side in sides:
        _check_preprocessing(side, pictures)
        encoded = side.encode_images([side.preprocess(picture) for picture in pictures])
        texts = side.encode_texts(list(captions))
        _expect(len(encoded) == len(pictures), side, f"encode_images gave {len(encoded)} values for {len(pictures)} images")
        _expect(len(texts) == len(captions), side, f"encode_texts gave {len(texts)} values for {len(captions)} captions")
        _check_tokens(side, texts)
        scores = torch.stack([_scores(side, image, texts) for image in encoded])
        _check_content(side, scores)
        moved = max(moved, _check_company(side, pictures, captions, scores, tolerance))
        _check_long_captions(side, captions)
    sys.stdout.write(
        f"{type(teacher).__name__} keeps its promises: {len(pictures)} pictures and {len(captions)} captions, alone, in another "
        f"order and several images a call, moved a score by {moved:.1g} at most ({tolerance:g} is allowed)\n"
    )


def noise() -> list[Image.Image]:
    """Pictures of several sizes that have nothing in common."""
    draws = np.random.default_rng(0)
    sizes = ((60, 80), (90, 64), (72, 72))[:_IMAGES]
    return [Image.fromarray(draws.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def _expect(kept: bool, teacher: CrossEncoder, broken: str, do: str = "") -> None:
    if not kept:
        raise ModelError(f"{type(teacher).__name__}: {broken}", do=do)


def _scores(teacher: CrossEncoder, image: Any, texts: Sequence[Any]) -> Tensor:
    scores = teacher.score(image, texts)
    _expect(tuple(scores.shape) == (len(texts),), teacher, f"score gave shape {tuple(scores.shape)} for {len(texts)} captions")
    _expect(scores.dtype == torch.float32, teacher, f"score gave {scores.dtype}, expected torch.float32")
    _expect(scores.device.type == "cpu", teacher, f"score left its result on {scores.device}, expected the CPU")
    _expect(not scores.requires_grad, teacher, "score keeps a graph", do="decorate it with torch.inference_mode()")
    _expect(bool(torch.isfinite(scores).all()), teacher, "score gave values that are not finite")
    return scores


def _check_preprocessing(teacher: CrossEncoder, pictures: Sequence[Image.Image]) -> None:
    try:
        again = pickle.loads(pickle.dumps(teacher.preprocess))
        again(pictures[0])
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{type(teacher).__name__}: preprocess cannot be sent to another process ({error})",
            do="make it a function of a module, or an object of a module's class, without weights",
        ) from error


def _check_tokens(teacher: CrossEncoder, texts: Sequence[Any]) -> None:
    for text in texts:
        for name in ("text_tokens", "pair_tokens"):
            tokens = getattr(teacher, name)(text)
            _expect(isinstance(tokens, int) and tokens > 0, teacher, f"{name} gave {tokens!r}, expected a number of at least 1")


def _check_long_captions(teacher: CrossEncoder, captions: Sequence[str]) -> None:
    limit = teacher.max_text_tokens
    if limit < _UNLIMITED:
        [long] = teacher.encode_texts([" ".join([*captions] * (limit // len(captions) + 1))])
        told = teacher.text_tokens(long) > limit
        _expect(told, teacher, "cuts long captions in silence", do="let text_tokens count the tokens before cutting")


def _check_content(teacher: CrossEncoder, scores: Tensor) -> None:
    _expect(bool((scores.std(dim=0) > 0).any()), teacher, "every image gives the same scores: the picture is not looked at")
    _expect(bool((scores.std(dim=1) > 0).any()), teacher, "every caption gives the same scores: the text is not read")


def _check_company(
    teacher: CrossEncoder, pictures: Sequence[Image.Image], captions: Sequence[str], scores: Tensor, tolerance: float
) -> float:
    """By how much a score moves at most: alone, in another order, with images encoded one by one, several images in a call."""
    alone = [teacher.encode_images([teacher.preprocess(picture)])[0] for picture in pictures]
    single = [teacher.encode_texts([caption])[0] for caption in captions]
    turned = teacher.encode_texts(list(reversed(captions)))
    groups = [(image, single[: 1 + number % len(single)]) for number, image in enumerate(alone)]
    mixed = teacher.score_groups(groups).split([len(texts) for _, texts in groups])  # type: ignore[no-untyped-call]
    most = 0.0
    for row, image in enumerate(alone):
        found = {
            "one caption at a time": torch.cat([_scores(teacher, image, [text]) for text in single]),
            "captions in another order": _scores(teacher, image, turned).flip(0),
            "several images in one call": mixed[row],
        }
        for company, values in found.items():
            moved = float((values - scores[row, : len(values)]).abs().max())
            most = max(most, moved)
            _expect(
                moved <= tolerance,
                teacher,
                f"a score moves by {moved:.2g} with {company}, expected at most {tolerance:.2g}",
                do="mask padding, use no batch statistics, keep the order of the captions",
            )
    again = _scores(teacher, alone[0], single)
    repeated = torch.equal(again, _scores(teacher, alone[0], single))
    _expect(repeated, teacher, "the same call gives other scores the second time", do="switch off dropout and sampling")
    return most

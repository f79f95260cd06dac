"""Captions of the demo world, and how true each of them is of each picture."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cprd_pipeline.corpus.scenes import COLOURS, MOST_OBJECTS, RELATIONS, SHAPES, SIZES, IntArray, Scenes, relations_hold

_SYNONYMS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
    "diamond": ("diamond", "rhombus"),
    "small": ("small", "tiny"),
    "large": ("large", "big"),
    "left": ("left of", "on the left of"),
    "right": ("right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_ANY_SHAPE = ("thing", "object", "shape")
_JOINS = ("and", "with")
_THREE_MENTIONS = 0.3  # share of captions that mention three objects; the others mention two
_DETAIL_DROPPED = 0.05  # mean share of details that a caption leaves out
_UNSAID = -1
MOST_MENTIONS = 3


@dataclass
class SceneCaptions:
    """Captions and the statements they make.

    Args:
        texts: The captions.
        scenes: Row of the scene that each was written for.
        mentions: Shape, colour and size said of each mentioned object, -1 where unsaid; each [3, 3].
        relations: Relation said between consecutive mentions, -1 where unsaid; each [2].
    """

    texts: list[str] = field(default_factory=list)
    scenes: list[int] = field(default_factory=list)
    mentions: list[IntArray] = field(default_factory=list)
    relations: list[IntArray] = field(default_factory=list)


def vocabulary() -> list[str]:
    """Every word that a caption can have, sorted."""
    phrases = itertools.chain(COLOURS, _ANY_SHAPE, _JOINS, *_SYNONYMS.values())
    return sorted({word for phrase in phrases for word in phrase.split()})


def write_captions(scenes: Scenes, each: int, draws: np.random.Generator) -> SceneCaptions:
    """Describe each scene `each` times, two or three of its objects a time."""
    captions = SceneCaptions()
    holds = relations_hold(scenes.centres, scenes.attributes)
    for scene in range(len(scenes.counts)):
        for _ in range(each):
            mentioned = min(2 + int(draws.random() < _THREE_MENTIONS), int(scenes.counts[scene]))
            objects = draws.permutation(int(scenes.counts[scene]))[:mentioned]
            writer = _CaptionWriter(scenes.attributes[scene], holds[scene], draws)
            captions.texts.append(writer.write(objects))
            captions.scenes.append(scene)
            captions.mentions.append(writer.mentions)
            captions.relations.append(writer.relations)
    return captions


class _CaptionWriter:
    """Writes one caption and remembers what it states."""

    def __init__(self, attributes: IntArray, holds: npt.NDArray[np.bool_], draws: np.random.Generator) -> None:
        self._attributes = attributes
        self._holds = holds
        self._draws = draws
        # Some captions are terse, some complete.
        self._drop = _DETAIL_DROPPED * draws.uniform(0, 2)
        self.mentions = np.full((MOST_MENTIONS, 3), _UNSAID, dtype=np.int64)
        self.relations = np.full(MOST_MENTIONS - 1, _UNSAID, dtype=np.int64)

    def write(self, objects: IntArray) -> str:
        words: list[str] = []
        for place, current in enumerate(objects):
            if place:
                words.append(self._relation(place, int(objects[place - 1]), int(current)))
            words.extend(self._object(place, int(current)))
        return " ".join(words)

    def _relation(self, place: int, before: int, current: int) -> str:
        true = np.flatnonzero(self._holds[before, current])
        if len(true) and self._draws.random() > 0.7 * self._drop:
            relation = int(self._draws.choice(true))
            self.relations[place - 1] = relation
            return self._pick(_SYNONYMS[RELATIONS[relation]])
        return self._pick(_JOINS)

    def _object(self, place: int, current: int) -> Iterator[str]:
        shape, colour, size = self._attributes[current]
        # Sizes go unsaid most often, shapes least.
        says_shape, says_colour, says_size = self._draws.random(3) > np.array([0.6 * self._drop, self._drop, self._drop + 0.2])
        if not says_shape and not says_colour:
            says_shape = True
        said = np.array([says_shape, says_colour, says_size])
        self.mentions[place] = np.where(said, self._attributes[current], _UNSAID)
        if says_size:
            yield self._pick(_SYNONYMS[SIZES[size]])
        if says_colour:
            yield list(COLOURS)[colour]
        yield self._pick(_SYNONYMS[SHAPES[shape]] if says_shape else _ANY_SHAPE)

    def _pick(self, choices: tuple[str, ...]) -> str:
        return choices[int(self._draws.integers(len(choices)))]


def true_relevance(scenes: Scenes, captions: SceneCaptions, out: npt.NDArray[np.float32]) -> None:
    """How true each caption is of each picture.

    The best share of the caption's statements (shape, colour, size of a mentioned object; relation between two) that
    hold when its mentioned objects are identified with different objects of the picture.

    Args:
        scenes: N pictures.
        captions: C captions, of these pictures or of others.
        out: Filled row by row (it may be a file): float32 [N, C] in [0, 1]; 1 when the picture shows all that the caption says.
    """
    mentions, relations = np.stack(captions.mentions), np.stack(captions.relations)
    said = (mentions != _UNSAID).sum((1, 2)) + (relations != _UNSAID).sum(1)
    mentioned = (mentions != _UNSAID).any(2).sum(1)
    holds = relations_hold(scenes.centres, scenes.attributes)
    groups = [(count, np.flatnonzero(mentioned == count)) for count in np.unique(mentioned)]
    for row in range(len(scenes.counts)):
        for count, columns in groups:
            best = _best_count(scenes.attributes[row], holds[row], mentions[columns, :count], relations[columns, : count - 1])
            out[row, columns] = best / said[columns]


def _best_count(attributes: IntArray, holds: npt.NDArray[np.bool_], mentions: IntArray, relations: IntArray) -> IntArray:
    """Most statements of each caption that hold in one picture; int64 [captions]."""
    # Statements about one object, for each object it could be: [captions, mentions, objects].
    about_object = (mentions[:, :, None, :] == attributes[None, None]).sum(-1)
    best = np.zeros(len(mentions), dtype=np.int64)
    for chosen in itertools.permutations(range(MOST_OBJECTS), mentions.shape[1]):
        true = about_object[:, range(len(chosen)), chosen].sum(1)
        for place, (first, second) in enumerate(itertools.pairwise(chosen)):
            stated = relations[:, place]
            true = true + (holds[first, second, np.maximum(stated, 0)] & (stated != _UNSAID))
        best = np.maximum(best, true)
    return best

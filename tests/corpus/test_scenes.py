"""The demo world: what is drawn, what is said, and what is true."""

import itertools

import numpy as np
import pytest

from cprd_pipeline.corpus.scene_captions import SceneCaptions, true_relevance, vocabulary, write_captions
from cprd_pipeline.corpus.scenes import ABSENT, COLOURS, IMAGE_SIZE, RELATIONS, SHAPES, SIZES, Scenes, draw_scenes

COUNT, EACH = 60, 3


@pytest.fixture(scope="module")
def world():
    """Sixty pictures and their captions."""
    draws = np.random.default_rng(0)
    scenes = draw_scenes(COUNT, draws)
    return scenes, write_captions(scenes, EACH, draws)


def relevance_of(scenes, captions):
    """The whole matrix, NaN where nothing was written."""
    out = np.full((len(scenes.counts), len(captions.texts)), np.nan, dtype=np.float32)
    true_relevance(scenes, captions, out)
    return out


# The oracle reads the caption's words, not what the generator remembers of them.
MEANING = {
    "disc": "circle", "box": "square", "wedge": "triangle", "plus": "cross", "hoop": "ring", "rhombus": "diamond",
    "tiny": "small", "big": "large", "over": "above", "under": "below",
}  # fmt: skip


def statements(text):
    """Statements of a caption: (mention, attribute, value) and (mention, relation, next mention)."""
    found, mention = [], 0
    words = text.replace("on the left of", "left").replace("on the right of", "right").replace(" of", "").split()
    for word in (MEANING.get(word, word) for word in words):
        if word in SIZES:
            found.append((mention, 2, SIZES.index(word)))
        elif word in COLOURS:
            found.append((mention, 1, list(COLOURS).index(word)))
        elif word in SHAPES:
            found.append((mention, 0, SHAPES.index(word)))
        elif word in RELATIONS:
            found.append((mention, word, mention + 1))
            mention += 1
        elif word in ("and", "with"):
            mention += 1
        else:
            assert word in ("thing", "object", "shape"), word
    return found, mention + 1


def slow_relevance(scenes, scene, text):
    """Every assignment of mentions to objects or to nothing, every statement looked up."""
    said, mentions = statements(text)
    objects = [*range(scenes.counts[scene]), *[None] * mentions]
    best = 0
    for chosen in set(itertools.permutations(objects, mentions)):
        true = 0
        for first, what, value in said:
            if chosen[first] is None:
                continue
            if isinstance(what, int):
                true += scenes.attributes[scene, chosen[first], what] == value
            elif chosen[value] is not None:
                x, y = scenes.centres[scene, chosen[first]] - scenes.centres[scene, chosen[value]]
                true += {"left": x < -6, "right": x > 6, "above": y < -6, "below": y > 6}[what]
        best = max(best, true)
    return best / len(said)


def test_relevance_equals_a_slow_loop_over_the_words(world):
    """Against an oracle that parses the captions and tries every assignment."""
    scenes, captions = world
    found = relevance_of(scenes, captions)
    draws = np.random.default_rng(1)
    for scene, caption in zip(draws.integers(0, COUNT, 400), draws.integers(0, COUNT * EACH, 400), strict=True):
        assert found[scene, caption] == pytest.approx(slow_relevance(scenes, scene, captions.texts[caption]), abs=1e-6)


def test_a_caption_is_wholly_true_of_its_own_picture(world):
    """The generator never lies; and captions tell pictures apart."""
    found = relevance_of(*world)
    assert (found[world[1].scenes, range(COUNT * EACH)] == 1).all()
    assert found.min() >= 0
    assert found.max() == 1
    assert (found == 1).mean() < 0.05


def test_mentions_are_identified_with_different_objects():
    """One red circle cannot be both of two mentioned red circles: two of four statements hold."""
    scenes = Scenes(
        attributes=np.array([[[0, 0, 0], [1, 1, 1], [ABSENT] * 3, [ABSENT] * 3]]),
        centres=np.array([[[8.0, 8], [40, 40], [0, 0], [0, 0]]]),
        counts=np.array([2]),
        pixels=np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8),
    )
    twice = np.array([[0, 0, -1], [0, 0, -1], [-1, -1, -1]])
    captions = SceneCaptions(["red circle and red circle"], [0], [twice], [np.array([-1, -1])])
    assert relevance_of(scenes, captions)[0, 0] == 0.5


def test_vocabulary_is_exactly_what_captions_use():
    """No word without a token, no token that never occurs."""
    draws = np.random.default_rng(2)
    captions = write_captions(draw_scenes(400, draws), 20, draws)
    assert sorted({word for text in captions.texts for word in text.split()}) == vocabulary()


def test_shares_of_the_recipe():
    """Three mentions in about 30 % of captions of pictures with enough objects, else two; sizes go unsaid one time in four."""
    draws = np.random.default_rng(3)
    scenes = draw_scenes(500, draws)
    captions = write_captions(scenes, 4, draws)
    mentioned = (np.stack(captions.mentions) != -1).any(2).sum(1)
    enough = scenes.counts[captions.scenes] > 2
    assert (mentioned[enough] == 3).mean() == pytest.approx(0.3, abs=0.05)
    assert set(mentioned.tolist()) == {2, 3}
    said = np.stack(captions.mentions)[:, :2]
    assert (said[..., 2] == -1).mean() == pytest.approx(0.25, abs=0.03)
    assert (said[..., 1] == -1).mean() == pytest.approx(0.05, abs=0.02)


def test_objects_are_drawn_where_the_scene_says(world):
    """At the centre of each solid object the pixel has its colour, within tint and noise."""
    scenes, _ = world
    palette = np.array(list(COLOURS.values()))
    for scene in range(COUNT):
        for (shape, colour, _), (x, y) in zip(scenes.attributes[scene], scenes.centres[scene], strict=True):
            if shape != ABSENT and SHAPES[shape] != "ring":
                patch = scenes.pixels[scene, int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].reshape(-1, 3).mean(0)
                assert np.linalg.norm(patch - palette[colour], axis=-1) == np.min(np.linalg.norm(patch - palette, axis=1))


def test_the_same_generator_draws_the_same_world():
    """Seeds decide everything."""
    first, second = (draw_scenes(5, np.random.default_rng(7)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first.pixels, draw_scenes(5, np.random.default_rng(8)).pixels)

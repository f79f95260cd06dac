"""Names of one image or caption in different files, and ids that the split lacks."""

import pytest

from cprd_pipeline.errors import CorpusError
from cprd_pipeline.evaluation.judged.matching import caption_key, caption_lookup, check_known, image_key, image_lookup
from tests.evaluation.judged.small_sets import corpus_of


@pytest.mark.parametrize(
    "name", ["391895", "000000391895.jpg", "COCO_val2014_000000391895.jpg", "coco/val2014/COCO_val2014_000000391895.jpg"]
)
def test_names_of_one_coco_image(name):
    """With and without folder, prefix, zeros and ending."""
    assert image_key(name) == 391895


@pytest.mark.parametrize("name", ["v7w_2396743.jpg", "exercising_255.jpg", "1000268201_693b08cb0e.jpg", "image-007", "२३"])
def test_names_of_other_images(name):
    """A number within a name makes no COCO image of it; folders do not count."""
    assert image_key(name) == name
    assert image_key(f"images/{name}") == name


def test_ids_of_captions():
    """CxC's and Karpathy's of one COCO caption; anything else is itself."""
    assert caption_key("COCO_val2014:sentid:732091") == caption_key("732091") == 732091
    assert caption_key("1000268201_693b08cb0e.jpg#0") == "1000268201_693b08cb0e.jpg#0"


@pytest.fixture
def looked_up(tmp_path):
    """A corpus with COCO's images 7 and 8, and its lookups."""
    corpus, split = corpus_of(tmp_path / "corpus", {"7": ["71", "72"], "val2014/COCO_val2014_000000000008.jpg": ["81"]})
    return corpus, split, image_lookup(corpus, split), caption_lookup(corpus, split)


def test_places_in_the_split(looked_up):
    """Places count within the split, whatever stands before it; unknown ids are remembered once, in their order."""
    _, _, images, captions = looked_up
    assert images.places(["000000000008.jpg", "9", "000000000007.jpg", "9"]).tolist() == [1, -1, 0, -1]
    assert captions.places(["COCO_val2014:sentid:81", "5", "4", "71"]).tolist() == [2, -1, -1, 0]
    assert (images.asked, images.unknown) == (3, ["9"])
    assert (captions.asked, captions.unknown) == (4, ["5", "4"])


def test_only_some_captions_count(looked_up):
    """A caption of the split that is not among them is unknown."""
    corpus, split, *_ = looked_up
    assert caption_lookup(corpus, split, among={72, 81}).places(["71", "72"]).tolist() == [-1, 1]


def test_an_id_that_two_images_go_by(tmp_path):
    """One photograph under its names of 2014 and 2017; only asking for it is an error."""
    corpus, split = corpus_of(
        tmp_path / "corpus", {"val2014/COCO_val2014_000000000008.jpg": ["1"], "val2017/000000000008.jpg": ["2"]}
    )
    lookup = image_lookup(corpus, split)
    assert lookup.places(["9"]).tolist() == [-1]
    with pytest.raises(CorpusError, match=r"judged id '8' could be 'val2014/.*' or 'val2017/.*' of the split"):
        lookup.places(["8"])


def test_a_few_unknown_ids_are_named(looked_up):
    """Up to the limit the set is used; the first three are named, images before captions."""
    _, split, images, captions = looked_up
    images.places(["7", "8", "9"])
    captions.places(["71", "72", "5", "4", "3"])
    assert check_known("set", split, [images, captions], 0.5) == ("9", "5", "4")


def test_too_many_unknown_ids(looked_up):
    """Past the limit the set is refused, with how many and which."""
    _, split, images, captions = looked_up
    images.places(["7", "8", "9"])
    captions.places(["71", "72", "5", "4", "3"])
    with pytest.raises(
        CorpusError,
        match=r"set: 4 of 8 ids are not in split 'test', the first '9', '5', '4'; expected at most 49%.*judged\.unknown_limit",
    ):
        check_known("set", split, [images, captions], 0.49)


def test_ids_of_another_corpus(looked_up):
    """Whatever the limit, some id must be known."""
    _, split, images, _ = looked_up
    images.places(["9"])
    with pytest.raises(CorpusError, match="1 of 1 ids are not in split 'test', the first '9'; expected ids of this split"):
        check_known("set", split, [images], 1.0)

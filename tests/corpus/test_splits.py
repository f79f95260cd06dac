"""Lists of splits, the limit, unpaired items, and the seeded holdout."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cprd_pipeline.corpus.formats.records import CaptionRecord, ImageRecord, Records
from cprd_pipeline.corpus.holdout import check_new_names, draw_holdout
from cprd_pipeline.corpus.settings import HoldoutSettings
from cprd_pipeline.corpus.splits import assign_lists, check_records, keep_images, limit_images, open_lists
from cprd_pipeline.errors import CorpusError
from cprd_pipeline.store.fingerprint import bytes_digest

PATHS = ["a/0.jpg", "a/1.jpg", "b/1.jpg", "b/2.png", "3.jpg"]


@pytest.fixture
def records(tmp_path):
    """Five images, each with a caption; one caption more describes the first two."""
    images = [ImageRecord(f"id{n}", "train", path) for n, path in enumerate(PATHS)]
    captions = [CaptionRecord(f"c{n}", f"text {n}", (f"id{n}",)) for n in range(5)]
    return Records(images, [*captions, CaptionRecord("both", "two", ("id0", "id1"))], tmp_path)


def lists(folder, **names):
    """Split lists, opened; `rest` stays the word."""
    paths = {}
    for split, content in names.items():
        path = folder / f"{split}.txt"
        path.write_text(content)
        paths[split] = "rest" if content == "rest" else path
    return open_lists(paths)


def test_names_of_every_kind(tmp_path, records):
    """Ids, paths, unique file names and names without their ending; the rest goes where the settings say."""
    found, counts = assign_lists(records, lists(tmp_path, train="id0\na/1.jpg\n", val="2\n3.jpg\r\n\nnowhere.jpg\n", test="rest"))
    assert [image.split for image in found.images] == ["train", "train", "test", "val", "val"]
    assert counts == {"unlisted_images": 0, "unlisted_captions": 0, "unknown_listed_names": 1}
    assert found.splits_given


def test_names_that_several_images_have_name_none(tmp_path, records):
    """1.jpg lies in two folders."""
    found, counts = assign_lists(records, lists(tmp_path, val="1.jpg\n0.jpg\n", test="rest"))
    assert [image.split for image in found.images] == ["val", "test", "test", "test", "test"]
    assert counts["unknown_listed_names"] == 1


def test_what_no_list_names_is_left_out_and_counted(tmp_path, records):
    """With its captions; a caption of two images keeps the other."""
    found, counts = assign_lists(records, lists(tmp_path, train="id0\nid3", val="id4"))
    assert [image.image_id for image in found.images] == ["id0", "id3", "id4"]
    assert counts == {"unlisted_images": 2, "unlisted_captions": 2, "unknown_listed_names": 0}
    assert found.captions[-1].image_ids == ("id0",)


def test_spoilt_lists(tmp_path, records):
    """An image in two of them; a list of other images; a list that is not there."""
    with pytest.raises(CorpusError, match=r"val\.txt: line 2: image id0 is in the list of train too; expected one split an image"):
        assign_lists(records, lists(tmp_path, train="id0\nid1", val="id2\na/0.jpg"))
    with pytest.raises(CorpusError, match=r"val\.txt: names no image of the source.*mend files\.split_lists"):
        assign_lists(records, lists(tmp_path, train="id0", val="x\ny"))
    with pytest.raises(
        CorpusError, match=r"gone\.txt: No such file.*; expected a file; mend files\.split_lists\.val in the settings"
    ):
        open_lists({"val": tmp_path / "gone.txt"})


def test_a_limit(records):
    """The first of each split; unpaired captions stay."""
    lonely = CaptionRecord("lonely", "x", ())
    found = limit_images(Records(records.images, [*records.captions, lonely], records.image_root), 1)
    assert [image.image_id for image in found.images] == ["id0"]
    assert [caption.caption_id for caption in found.captions] == ["c0", "both", "lonely"]


def test_unpaired_items(records):
    """Stop, or are kept; the first is named."""
    lonely = Records(records.images, records.captions[1:-1], records.image_root)
    with pytest.raises(CorpusError, match=r"here: 1 images have no caption, the first is id0.*files\.unpaired: keep"):
        check_records(lonely, "here", keep_unpaired=False)
    check_records(lonely, "here", keep_unpaired=True)
    alone = Records(records.images, [*records.captions, CaptionRecord("x", "x", ())], records.image_root)
    with pytest.raises(CorpusError, match=r"here: caption x has no image; expected pairs"):
        check_records(alone, "here", keep_unpaired=False)
    check_records(records, "here", keep_unpaired=False)


def test_a_caption_of_two_splits(records):
    """It would be a positive across splits."""
    images = [ImageRecord("id0", "val", "a/0.jpg"), *records.images[1:]]
    with pytest.raises(CorpusError, match=r"caption both describes images of several splits \(id0, id1\)"):
        check_records(Records(images, records.captions, records.image_root), "here", keep_unpaired=True)
    check_records(keep_images(records, images[:1]), "here", keep_unpaired=True)


DIGESTS = [bytes_digest(str(number).encode()) for number in range(2000)]


def draw(digests, texts=None, shared=(), seed=0, **shares):
    """A holdout of images that are all train."""
    settings = HoldoutSettings(shares=shares or {"val": 0.1, "test": 0.2}, seed=seed)
    return draw_holdout(["train"] * len(digests), digests, texts or {}, shared, settings)


def test_shares_and_seeds():
    """About as many as asked for; another seed draws others; the same seed the same."""
    counts = Counter(draw(DIGESTS))
    assert 150 < counts["val"] < 250
    assert 340 < counts["test"] < 460
    assert draw(DIGESTS) == draw(DIGESTS)
    assert draw(DIGESTS) != draw(DIGESTS, seed=1)
    assert set(draw(DIGESTS, val=0.5, test=0)) == {"train", "val"}


def test_growing_moves_nothing():
    """Nor does the order of the images matter."""
    small = dict(zip(DIGESTS[:1500], draw(DIGESTS[:1500]), strict=True))
    large = dict(zip(DIGESTS[::-1], draw(DIGESTS[::-1]), strict=True))
    assert all(large[digest] == split for digest, split in small.items())


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 30), min_size=100, max_size=100),
    st.lists(st.lists(st.integers(0, 99), max_size=6), max_size=10),
)
def test_what_belongs_together_stays_together(contents, groups):
    """Equal pictures, and images of one caption."""
    # The further images belong to nothing, so that no split is empty.
    digests = [DIGESTS[content] for content in contents] + DIGESTS[100:]
    drawn = draw(digests, shared=groups)
    assert all(len({drawn[row] for row in group}) <= 1 for group in groups)
    by_content: dict[bytes, str] = {}
    assert all(by_content.setdefault(digest, split) == split for digest, split in zip(digests, drawn, strict=True))


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(100)))
def test_images_of_one_text_stay_together(rows):
    """In groups of four."""
    texts = {str(start).encode(): rows[start : start + 4] for start in range(0, 100, 4)}
    drawn = draw(DIGESTS, texts)
    assert all(len({drawn[row] for row in group}) == 1 for group in texts.values())


def test_a_text_that_everything_has_links_nothing():
    """A text such as "a photo", or a chain of texts, would put all into one split; one caption of many images still does."""
    everything = list(range(len(DIGESTS)))
    assert draw(DIGESTS, {b"a photo": everything}) == draw(DIGESTS)
    chain = {str(row).encode(): [row, row + 1] for row in everything[:-1]}
    drawn = draw(DIGESTS, chain)
    assert 100 < Counter(drawn)["val"] < 350
    parted = sum(one != other for one, other in pairwise(drawn))
    assert parted < 200  # of 1,999 links; about 680 by chance
    with pytest.raises(CorpusError, match=r"holdout\.shares: .* gets none of 2,000 images; expected at least one; raise its share"):
        draw(DIGESTS, shared=[everything])


def test_given_splits_stay():
    """Only `train` is drawn from, and no name may be there already."""
    splits = ["train"] * 1000 + ["test"] * 1000
    drawn = draw_holdout(splits, DIGESTS, {}, [], HoldoutSettings(shares={"val": 0.1}))
    assert Counter(drawn)["test"] == 1000
    assert drawn[1000:] == splits[1000:]
    with pytest.raises(CorpusError, match=r"holdout\.shares names test, which the source has already; expected names that are new"):
        check_new_names(splits, HoldoutSettings(shares={"test": 0.1}))
    check_new_names(splits, HoldoutSettings(shares={"val": 0.1}))

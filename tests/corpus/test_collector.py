"""A text that stands under very many images."""

from pathlib import Path

import pytest

from cprd_pipeline.corpus.formats.collector import Collector
from cprd_pipeline.corpus.formats.records import CaptionRecord
from cprd_pipeline.errors import CorpusError


class Compared(str):
    """An id that counts how often it is compared with another one."""

    __slots__ = ()
    count = 0

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def collect(images: int) -> Collector:
    """Captions `alone`, `shared` and `last`; the middle one describes all images but the first, the last one first."""
    found = Collector(Path(), {})
    for number in range(images):
        found.add_image(str(number), f"{number}.png", "val", "here")
    found.add_caption("alone", "a dog", "0", "here")
    found.add_caption("shared", "a photo", str(images - 1), "here")
    found.add_caption("last", "a cat", "1", "here")
    for number in range(1, images - 1):
        found.share_caption("shared", "a photo", Compared(number), "here")
    return found


def test_a_shared_caption_costs_its_images_once() -> None:
    """Images in the order of the source, captions in the order in which each came first; not every image against every other."""
    Compared.count = 0
    captions = collect(1000).finish().captions
    assert Compared.count < 2000
    shared = ("999", *map(str, range(1, 999)))
    assert captions == [
        CaptionRecord("alone", "a dog", ("0",)),
        CaptionRecord("shared", "a photo", shared),
        CaptionRecord("last", "a cat", ("1",)),
    ]


@pytest.mark.parametrize("image_id", ["2", "1"])
def test_a_caption_names_an_image_once(image_id: str) -> None:
    """Whether the image was its first or came later."""
    with pytest.raises(CorpusError, match="here: caption id 'shared' occurs more than once"):
        collect(3).share_caption("shared", "a photo", image_id, "here")

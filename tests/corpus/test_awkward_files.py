"""The decoder on real awkward files."""

import csv

import numpy as np
import pytest

from cprd_pipeline.corpus.images import decode_image
from cprd_pipeline.errors import CorpusError

REFUSED = {
    "broken.png": "not an image",
    "broken_data_stream.png": "unrecognized data stream",
    "chelsea.jxl": "not an image",
    "decompression_bomb.gif": "pixels",
    "hopper.heif": "not an image",
    "lfs_pointer.jpg": "git lfs pull",
    "made_huge_108MP.png": "12000 x 9000 pixels",
    "made_huge_200MP.png": "pixels",
    "png_decompression_dos.png": "too large",
    "truncated_image.png": "truncated",
    "truncated_jpeg.jpg": "truncated",
    "ultrahdr.jpg": "truncated",
    "xet_pointer.jpg": "not an image",
    "zero_bytes.jpg": "empty",
    "zero_width.gif": "not an image",
}


@pytest.fixture(scope="module")
def awkward(real_data):
    """Name, what the list says of it, and bytes of each file."""
    folder = real_data / "awkward"
    with (folder / "LIST.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: (row, (folder / "images" / row["file"]).read_bytes()) for row in csv.DictReader(file)}


def test_every_file_is_right_or_refused_with_its_reason(awkward):
    """Those that must be refused are, for the right reason; all others are upright RGB of the listed size."""
    for name, (row, content) in awkward.items():
        if name in REFUSED:
            with pytest.raises(CorpusError, match=REFUSED[name]):
                decode_image(content)
            continue
        picture = decode_image(content)
        size = (int(row["width"]), int(row["height"]))
        turned = row["exif_orientation"] in {"5", "6", "7", "8"}
        assert (name, picture.mode, picture.size) == (name, "RGB", size[::-1] if turned else size)


def test_a_sixteen_bit_photograph_looks_like_its_eight_bit_twin(awkward):
    """The 16-bit gray photograph equals the same photograph in 8 bits; clipped it would be nearly white."""
    deep = np.asarray(decode_image(awkward["made_hopper_16bit.png"][1])).astype(float)
    plain = np.asarray(decode_image(awkward["hopper_gray.jpg"][1])).astype(float)
    assert np.abs(deep - plain).mean() < 4


def test_rotated_twins_look_alike(awkward):
    """The same photograph stored upright, mirrored and turned by EXIF decodes to the same picture."""
    upright = np.asarray(decode_image(awkward["made_png_named.jpg"][1])).astype(float)
    for name in ("hopper_orientation_2.jpg", "hopper_orientation_6.jpg", "hopper_orientation_6.webp"):
        assert np.abs(np.asarray(decode_image(awkward[name][1])) - upright).mean() < 6, name


def test_transparency_is_white_in_png_and_gif(awkward):
    """The corner of both files is fully transparent."""
    for name in ("transparent.png", "transparent.gif"):
        assert np.asarray(decode_image(awkward[name][1]))[0, 0].tolist() == [255, 255, 255]

"""The decoder on real awkward files."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from cprd_pipeline.corpus.images import decode_image
from cprd_pipeline.errors import CorpusError

REFUSED = {
    "broken.png": "not an image",
    "broken_data_stream.png": "unrecognized data stream",
    "chelsea.jxl": "a JPEG XL picture",
    "decompression_bomb.gif": "pixels",
    "hopper.heif": "a HEIF photograph",
    "lfs_pointer.jpg": "git lfs pull",
    "made_huge_108MP.png": "12000 x 9000 pixels",
    "made_huge_200MP.png": "pixels",
    "png_decompression_dos.png": "too large",
    "truncated_image.png": "truncated",
    "truncated_jpeg.jpg": "truncated",
    "ultrahdr.jpg": "truncated",
    "xet_pointer.jpg": "a Xet pointer",
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


def test_cmyk_has_its_colours(awkward):
    """Inks are stored inverted: the upper left corner is red, the opposite one black."""
    found = np.asarray(decode_image(awkward["pil_sample_cmyk.jpg"][1])).astype(int)
    assert found[0, 0, 0] > 200 > 60 > found[0, 0, 1:].max()
    assert found[-1, -1].max() < 30


def test_animations_give_their_first_frame(awkward):
    """The same as a file of that frame alone."""
    for name in ("chi.gif", "iss634.webp", "sugarshack.mpo", "apng_mode_16bit.png"):
        content = awkward[name][1]
        with Image.open(io.BytesIO(content)) as animation:
            assert animation.n_frames > 1
            animation.seek(0)
            alone = io.BytesIO()
            animation.convert("RGBA").save(alone, "PNG")
        assert np.array_equal(decode_image(content), decode_image(alone.getvalue())), name


def test_rotation_by_xmp_alone(awkward):
    """Upside down in the file."""
    content = awkward["xmp_tags_orientation.png"][1]
    with Image.open(io.BytesIO(content)) as stored:
        turned = stored.convert("RGBA").rotate(180)
    found = np.asarray(decode_image(content)).astype(int)
    opaque = np.asarray(turned)[..., 3] == 255
    assert opaque.mean() > 0.5
    assert np.array_equal(found[opaque], np.asarray(turned)[..., :3][opaque])


def test_transparency_is_white_in_png_and_gif(awkward):
    """The corner of both files is fully transparent."""
    for name in ("transparent.png", "transparent.gif"):
        assert np.asarray(decode_image(awkward[name][1]))[0, 0].tolist() == [255, 255, 255]

"""The decoder: right pixels, or a reason."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngInfo

from cprd_pipeline.corpus.images import FORMATS, decode_image
from cprd_pipeline.errors import CorpusError
from tests.corpus.conftest import picture

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n(any program) print\nshowpage\n%%EOF\n"


def encode(image: Image.Image, form: str = "PNG", **options) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray:
    """The decoder's pixels."""
    return np.asarray(decode_image(content))


# Where the stored picture's upper left corner comes from, by the EXIF standard's table of orientations.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation_is_applied(orientation):
    """All eight orientations, against NumPy."""
    stored = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(pixels(encode(Image.fromarray(stored), exif=exif)), UPRIGHT[orientation](stored))


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {}</rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", ['tiff:Orientation="6"/>', "><tiff:Orientation>6</tiff:Orientation></rdf:Description>"])
def test_xmp_rotation_is_applied(form, orientation):
    """Editors write the orientation there alone: as an attribute or as an element, in any format."""
    stored = np.zeros((16, 32, 3), dtype=np.uint8)
    stored[:, :16] = 255
    xmp = XMP.format(orientation)
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    options = {"PNG": {"pnginfo": info}, "TIFF": {"tiffinfo": {700: xmp.encode()}}}.get(form, {"xmp": xmp.encode()})
    found = pixels(encode(Image.fromarray(stored), form, **options)).astype(int)
    assert np.abs(found - UPRIGHT[6](stored)).max() < 30


def test_sixteen_bit_gray_is_scaled():
    """The whole range of 16 bits becomes the whole range of 8; convert("RGB") would clip it to white."""
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    found = pixels(encode(Image.fromarray(values)))
    assert np.array_equal(found[..., 0].ravel(), np.arange(256))
    assert (found[..., 0] == found[..., 2]).all()


def test_sixteen_bit_gray_of_mode_i_is_scaled():
    """Pillow opens 16-bit PGM files as 32-bit integers."""
    values = np.array([[0, 65535], [128 * 256, 200 * 256]], dtype=">u2")
    content = b"P5 2 2 65535\n" + values.tobytes()
    assert pixels(content)[..., 1].tolist() == [[0, 255], [128, 200]]


def test_sixteen_bit_transparency_is_white():
    """A PNG may name one gray value as transparent."""
    values = np.array([[0, 1000], [2000, 65535]], dtype=np.uint16)
    content = encode(Image.fromarray(values))
    chunk = b"tRNS" + struct.pack(">H", 1000)
    place = content.index(b"IDAT") - 4
    spliced = content[:place] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[place:]
    assert pixels(spliced)[..., 0].tolist() == [[0, 255], [7, 255]]


@pytest.mark.parametrize(("bits", "photometric"), [(12, 1), (16, 0)])
def test_gray_that_pillow_passes_on_wrongly_is_refused(bits, photometric):
    """A TIFF of 12 bits would come out black, one whose white is zero as a negative."""
    with pytest.raises(CorpusError, match=rf"gray TIFF of \({bits},\) bits, photometric {photometric}; expected 16 bits"):
        decode_image(gray_tiff(bits, photometric))


def test_a_big_endian_tiff_of_16_bits_is_scaled():
    """The refusal of odd grays leaves the ordinary ones alone, in either order of bytes."""
    assert pixels(gray_tiff(16, 1))[0, 0].tolist() == [0x12] * 3
    values = np.array([[0x1234]], dtype=">u2")
    content = encode(Image.frombytes("I;16B", (1, 1), values.tobytes()), "TIFF")
    assert pixels(content)[0, 0].tolist() == [0x12] * 3


def gray_tiff(bits: int, photometric: int) -> bytes:
    """Two pixels in a row, uncompressed, the first 0x1234."""
    data = {12: b"\x12\x34\x56", 16: b"\x34\x12\x00\x00"}[bits]
    tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = data.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_known_white_are_refused(mode):
    """Nobody can say how bright a 32-bit integer or a float is."""
    with pytest.raises(CorpusError, match=f"mode {mode}"):
        decode_image(encode(Image.fromarray(np.ones((4, 4))).convert(mode), "TIFF"))


def test_transparency_is_composed_on_white():
    """Alpha * colour + (1 - alpha) * white, within rounding."""
    rgba = np.random.default_rng(1).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(pixels(encode(Image.fromarray(rgba))) - expected).max() <= 1


def test_palette_transparency_is_composed_on_white():
    """A palette entry that a GIF calls transparent is white; the others keep their colours."""
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image, transparency=0)).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_gray_and_alpha():
    """LA: transparent black is white."""
    assert pixels(encode(Image.new("LA", (1, 1), (0, 0)))).tolist() == [[[255, 255, 255]]]


def test_cmyk_becomes_rgb():
    """Full magenta and yellow ink make red."""
    red, green, blue = pixels(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[4, 4]
    assert red > 240
    assert green < 15
    assert blue < 15


def test_only_the_first_frame_counts():
    """An animation gives its first picture."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(content)[0, 0].tolist() == [255, 0, 0]


def test_large_pictures_are_refused_before_they_are_decoded():
    """The bound is inclusive; past it the size is named."""
    content = picture(0, size=(20, 12))
    assert decode_image(content, max_pixels=240).size == (20, 12)
    with pytest.raises(CorpusError, match="20 x 12 pixels; expected at most 239"):
        decode_image(content, max_pixels=239)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (10, 2001)])
def test_strips_are_refused(size):
    """A processor that brings the shorter side to 224 would make gigabytes of them."""
    with pytest.raises(CorpusError, match=f"{size[0]} x {size[1]} pixels; expected no side more than 200 times the other"):
        decode_image(encode(Image.new("1", size)))


def test_narrow_pictures_are_fine():
    """The bound is inclusive; a single pixel is a picture too."""
    assert decode_image(encode(Image.new("1", (10, 2000)))).size == (10, 2000)
    assert decode_image(encode(Image.new("RGB", (1, 1)))).size == (1, 1)


@pytest.mark.parametrize("size", [(12000, 9000), (20000, 10000)])
def test_decompression_bombs_are_refused(size):
    """Between Pillow's warning and its error, and above both."""
    with pytest.raises(CorpusError, match=r"pixels"):
        decode_image(bomb(*size))


def bomb(width: int, height: int) -> bytes:
    """A few kilobytes that claim a huge 1-bit picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(form, share):
    """A file that was cut anywhere gives a reason, never half a picture."""
    content = picture(3, form, size=(200, 150))
    with pytest.raises(CorpusError, match=r"cannot be decoded|not an image"):
        decode_image(content[: int(len(content) * share)])


def test_a_broken_stream_is_refused():
    """Pillow raises at the first load() of it and passes the second."""
    content = bytearray(picture(4, size=(100, 100)))
    content[content.index(b"IDAT") + 2000] ^= 0xFF
    with pytest.raises(CorpusError, match="cannot be decoded"):
        decode_image(bytes(content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"# xet version 0\nfilesize = 1\n", "a Xet pointer"),
        (b"<html>not found</html>", "a web page"),
        (b"\n  <!DOCTYPE HTML><title>403</title>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\0\0\0\x1cftypheic\0\0\0\0", "HEIF.*convert it"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL.*convert it"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "an EPS picture, which is not read; convert it to PNG or JPEG"),
        (b"\xc5\xd0\xd3\xc6\x1e\0\0\0", "an EPS picture"),
        (b"\xd7\xcd\xc6\x9a\0\0", "a WMF drawing"),
        (b"\1\0\0\0" + bytes(36) + b" EMF", "an EMF drawing"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"id,caption\n", r"not an image in a format that is read \(begins with b'id,caption"),
    ],
)
def test_what_is_no_image_gets_its_reason(content, reason):
    """The reason says what was found in its place."""
    with pytest.raises(CorpusError, match=reason):
        decode_image(content)


@pytest.mark.parametrize("content", [EPS, b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 30, len(EPS)) + bytes(18) + EPS])
def test_no_program_is_started(content, tmp_path, monkeypatch):
    """Pillow would hand the file to Ghostscript; this one tells that it ran."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked for anew
    with pytest.raises(CorpusError, match="an EPS picture, which is not read"):
        decode_image(content)
    assert not (tmp_path / "ran").exists()


def test_readers_of_other_packages_are_not_asked():
    """The pixels of a corpus do not depend on what else is installed."""
    Image.register_open("MADE UP", lambda file, name: Image.new("RGB", (1, 1)), lambda prefix: prefix.startswith(b"made up"))
    try:
        with pytest.raises(CorpusError, match="not an image in a format that is read"):
            decode_image(b"made up")
    finally:
        Image.ID.remove("MADE UP")
        del Image.OPEN["MADE UP"]


@pytest.mark.parametrize("form", sorted(FORMATS - {"PSD"}))
def test_every_format_of_the_list_is_read(form):
    """Pillow writes all of them but Photoshop's."""
    assert decode_image(picture(6, form, size=(16, 16))).size == (16, 16)


def test_a_photoshop_file_is_read():
    """Its flattened picture: one red pixel, uncompressed."""
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 1, 1, 8, 3)
    assert pixels(head + bytes(12) + bytes(2) + b"\xff\0\0").tolist() == [[[255, 0, 0]]]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(form=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF"]), data=st.data())
def test_damaged_bytes_give_a_picture_or_a_reason(form, data):
    """Whatever bytes are changed: RGB, or a CorpusError, and no warning."""
    content = bytearray(picture(5, form, size=(16, 16)))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode_image(bytes(content)).mode == "RGB"
    except CorpusError as error:
        assert error.found  # noqa: PT017

"""Names for what lies in the place of a picture: pointers of version control, pages of errors, formats that are not read."""

_REFUSED = "{}, which is not read; convert it to PNG or JPEG"
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer instead of the picture (`git lfs pull` brings it)"),
    (b"# xet version", "a Xet pointer instead of the picture (`git xet install` and a new checkout bring it)"),
    (b"\xff\x0a", "a JPEG XL picture, which Pillow does not read; convert it"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture, which Pillow does not read; convert it"),
    (b"<!doctype html", "a web page instead of the picture"),
    (b"<html", "a web page instead of the picture"),
    (b"<svg", "an SVG drawing, which has no pixels; convert it"),
    (b"%!PS", _REFUSED.format("an EPS picture")),
    (b"\xc5\xd0\xd3\xc6", _REFUSED.format("an EPS picture")),  # with a preview before the program
    (b"%PDF", _REFUSED.format("a PDF document")),
    (b"\xd7\xcd\xc6\x9a", _REFUSED.format("a WMF drawing")),
    (b"SIMPLE  =", _REFUSED.format("a FITS picture")),
    (b"\x89HDF\r\n", _REFUSED.format("an HDF5 file")),
    (b"GRIB", _REFUSED.format("a GRIB file")),
    (b"BUFR", _REFUSED.format("a BUFR file")),
    (b"icns", _REFUSED.format("an ICNS picture")),
    (b"DDS ", _REFUSED.format("a DDS picture")),
    (b"/* XPM */", _REFUSED.format("an XPM picture")),
)

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # after the four letters `ftyp`


def name_foreign(content: bytes) -> str:
    """What a file is that no reader wants, as a reason.

    Args:
        content: The whole file; not empty.
    """
    beginning = content.lstrip()[:32].lower() if content[:1] in (b"<", b" ", b"\n", b"\r", b"\t") else content[:32]
    for mark, name in _BEGINNINGS:
        if beginning.startswith(mark):
            return name
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        return "a HEIF photograph (HEIC), which Pillow does not read; convert it"
    if content[:4] == b"\x01\0\0\0" and content[40:44] == b" EMF":
        return _REFUSED.format("an EMF drawing")
    return f"not an image in a format that is read (begins with {content[:12]!r})"

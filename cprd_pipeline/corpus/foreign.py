"""Names for what lies in the place of a picture: pointers of version control, pages of errors, formats Pillow does not know."""

_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer instead of the picture (`git lfs pull` brings it)"),
    (b"# xet version", "a Xet pointer instead of the picture (`git xet install` and a new checkout bring it)"),
    (b"\xff\x0a", "a JPEG XL picture, which Pillow does not read; convert it"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture, which Pillow does not read; convert it"),
    (b"<!doctype html", "a web page instead of the picture"),
    (b"<html", "a web page instead of the picture"),
    (b"<svg", "an SVG drawing, which has no pixels; convert it"),
)

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # after the four letters `ftyp`


def name_foreign(content: bytes) -> str:
    """What a file is that no decoder of Pillow wants, as a reason.

    Args:
        content: The whole file; not empty.
    """
    beginning = content.lstrip()[:32].lower() if content[:1] in (b"<", b" ", b"\n", b"\r", b"\t") else content[:32]
    for mark, name in _BEGINNINGS:
        if beginning.startswith(mark):
            return name
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        return "a HEIF photograph (HEIC), which Pillow does not read; convert it"
    return f"not an image that Pillow can read (begins with {content[:12]!r})"

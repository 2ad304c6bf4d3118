"""What the first bytes of a medium tell, and bytes as the text of a data: URL."""

import base64
import mimetypes
import os

_MAGIC = (
    (b"\x89PNG\r\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"\x1aE\xdf\xa3", ".mkv"),
    (b"FLV\1", ".flv"),
    (b"OggS", ".ogv"),
    (b"\0\0\1\xba", ".mpg"),
    (b"\x47\x40", ".ts"),
)


def kind_of(data: bytes) -> str:
    """Returns the ending that belongs to the first bytes of a medium; empty where they are unknown.

    >>> kind_of(b"\\x89PNG\\r\\n\\x1a\\n")
    '.png'
    """
    if data[:4] == b"RIFF":
        return {b"WEBP": ".webp", b"AVI ": ".avi"}.get(data[8:12], "")
    if data[4:8] == b"ftyp":
        return ".avif" if data[8:12] in (b"avif", b"avis") else ".mp4"
    return next((ending for magic, ending in _MAGIC if data.startswith(magic)), "")


def url_of(data: bytes, name: str = "") -> str:
    """Returns bytes as text: what they spell, or, of a medium, a data: URL.

    >>> url_of(b"\\xff\\xd8\\xff"), url_of("no".encode())
    ('data:image/jpeg;base64,/9j/', 'no')

    Args:
        data: of an image, a video or a text.
        name: what it was called; gives the kind where the bytes do not tell.
    """
    ending = kind_of(data) or os.path.splitext(name)[1].lower()
    if not ending:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            pass
    kind = mimetypes.guess_type(f"a{ending}")[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

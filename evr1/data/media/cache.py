"""Media that data files hold as bytes, written to files once, so that no run holds them in memory.

The name of a file is a hash of its content: equal bytes are one file, and a second run finds it.
"""

import base64
import binascii
import hashlib
import os
import pathlib
import re
import tempfile
import threading

from evr1.formats.media_bytes import kind_of

_CACHED = re.compile(r"[0-9a-f]{32}(\.\w+)?")


class MediaCache:
    """A folder of media by their content; made when the first one comes."""

    def __init__(self, directory: str = ""):
        """Takes the folder; empty: evr1/media in the user's cache directory."""
        # Absolute: a relative path in a row is one under data.media_dir.
        self.root = pathlib.Path(directory).absolute() if directory else default_directory()
        self._written: set[str] = set()
        self._lock = threading.Lock()

    def put(self, data: bytes, name: str = "") -> str:
        """Returns the path of a file with these bytes; writes it where it is not there.

        Args:
            data: of an image or a video.
            name: what it was called; gives the ending where the bytes do not tell.

        Raises:
            ValueError: the folder cannot be written.
        """
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        ending = kind_of(data) or os.path.splitext(name)[1].lower()
        path = self.root / digest[:2] / f"{digest}{ending}"
        with self._lock:
            if digest in self._written:
                return str(path)
            try:
                if not path.is_file() or path.stat().st_size != len(data):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _write(path, data)
            except OSError as error:
                raise ValueError(
                    f"data.media_cache={self.root}: {error.strerror or error}; the rows hold media "
                    "as bytes: give a folder that can be written and has room for them"
                ) from None
            self._written.add(digest)
        return str(path)

    def put_url(self, url: str) -> str:
        """Returns the path of a file with what a data: URL holds; the URL itself if it is none.

        >>> MediaCache().put_url("a.png")
        'a.png'
        """
        head, _, text = url[:64].partition(",")
        if not head.startswith(("data:image/", "data:video/")) or not head.endswith(";base64"):
            return url
        try:
            data = base64.b64decode(url[len(head) + 1 :], validate=True)
        except (ValueError, binascii.Error):
            return url
        return self.put(data, f".{head.partition('/')[2].partition(';')[0]}") if data else url


def place_free(path: str) -> str:
    """Returns the name of a file of a cache, wherever that lies; other paths as they are.

    >>> place_free("/home/a/.cache/evr1/media/0f/0f0123456789abcdef0123456789abcd.png")
    '0f0123456789abcdef0123456789abcd.png'
    """
    name = os.path.basename(path)
    is_cached = _CACHED.fullmatch(name) and os.path.basename(os.path.dirname(path)) == name[:2]
    return name if is_cached else path


def default_directory() -> pathlib.Path:
    """The folder of media in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "evr1" / "media"


def _write(path: pathlib.Path, data: bytes) -> None:
    """Writes a file whole: others that run at the same time never see a part of it."""
    number, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        pathlib.Path(part).unlink(missing_ok=True)
        raise

"""The bytes of media that requests show: where they may come from, and that they are what they say.

Decoders read files, so what comes as bytes lies in a folder of the server's own while it is asked
about. FFmpeg would follow the paths in a playlist; only containers that hold their own frames pass.
"""

import base64
import binascii
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import tempfile
import threading
from collections.abc import Iterator
from urllib.parse import unquote

from evr1.data import entries
from evr1.formats.media_bytes import kind_of
from evr1.serve.errors import Refusal
from evr1.serve.fetch import Fetcher
from evr1.serve.gate import full

_HEAD = 4096  # characters of a data: URL before its comma, at most
_MAGIC_BYTES = 64
FILES = 4  # as large as one may be, at a time
_ENDINGS = {"image": entries.PICTURES, "video": entries.VIDEOS | {".gif", ".webp", ".avif"}}


@dataclasses.dataclass(frozen=True)
class Medium:
    """A medium as a file.

    Attributes:
        kind: image or video.
        path: of the file.
        digest: of its content, or of what tells a file of `media_dir` from others.
    """

    kind: str
    path: str
    digest: str


class MediaFolder:
    """Files of the media of requests; any thread may use it."""

    def __init__(self, media_dir: str, fetch: Fetcher, limit: int):
        """Makes a folder for bytes.

        Args:
            media_dir: whose files may be read; empty: none.
            fetch: reads addresses.
            limit: bytes of a medium.
        """
        self._media_dir = os.path.realpath(media_dir) if media_dir else ""
        self._fetch, self._limit = fetch, limit
        self._folder: tempfile.TemporaryDirectory | None = None  # made once it is needed
        self._users: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Removes the folder."""
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def files(self) -> int:
        """How many media lie in the folder."""
        return len(self._users)

    @contextlib.contextmanager
    def opened(self, kind: str, url: str, param: str) -> Iterator[Medium]:
        """Yields a medium, whose file is there until the end.

        Args:
            kind: image or video.
            url: data:, file: or http address.
            param: field of the request that names it.

        Raises:
            Refusal: it may not be read, cannot be, or is of another kind.
        """
        if url[:5].lower() == "file:":
            yield self._own_file(kind, url, param)
            return
        data = self._bytes(kind, url, param)
        ending = _ending(kind, data, param)
        digest = hashlib.blake2b(data, digest_size=20).hexdigest()
        with self._lock:
            path = self._written(f"{digest}{ending}", data)
            self._users[path] = self._users.get(path, 0) + 1
        del data
        try:
            yield Medium(kind, path, digest)
        finally:
            with self._lock:
                self._users[path] -= 1
                if not self._users[path]:
                    del self._users[path], self._sizes[path]
                    pathlib.Path(path).unlink(missing_ok=True)

    def _written(self, name: str, data: bytes) -> str:
        """Returns the path of a file in the folder, which holds the bytes.

        Raises:
            Refusal: there is no room for it.
        """
        if sum(self._sizes.values()) + len(data) > FILES * self._limit:
            raise full("its media hold too many bytes")
        part = None
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(
                    prefix="evr1-serve-", ignore_cleanup_errors=True
                )
            path = pathlib.Path(self._folder.name, name)
            if str(path) not in self._users or not path.exists():
                path.parent.mkdir(mode=0o700, exist_ok=True)  # who tidies up may have removed it
                part = path.with_suffix(".part")  # a full disk leaves no half of it
                part.write_bytes(data)
                part.rename(path)
        except OSError as error:
            if part is not None:
                with contextlib.suppress(OSError):
                    part.unlink()
            raise Refusal(
                503, f"media cannot be kept: {error.strerror}", "server_storage"
            ) from None
        self._sizes[str(path)] = len(data)
        return str(path)

    def _bytes(self, kind: str, url: str, param: str) -> bytes:
        scheme = url[:8].partition(":")[0].lower()
        if scheme == "data":
            return _decoded(kind, url, param, self._limit)
        if scheme in ("http", "https"):
            return self._fetch(url, param)
        raise _refused(param, "give a data:, http(s): or file: URL")

    def _own_file(self, kind: str, url: str, param: str) -> Medium:
        # One answer for whatever is wrong: it is nobody's business which files there are.
        wrong = _refused(param, "no such file under --media_dir")
        if not self._media_dir:
            raise _refused(param, "files are not read here (--media_dir); send a data: URL")
        path = unquote(url[5:])
        if path.startswith("//"):
            path = path[2:].removeprefix("localhost") if path[2:3] != "/" else path[2:]
        if "\0" in path or len(path) > 4096:
            raise wrong
        real = os.path.realpath(os.path.join(self._media_dir, path))
        if os.path.commonpath([real, self._media_dir]) != self._media_dir:
            raise wrong
        if not os.path.isfile(real):
            raise wrong
        try:
            about = os.stat(real)
            with open(real, "rb") as file:
                _ending(kind, file.read(_MAGIC_BYTES), param)
        except OSError:
            raise wrong from None
        identity = os.fsencode(f"{real} {about.st_size} {about.st_mtime_ns}")
        return Medium(kind, real, hashlib.blake2b(identity, digest_size=20).hexdigest())


def _decoded(kind: str, url: str, param: str, limit: int) -> bytes:
    head, comma, _ = url[:_HEAD].partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise _refused(param, "a data: URL is data:TYPE;base64,DATA", "invalid_value")
    stated = head[5:].partition(";")[0].partition("/")[0].lower()
    if stated in ("image", "video") and stated != kind and head[5:].lower()[:9] != "image/gif":
        raise _refused(param, f"is to be of {kind}/..., not {stated}/...", "invalid_value")
    if (len(url) - len(head) - 1) * 3 // 4 > limit:
        raise Refusal(413, f"{param}: over {limit} bytes", "media_too_large", param)
    try:
        return base64.b64decode(url[len(head) + 1 :], validate=True)
    except (ValueError, binascii.Error):
        raise _refused(param, "what stands behind base64, is no base64", "invalid_value") from None


def _ending(kind: str, data: bytes, param: str) -> str:
    """Returns the ending of a medium's name, by its first bytes."""
    ending = kind_of(data[:_MAGIC_BYTES])
    if ending not in _ENDINGS[kind]:
        found = f"begins as {ending[1:]} does" if ending else "is of no kind that is read here"
        raise _refused(param, f"{found}; give {'an' if kind == 'image' else 'a'} {kind}",
                       "media_undecodable")  # fmt: skip
    return ending


def _refused(param: str, reason: str, code: str = "media_not_allowed") -> Refusal:
    return Refusal(400, f"{param}: {reason}", code, param)

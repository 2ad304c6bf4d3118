"""The page of a run while it goes, on this machine alone: it follows metrics and rollouts.

Two addresses are answered, and no file is ever looked up by one: / is the page, /state a word that
changes when the run has written something. Only requests to a local name of this server are
answered, so that no page of somebody else can read it.
"""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from evr1.report import html
from evr1.report.frames import Frames, pictures_of, read_kept, within
from evr1.report.page import DECODE_S, render

HOST = "127.0.0.1"
_FILES = ("config.json", "metrics.jsonl", "rollouts.jsonl")
_SHARE = 5.0  # of what the last page took, before the next


class Live:
    """The page of a run, built again when its files have changed and someone asks.

    Args:
        workdir: of the run; nothing is written there.
        frames: see `render`.
        clock: seconds, monotonic.
    """

    def __init__(
        self, workdir: Path, frames: Frames, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workdir, self._frames, self._clock = workdir, frames, clock
        self._lock = threading.Lock()
        self._kept = read_kept(workdir / "report.html")
        self._page, self._state, self._next = "", "", 0.0

    def state(self) -> str:
        """Returns a word that is another one when a new page could be had."""
        with self._lock:
            is_early = self._page and self._clock() < self._next
            return self._state if is_early else self._written()

    def page(self) -> str:
        """Returns the page of what is written now, or of a little while ago.

        Raises:
            ValueError: as `build`.
        """
        with self._lock:
            start, state = self._clock(), self._written()
            if not self._page or (state != self._state and start >= self._next):
                frames = within(self._frames, DECODE_S)
                self._page = render(self._workdir, frames, self._kept, live=state)
                self._kept = pictures_of(html.data_of(self._page))
                self._state = state
                self._next = self._clock() + _SHARE * (self._clock() - start)
            return self._page

    def _written(self) -> str:
        """Sizes and times of the run's files."""
        stats = [p.stat() for f in _FILES if (p := self._workdir / f).exists()]
        return "-".join(f"{s.st_size:x}.{s.st_mtime_ns:x}" for s in stats)


class Server(ThreadingHTTPServer):
    """Answers on `HOST` only.

    Args:
        live: the page.
        port: 0: a free one, see `server_port`.
    """

    daemon_threads = True

    def __init__(self, live: Live, port: int) -> None:
        self.live = live
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.server_port}/"

    def is_local(self, host: str) -> bool:
        """Returns whether a request's Host header is a local name of this server."""
        return host in {f"{name}:{self.server_port}" for name in (HOST, "localhost")}


class _Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]

    def do_GET(self) -> None:
        """Answers a request."""
        if not self.server.is_local(self.headers.get("Host", "")):
            return self._answer(403, "not a local name of this server")
        if self.path not in ("/", "/state"):
            return self._answer(404, "there is / and /state")
        try:
            if self.path == "/state":
                return self._answer(200, self.server.live.state())
            return self._answer(200, self.server.live.page(), "text/html")
        except (OSError, ValueError) as error:
            return self._answer(500, f"report: {error}")

    def _answer(self, status: int, text: str, kind: str = "text/plain") -> None:
        body = text.encode("utf-8", errors="replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a page that follows asks every few seconds."""

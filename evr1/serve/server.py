"""The HTTP server: connections that say nothing are closed, SIGTERM lets answers end."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 15.0  # from a connection, or the first byte of a request, to the end of its header
CONNECTIONS = 1000


class Protocol(H11Protocol):
    """HTTP/1.1, with a time-out for the header of a request."""

    header_s = HEADER_S
    _waits: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for a request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Takes bytes; ends the wait once a header is whole."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        is_busy = self.cycle is not None and not self.cycle.response_complete
        if is_busy:
            self._stop()
        elif self._waits is None:
            self._waits = self.loop.call_later(self.header_s, self._close)

    def _close(self) -> None:
        self._waits = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _stop(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None


class Server(uvicorn.Server):
    """Runs until SIGTERM or SIGINT, or until the model's thread has ended.

    Attributes:
        signal: that ended it; 0: none did.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        drain_s: float,
        is_sound: Callable[[], bool],
        on_start: Callable[[str], None],
    ):
        """Takes what to run.

        Args:
            app: the application.
            host: to listen at.
            port: likewise; 0: a free one.
            drain_s: that answers have to end.
            is_sound: whether there is anything to run for.
            on_start: told the address.
        """
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=Protocol,
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=int(drain_s),
                limit_concurrency=CONNECTIONS,
                h11_max_incomplete_event_size=1 << 16,
            )
        )
        self.signal = 0
        self._is_sound, self._on_start = is_sound, on_start

    async def startup(self, sockets: list | None = None) -> None:
        """Listens, and says where."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_start(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def on_tick(self, counter: int) -> bool:
        """Ends where there is nothing to run for."""
        if not self._is_sound():
            self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends, at once where it was asked before."""
        self.force_exit = bool(self.signal)
        self.signal = sig
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes signals, and does not raise them again: a server that was asked to end has not
        failed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        stops = (signal.SIGINT, signal.SIGTERM)
        before = {sig: signal.signal(sig, self.handle_exit) for sig in stops}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

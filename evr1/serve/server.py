"""The HTTP server: connections that say nothing are closed, SIGTERM lets answers end."""

import asyncio
import contextlib
import errno
import json
import math
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from evr1.serve.errors import Refusal

HEADER_S = 15.0  # from a connection, or the first byte of a request, to the end of its header
SEND_S = 90.0  # that a client has to take anything at all of what waits for it
CONNECTIONS = 1000
OTHER_FILES = 500  # that a server has open


class Protocol(H11Protocol):
    """HTTP/1.1, with a time-out for the header of a request and for a client that takes nothing.

    Of more than `most` connections the one goes that has said nothing for longest.
    """

    header_s, send_s, most = HEADER_S, SEND_S, CONNECTIONS
    _waits: asyncio.TimerHandle | None = None
    _is_full: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for a request."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self.most:
            idle = [
                (each._waits.when(), number, each)
                for number, each in enumerate(self.connections)
                if isinstance(each, Protocol) and each._waits is not None
            ]
            oldest = min(idle)[2]  # this one at least has said nothing
            oldest._stop()
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Takes bytes; ends the wait once a header is whole."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        super().connection_lost(exc)
        self._stop()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Begins to wait for a client that takes too little."""
        super().pause_writing()
        self._is_full = self.loop.call_later(self.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Ends that wait."""
        super().resume_writing()
        if self._is_full is not None:
            self._is_full.cancel()
            self._is_full = None

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP, as every request is refused."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(Refusal(status, msg, "invalid_http").body()).encode()
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
            headers.append(("Connection", "close"))
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

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
        drain_s: float,
        is_sound: Callable[[], bool],
        on_start: Callable[[str], None],
    ):
        """Takes what to run.

        Args:
            app: the application.
            drain_s: that answers have to end.
            is_sound: whether there is anything to run for.
            on_start: told the address.
        """
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="off",
                log_level="error",  # it warns of each bad request
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=math.ceil(drain_s),
                backlog=128,
                h11_max_incomplete_event_size=1 << 16,
            )
        )
        self.signal = 0
        self._is_sound, self._on_start = is_sound, on_start

    async def startup(self, sockets: list | None = None) -> None:
        """Listens, and says where.

        Raises:
            ValueError: another process has begun to listen there.
        """
        try:
            await super().startup(sockets)
        except OSError as error:
            raise ValueError(f"cannot listen: {error.strerror}") from None
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


def bind(host: str, port: int) -> list[socket.socket]:
    """Returns sockets of an address, so that one in use is told of early; who listens closes them.

    Args:
        host: name or address; empty: all of this machine.
        port: 0: a free one.

    Raises:
        ValueError: the address is not this machine's, or is in use.
    """
    bound: list[socket.socket] = []
    fault: OSError | None = None
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in dict.fromkeys(found):
            # Of a free port, the others take the same.
            number = port or (bound[0].getsockname()[1] if bound else 0)
            try:
                bound.append(_bound(family, (address[0], number, *address[2:])))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                fault = error  # localhost may be an address of IPv6, too, which is not there
        if not bound:
            raise fault or OSError(errno.EADDRNOTAVAIL, "no such address")
    except OSError as error:
        for made in bound:
            made.close()
        raise ValueError(f"--host {host} --port {port}: {error.strerror}") from None
    return bound


def _bound(family: socket.AddressFamily, address: tuple) -> socket.socket:
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def room_for_connections() -> int:
    """Raises the process's limit of open files where it may; returns the connections there is room
    for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHER_FILES
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(CONNECTIONS, soft - OTHER_FILES))

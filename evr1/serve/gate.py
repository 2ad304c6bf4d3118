"""The door: keys, how many requests and how many bytes of them are held at a time."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.types import Message, Receive

from evr1.serve import keys
from evr1.serve.errors import Refusal
from evr1.serve.settings import ServeSettings

RETRY_S = 2  # that a client is told to wait where there is no room


class Gone(Exception):
    """The client has left."""


class Ticket:
    """A request's place; given back once."""

    def __init__(self, gate: "Gate"):
        self._gate, self._bytes, self._is_held = gate, 0, True
        gate.requests += 1

    def hold(self, count: int) -> None:
        """Counts bytes of the request.

        Raises:
            Refusal: all requests together hold too many.
        """
        self._bytes += count
        self._gate.bytes += count
        if self._gate.bytes > self._gate.most_bytes:
            raise full("its requests hold too many bytes")

    def give_back(self) -> None:
        """Makes room for another request."""
        if self._is_held:
            self._is_held = False
            self._gate.requests -= 1
            self._gate.bytes -= self._bytes


class Gate:
    """Lets requests in; of one event loop.

    Attributes:
        requests: that are in.
        bytes: that they hold.
        most_bytes: that they may hold.
    """

    def __init__(self, settings: ServeSettings, most_bytes: int = 1 << 30):
        """Takes the limits."""
        self._settings, self.most_bytes = settings, max(most_bytes, settings.limits.body_bytes)
        self.requests = self.bytes = 0
        self.most_requests = settings.queue + settings.slots * settings.rows

    def check_key(self, request: Request) -> None:
        """Raises Refusal where the request has no key that is known."""
        if not keys.is_known(request.headers.get("authorization", ""), self._settings.access.keys):
            raise Refusal(
                401, "no such API key; send Authorization: Bearer KEY", "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    def enter(self) -> Ticket:
        """Returns a request's place.

        Raises:
            Refusal: there is none.
        """
        if self.requests >= self.most_requests:
            raise full("its queue is full")
        return Ticket(self)

    async def read(self, request: Request, receive: Receive, ticket: Ticket) -> bytearray:
        """Returns the body of a request.

        Raises:
            Refusal: it is too long, or too slow.
            Gone: it ends in the middle.
        """
        limits = self._settings.limits
        stated = request.headers.get("content-length", "0")
        if stated.isdecimal() and int(stated) > limits.body_bytes:
            raise _too_long(limits.body_bytes)
        body, end = bytearray(), time.monotonic() + limits.body_s
        while True:
            message = await within(receive, end)
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            ticket.hold(len(part))
            body += part
            if len(body) > limits.body_bytes:
                raise _too_long(limits.body_bytes)
            if not message.get("more_body"):
                return body


async def within(receive: Receive, end: float) -> Message:
    """Returns what comes next.

    Raises:
        Refusal: nothing comes until the end.
    """
    try:
        return await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
    except TimeoutError:
        raise Refusal(408, "the request did not arrive in time", "request_timeout") from None


def parse(body: bytearray, most_values: int) -> Any:
    """Returns what a body says.

    Args:
        body: it.
        most_values: a value takes many times the bytes that spell it; marks in texts count too.

    Raises:
        Refusal: it is no JSON in UTF-8, names a field twice, or holds too many values.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > most_values:
        raise Refusal(400, f"the body: over {most_values} commas and brackets", "limit_exceeded")
    try:
        fields = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_fields)
        if b"\\ud" in body or b"\\uD" in body:  # half a surrogate pair is no text
            json.dumps(fields, ensure_ascii=False).encode()
        return fields
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is no JSON in UTF-8", "invalid_json") from None


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in fields if names.count(name) > 1)[:80]
        raise Refusal(400, f"{twice}: stands there twice; give it once", "invalid_json", twice)
    return fields


def full(why: str) -> Refusal:
    """Returns what is said to a client for whom there is no room."""
    return Refusal(
        429, f"the server has no room for more: {why}; try again in {RETRY_S} s",
        "server_overloaded", headers={"Retry-After": str(RETRY_S)},
    )  # fmt: skip


def _too_long(limit: int) -> Refusal:
    return Refusal(413, f"the body is over {limit} bytes", "body_too_large",
                   headers={"Connection": "close"})  # fmt: skip


Send = Callable[[Message], Awaitable[None]]

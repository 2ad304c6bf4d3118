"""Chat completions: one request from its first byte to its answer's last."""

import asyncio
import contextlib
import json
import secrets
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from evr1.sampler.live import Drawn
from evr1.serve import answers, prompts, schema
from evr1.serve.errors import Refusal
from evr1.serve.gate import Gate, Gone, Ticket, parse
from evr1.serve.metrics import Metrics
from evr1.serve.prepare import Prepared, Preparer
from evr1.serve.schema import ChatRequest
from evr1.serve.settings import ServeSettings
from evr1.serve.text import Answer
from evr1.serve.worker import Job, Worker, of_reason

GRACE_S = 5.0  # after a deadline, for the worker to say so


class Chat:
    """POST /v1/chat/completions."""

    def __init__(
        self,
        settings: ServeSettings,
        worker: Worker,
        preparer: Preparer,
        gate: Gate,
        threads: ThreadPoolExecutor,
        parsers: ThreadPoolExecutor,
        metrics: Metrics,
    ):
        """Takes what answers requests; what reads bodies does not wait for those of media."""
        self._settings, self._worker, self._preparer = settings, worker, preparer
        self._gate, self._threads, self._metrics = gate, threads, metrics
        self._parsers = parsers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it; leaves nothing behind where the client leaves."""
        request, begun, status = Request(scope), time.monotonic(), "gone"
        talk = Talk(receive, send)
        try:
            self._gate.check_key(request)
            ticket = self._gate.enter()
            try:
                body = await self._gate.read(request, receive, ticket)
                talk.watch()
                status = await self._answer(body, ticket, talk, begun)
            finally:
                if not talk.is_owed:
                    ticket.give_back()
        except Refusal as refusal:
            status = str(refusal.status)
            with contextlib.suppress(Gone):
                await talk.refuse(refusal)
        except Gone:
            pass
        except asyncio.CancelledError:  # the server ends, and its time to drain is over
            status = "503"
            with contextlib.suppress(Gone):
                await talk.refuse(Refusal(*of_reason("cancelled")))
        finally:
            talk.close()
            self._metrics.requests.labels(status).inc()
            self._metrics.seconds.observe(time.monotonic() - begun)

    async def _answer(self, body: bytearray, ticket: Ticket, talk: "Talk", begun: float) -> str:
        loop = asyncio.get_running_loop()
        request = await loop.run_in_executor(self._parsers, self._understood, body)
        body.clear()
        settings = self._settings
        if settings.logs_requests:
            with contextlib.suppress(OSError):  # who reads it may be gone
                print(_shown(request), file=sys.stderr, flush=True)
        if request.model != settings.name:
            raise Refusal(404, f"model: there is no {request.model[:80]!r}, but {settings.name!r}",
                          "model_not_found", "model")  # fmt: skip
        limit = settings.limits.timeout_s
        end = begun + min(request.timeout_s or limit, limit)
        stack, unwanted = contextlib.ExitStack(), threading.Event()
        work = loop.run_in_executor(self._threads, self._preparer, request, stack, unwanted)
        try:
            await talk.until(work, end)
            prepared = work.result()
            self._metrics.prompt_tokens.inc(prepared.prompt_tokens)
            await self._draw(request, prepared, talk, begun, end)
        finally:
            if work.done():
                if not work.cancelled():
                    work.exception()  # or asyncio tells of it, where the client left meanwhile
                stack.close()
            else:  # a decoder is at it; its place is free when it is
                unwanted.set()
                talk.is_owed = True
                work.add_done_callback(lambda work: _give_back(work, stack, ticket))
        return "200"

    def _understood(self, body: bytearray) -> ChatRequest:
        limits = self._settings.limits
        request = schema.read(parse(body, limits.values))
        if len(request.messages) > limits.turns:
            raise Refusal(400, f"messages: {len(request.messages)} turns, over {limits.turns}",
                          "context_length_exceeded", "messages")  # fmt: skip
        characters = sum(prompts.characters(message) for message in request.messages)
        if characters > limits.characters:  # to count its tokens would take long
            raise Refusal(400, f"messages: {characters} characters, over {limits.characters}",
                          "context_length_exceeded", "messages")  # fmt: skip
        return request

    async def _draw(
        self, request: ChatRequest, prepared: Prepared, talk: "Talk", begun: float, end: float
    ) -> None:
        """Has a request drawn, and says what comes."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue()

        def put(event: tuple[int, Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(events.put_nowait, event)

        job = Job(
            prepared.asks,
            on_drawn=lambda number, drawn: put((number, drawn)),
            on_end=lambda why: put((-1, why)),
            deadline=end,
        )
        made = [
            Answer(
                prepared.processor, request.stops, request.top_logprobs or 0, bool(request.logprobs)
            )  # fmt: skip
            for _ in prepared.asks
        ]
        about = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": self._settings.name,
        }
        has_usage = bool(request.stream_options and request.stream_options.include_usage)
        is_over = False
        self._worker.submit(job)
        try:
            async for number in self._collect(job, made, events, talk, end):
                if about.setdefault("system_fingerprint", job.version) and not talk.has_begun:
                    self._metrics.first_seconds.observe(time.monotonic() - begun)
                    if request.stream:
                        await talk.begin_stream()
                if request.stream:
                    await self._say(talk, about, number, made[number], has_usage)
            is_over = True
        finally:
            if not is_over:
                self._worker.cancel(job)
        if not request.stream:
            await talk.reply(answers.completion(about, made, prepared.prompt_tokens))
            return
        if has_usage:
            await talk.event(answers.last_chunk(about, made, prepared.prompt_tokens))
        await talk.end_stream()

    async def _collect(
        self, job: Job, made: list[Answer], events: asyncio.Queue, talk: "Talk", end: float
    ) -> AsyncIterator[int]:
        """Yields the number of an answer whenever there is more of it, until all are there."""
        while not all(answer.finish for answer in made):
            number, event = await talk.next(events, end + GRACE_S)
            if number < 0:
                raise Refusal(*of_reason(event))
            answer = made[number]
            if answer.finish:
                continue
            assert isinstance(event, Drawn)
            answer.add(event)
            if answer.is_broken:
                raise Refusal(500, "the model's logits are not finite", "not_finite")
            if answer.finish and not event.is_done:
                self._worker.stop(job, number)
            yield number

    async def _say(
        self, talk: "Talk", about: dict[str, Any], number: int, answer: Answer, has_usage: bool
    ) -> None:
        more = {"usage": None} if has_usage else {}
        if number not in talk.introduced:
            talk.introduced.add(number)
            role = {"role": "assistant", "content": "", "refusal": None}
            await talk.event(answers.chunk(about, number, role, answer, ()) | more)
        text, told = answer.take()
        if text or told:
            await talk.event(answers.chunk(about, number, {"content": text}, answer, told) | more)
        if answer.finish:
            await talk.event(answers.chunk(about, number, {}, answer, ()) | more)


class Talk:
    """What is said to a client, who may leave at any time.

    Attributes:
        has_begun: a response has.
        is_owed: somebody else gives the ticket back.
        introduced: answers whose role was told.
    """

    def __init__(self, receive: Receive, send: Send):
        """Takes the connection."""
        self.has_begun = self.is_owed = False
        self.introduced: set[int] = set()
        self._receive, self._send = receive, send
        self._gone: asyncio.Task | None = None

    def watch(self) -> None:
        """Begins to look whether the client leaves; its body is read."""

        async def look() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass

        self._gone = asyncio.create_task(look())

    def close(self) -> None:
        """Ends the look."""
        if self._gone is not None:
            self._gone.cancel()

    async def next(self, events: asyncio.Queue, end: float) -> Any:
        """Returns the next event.

        Raises:
            Gone: the client has left.
            Refusal: there is none until the end.
        """
        coming = asyncio.ensure_future(events.get())
        try:
            await self.until(coming, end)
        finally:
            if not coming.done():
                coming.cancel()
        return coming.result()

    async def until(self, work: asyncio.Future, end: float) -> None:
        """Waits until something is done.

        Raises:
            Gone: the client has left.
            Refusal: it is not done at the end.
        """
        assert self._gone is not None
        await asyncio.wait(
            [work, self._gone],
            timeout=max(0.0, end - time.monotonic()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._gone.done():
            raise Gone
        if not work.done():
            raise Refusal(*of_reason("timeout"))

    async def reply(self, body: dict[str, Any], status: int = 200, headers: Any = None) -> None:
        """Sends a whole response."""
        self.has_begun = True
        response = JSONResponse(body, status, headers)
        start = {"type": "http.response.start", "status": status, "headers": response.raw_headers}
        await self._put(start)
        await self._put({"type": "http.response.body", "body": response.body})

    async def refuse(self, refusal: Refusal) -> None:
        """Sends a refusal, in the middle of a stream as an event of its own."""
        if not self.has_begun:
            await self.reply(refusal.body(), refusal.status, refusal.headers)
            return
        await self.event(refusal.body())
        await self._put({"type": "http.response.body", "body": b""})

    async def begin_stream(self) -> None:
        """Sends the head of a stream of events."""
        self.has_begun = True
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        await self._put({"type": "http.response.start", "status": 200, "headers": headers})

    async def event(self, body: dict[str, Any]) -> None:
        """Sends an event."""
        await self._data(json.dumps(body, ensure_ascii=False, separators=(",", ":")))

    async def end_stream(self) -> None:
        """Sends the last event."""
        await self._data("[DONE]")
        await self._put({"type": "http.response.body", "body": b""})

    async def _data(self, text: str) -> None:
        data = f"data: {text}\n\n".encode("utf-8", "replace")
        await self._put({"type": "http.response.body", "body": data, "more_body": True})

    async def _put(self, message: dict[str, Any]) -> None:
        """Sends a message.

        Raises:
            Gone: the client has left, or takes nothing.
        """
        try:
            await asyncio.wait_for(self._send(message), SEND_S)
        except (TimeoutError, OSError):
            raise Gone from None


SEND_S = 60.0  # that a client has to take what it is sent


def _give_back(work: asyncio.Future, stack: contextlib.ExitStack, ticket: Ticket) -> None:
    if not work.cancelled():
        work.exception()  # nobody else asks
    stack.close()
    ticket.give_back()


def _shown(request: ChatRequest) -> str:
    """Returns a request as a line, its media cut short."""
    text = request.model_dump(exclude_none=True, exclude_defaults=True)
    return json.dumps(_cut(text))  # in ASCII: there are more ends of lines than one thinks


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_cut(each) for each in value]
    is_data = isinstance(value, str) and value[:5].lower() == "data:"
    return f"{value[:40]}... ({len(value)} characters)" if is_data else value

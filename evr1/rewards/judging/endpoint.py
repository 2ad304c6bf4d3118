"""A model behind an OpenAI-compatible endpoint: requests, retries, and bounds on both."""

import contextlib
import datetime
import email.utils
import http.client
import json
import math
import os
import random
import socket
import threading
import time
import urllib.parse
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

from evr1.rewards.base import Status
from evr1.rewards.judging.chat import Prompt, Reply
from evr1.rewards.judging.judge_prompt import clean

MAX_BODY_BYTES = 1 << 20
MAX_WAIT_S = 60.0  # between two attempts, where the endpoint does not ask for more
_SHOWN = 200  # characters of a bad reply that a message shows


class Endpoint:
    """A model that is asked over HTTP, several prompts at a time; any thread may call it."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_env: str = "",
        max_tokens: int = 256,
        timeout_s: float = 60.0,
        deadline_s: float = 600.0,
        concurrency: int = 16,
        retries: int = 3,
        backoff_s: float = 0.5,
    ) -> None:
        """Checks the arguments; connects to nothing yet.

        Args:
            url: base URL, to which /chat/completions is added.
            model: name of the model at the endpoint.
            api_key_env: environment variable that holds the API key; empty: none is sent.
            max_tokens: of a reply.
            timeout_s: for one request, from connecting to the last byte.
            deadline_s: for one prompt, retries and waits included.
            concurrency: requests at a time.
            retries: further attempts after 429, 5xx and connection errors.
            backoff_s: wait before the first of them; doubles each time.

        Raises:
            ValueError: an argument is out of range, or the API key is not set.
        """
        if not model:
            raise ValueError("the judge's model is not given; name one that the endpoint serves")
        if min(timeout_s, deadline_s, max_tokens, concurrency) <= 0 or min(retries, backoff_s) < 0:
            raise ValueError(
                f"timeout_s={timeout_s}, deadline_s={deadline_s}, max_tokens={max_tokens} and "
                f"concurrency={concurrency} of the judge must be above 0, retries={retries} and "
                f"backoff_s={backoff_s} not below"
            )
        self._secure, self._host, self._port, self._path = _parse_url(url)
        self._url = url.rstrip("/")
        self._model = model
        self._key = _read_key(api_key_env)
        self._max_tokens = max_tokens
        self._timeout_s = timeout_s
        self._deadline_s = deadline_s
        self._concurrency = concurrency
        self._retries = retries
        self._backoff_s = backoff_s

    @property
    def identity(self) -> str:
        """The endpoint and its model."""
        return f"{self._url} {self._model}"

    def replies(
        self, prompts: Sequence[Prompt], within_s: float = math.inf
    ) -> Generator[tuple[int, Reply]]:
        """Yields the place of each prompt with its reply, as they come.

        Args:
            prompts: to ask.
            within_s: seconds from now for all of them together.
        """
        end = time.monotonic() + within_s
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="judge")
        stop = threading.Event()
        try:
            asked = {pool.submit(self._ask, each, end, stop): i for i, each in enumerate(prompts)}
            for future in as_completed(asked):
                yield asked.pop(future), future.result()
        finally:  # an interrupt waits neither for prompts in the queue nor for retries
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, prompt: Prompt, end: float, stop: threading.Event) -> Reply:
        body = self._body(prompt)
        end = min(end, time.monotonic() + self._deadline_s)
        problem = "not asked"
        for attempt in range(self._retries + 1):
            left = end - time.monotonic()
            if left <= 0:
                return self._late(problem)
            waits = [min(self._backoff_s * 2**attempt, MAX_WAIT_S) * random.uniform(0.5, 1.0)]
            try:
                answer = self._request(body, min(self._timeout_s, left))
            except TimeoutError:
                limit = min(self._timeout_s, left)
                return Reply(Status.TIMEOUT, reason=f"no whole reply in {limit:.3g} s")
            except (OSError, http.client.HTTPException) as e:
                problem = self._shown(f"{type(e).__name__}: {e}")
            else:
                if answer.status == 200:
                    return self._read(answer.body)
                shown = answer.body[: 4 * _SHOWN].decode("utf-8", "replace")
                problem = self._shown(f"status {answer.status}: {shown}")
                if answer.status != 429 and answer.status < 500:
                    return Reply(Status.ERROR, reason=problem)
                waits.append(_retry_after(answer.retry_after))
            if attempt == self._retries:
                break
            if time.monotonic() + max(waits) > end or stop.wait(max(waits)):
                return self._late(problem)
        return Reply(Status.ERROR, reason=f"{problem} ({self._retries + 1} attempts)")

    def _late(self, problem: str) -> Reply:
        return Reply(Status.TIMEOUT, reason=f"over {self._deadline_s:g} s in all ({problem})")

    def _body(self, prompt: Prompt) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt.text}],
            "temperature": 0,
            "max_tokens": self._max_tokens,
        }
        if prompt.schema is not None:
            schema = {"name": "verdict", "strict": True, "schema": prompt.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return json.dumps(body).encode()

    def _request(self, body: bytes, timeout_s: float) -> "_Answer":
        """Returns the endpoint's answer.

        Raises:
            TimeoutError: it was not whole in time.
            OSError: the connection failed.
            http.client.HTTPException: what came is not HTTP, or not whole.
        """
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=timeout_s)
        start = time.monotonic()
        with contextlib.closing(connection):
            connection.connect()
            left = timeout_s - (time.monotonic() - start)
            with _cut_after(connection.sock, left):
                connection.request("POST", self._path, body, headers)
                response = connection.getresponse()
                content = response.read(MAX_BODY_BYTES + 1)
                if len(content) <= MAX_BODY_BYTES and response.length:
                    raise http.client.IncompleteRead(content, response.length)
        return _Answer(response.status, response.headers.get("Retry-After", ""), content)

    def _read(self, body: bytes) -> Reply:
        """Returns the reply in an answer's body."""
        if len(body) > MAX_BODY_BYTES:
            return Reply(Status.ERROR, reason=f"a reply of over {MAX_BODY_BYTES} bytes")
        try:
            choice = json.loads(body)["choices"][0]
            content = choice["message"]["content"]
            if not isinstance(content, str):
                raise ValueError("content is no text")
        except (ValueError, LookupError, TypeError, RecursionError) as e:
            shown = body[: 4 * _SHOWN].decode("utf-8", "replace")
            what = self._shown(f"no chat completion ({type(e).__name__}: {e}): {shown}")
            return Reply(Status.ERROR, reason=what)
        is_cut = choice.get("finish_reason") == "length"
        return Reply(Status.OK, self._hide_key(content), is_cut)

    def _shown(self, text: str) -> str:
        return clean(self._hide_key(text))[:_SHOWN]

    def _hide_key(self, text: str) -> str:
        """Returns a text without the API key, which some endpoints repeat when they refuse it."""
        return text.replace(self._key, "***") if self._key else text


class _Answer(NamedTuple):
    status: int
    retry_after: str
    body: bytes


@contextlib.contextmanager
def _cut_after(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Shuts the socket down after so many seconds: its own timeout starts anew with every byte.

    Raises:
        TimeoutError: it was shut down before the block ended.
    """
    is_late = threading.Event()

    def cut() -> None:
        is_late.set()
        with contextlib.suppress(OSError):  # the peer has closed it already
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # below TLS, which would wait for a peer

    timer = threading.Timer(max(seconds, 0.0), cut)
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as e:
        if is_late.is_set():
            raise TimeoutError from e
        raise
    finally:
        timer.cancel()
    if is_late.is_set():
        raise TimeoutError


def _parse_url(url: str) -> tuple[bool, str, int | None, str]:
    """Returns whether it is https, the host, the port, and the path of chat completions.

    Raises:
        ValueError: no such URL, or one that holds more, such as a password.
    """
    fix = "give one such as http://localhost:8000/v1"
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise ValueError(f"the judge's URL cannot be read: {e}; {fix}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii():
        raise ValueError(f"the judge's URL {url!r:.200} is no http(s) address; {fix}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"the judge's URL holds a user, a query or a fragment; {fix}, and the key in an "
            "environment variable"
        )
    path = f"{parts.path.rstrip('/')}/chat/completions"
    if not path.isprintable() or " " in path:
        raise ValueError(f"the judge's URL holds spaces or control characters; {fix}")
    return parts.scheme == "https", parts.hostname, port, path


def _read_key(name: str) -> str:
    """Returns the API key in an environment variable. No message shows it.

    Raises:
        ValueError: the variable is empty or no key.
    """
    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ValueError(f"the environment variable {name} holds no API key; set it")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"the environment variable {name} holds spaces or control characters")
    return key


def _retry_after(header: str) -> float:
    """Returns the seconds that a Retry-After header asks to wait, by number or date; else 0.

    >>> _retry_after("2")
    2.0
    """
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        date = email.utils.parsedate_to_datetime(header)
    except (ValueError, TypeError, IndexError):
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())

"""A server in a process of its own, and requests to it by the standard library alone."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from repo import DEMO_MODEL, ROOT

MODEL = str(DEMO_MODEL)
BUDGETS = {"max_frames": 4, "max_pixels": 4096}
# As tests/conftest.py: compile fast, not well.
FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
LONG = {"temperature": 100.0, "max_tokens": 512, "n": 4}  # noise, which seldom ends


class Running(NamedTuple):
    """A server that runs."""

    process: subprocess.Popen
    port: int
    lines: list[str]  # of its standard error, as they come

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.contextmanager
def serving(*flags: str, model: str = MODEL, **env: str) -> Iterator[Running]:
    """A server of the demo's model, until the end."""
    given = ["--model", model] if "--follow" not in flags else []
    process = subprocess.Popen(
        [sys.executable, "-m", "evr1.serve", *given, "--port", "0", *flags],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": FLAGS,
            **env,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        said = process.stdout.readline()
        assert said, "".join(lines) or "it ended"
        yield Running(process, int(said.rstrip().removesuffix("/v1").rpartition(":")[2]), lines)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        reader.join(10)
        process.stdout.close()
        process.stderr.close()


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        """The body."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """Of the first answer."""
        return self.json["choices"][0]["message"]["content"]

    @property
    def error(self) -> tuple[int, str]:
        """Status and code of a refusal, which is one line."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "\n" not in error["message"]
        return self.status, error["code"]


def call(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
    """One request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def chat(
    port: int, content: str | list = "How many?", headers: dict | None = None, **fields
) -> Reply:
    """A request for a chat completion."""
    asked = {"model": "demo_model", "messages": [{"role": "user", "content": content}], **fields}
    body = json.dumps({"temperature": 0, "max_tokens": 12} | asked).encode()
    return call(port, "POST", "/v1/chat/completions", body, **(headers or {}))


def metrics(port: int, **headers: str) -> dict[str, float]:
    """What /metrics tells, by name and labels."""
    lines = call(port, "GET", "/metrics", **headers).body.decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def until(port: int, what: str, value: float, seconds: float = 60.0) -> None:
    """Waits for a metric to have a value."""
    end = time.monotonic() + seconds
    while (now := metrics(port)[what]) != value:
        assert time.monotonic() < end, f"{what} is {now}, not {value}"
        time.sleep(0.05)


def data_url(path: pathlib.Path, kind: str) -> str:
    """A file as a data: URL."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def video(url: str, **more) -> dict:
    """A part that shows a video."""
    return {"type": "video_url", "video_url": {"url": url, **BUDGETS, **more}}


def image(url: str, **more) -> dict:
    """A part that shows an image."""
    return {"type": "image_url", "image_url": {"url": url, "max_pixels": 4096, **more}}


def text(words: str) -> dict:
    """A part that says something."""
    return {"type": "text", "text": words}

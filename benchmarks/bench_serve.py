"""A server under load: `python benchmarks/bench_serve.py [--json OUT]`.

Three measurements, each against a server in a process of its own, with the demo's model (`--preset
wider`: a random one of 30 million parameters) and clips that are made here. What is compiled is
compiled before, on clips of the same shapes.

- load: 200 requests from 16 clients on 20 videos, three rounds. One in ten is broken, one in ten
  leaves in the middle. All others are answered; nobody's place is lost; the memory of the server
  after each round.
- many: sound requests, 16 at a time against one at a time.
- shared: 8 questions a video, 16 at a time, with prefixes kept against the same server with
  `--no-share`.
"""

import argparse
import base64
import collections
import contextlib
import dataclasses
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import av  # noqa: E402  the path comes first
import numpy as np  # noqa: E402

from benchmarks import common  # noqa: E402
from benchmarks.random_model import DEMO, WIDER, write_model  # noqa: E402

CLIENTS = 16
HELD = ("rows_running", "rows_waiting", "slots_used", "requests_open")


@dataclasses.dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        port: of it.
        pid: likewise.
    """

    port: int
    pid: int

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Returns status and body of a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def leave(self, body: bytes, after_s: float) -> None:
        """Sends a request and goes away."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/chat/completions", body)
            time.sleep(after_s)

    def metric(self, name: str) -> float:
        """Returns a metric without labels."""
        lines = self.call("GET", "/metrics")[1].decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"evr1_{name} "))

    def memory(self) -> float:
        """Returns MiB that the process has in memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@contextlib.contextmanager
def serving(model: Path, *flags: str) -> Iterator[Server]:
    """Yields a server; it is ended by SIGTERM, and says 0."""
    command = [sys.executable, "-m", "evr1.serve", "--model", str(model), "--name", "m"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--rows", "8", "--slots", "4", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline().strip()
        yield Server(int(said.removesuffix("/v1").rpartition(":")[2]), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait(120):
            raise SystemExit(f"the server ended with {process.returncode}")


def write_clips(folder: Path, count: int, frames: int, side: int, seed: int) -> list[Path]:
    """Returns clips of noise that moves, each another one."""
    rng, paths = np.random.default_rng(seed), []
    for number in range(count):
        path = folder / f"{seed}-{number}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=4)
            stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
            picture = rng.integers(0, 256, (side // 16, side // 16, 3), np.uint8)
            for i in range(frames):
                pixels = np.kron(np.roll(picture, i, axis=1), np.ones((16, 16, 1), np.uint8))
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        paths.append(path)
    return paths


def ask(data: bytes, question: str, tokens: int, frames: int, side: int) -> bytes:
    """Returns the body of a request."""
    url = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
    limits = {"nframes": frames, "min_pixels": side**2, "max_pixels": side**2}
    content = [
        {"type": "video_url", "video_url": {"url": url, **limits}},
        {"type": "text", "text": question},
    ]
    return json.dumps(
        {
            "model": "m",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": tokens,
            "temperature": 0,
        }
    ).encode()


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is asked.

    Attributes:
        frames: of a clip.
        side: of a frame, in pixels.
        tokens: of an answer, at most.
        questions: on a clip.
    """

    frames: int
    side: int
    tokens: int
    questions: int

    def bodies(self, clips: Sequence[Path]) -> list[bytes]:
        """Returns requests, the questions on a clip one after the other."""
        return [
            ask(
                clip.read_bytes(),
                f"question {number} {'word ' * 8}?",
                self.tokens,
                self.frames,
                self.side,
            )  # fmt: skip
            for clip in clips
            for number in range(self.questions)
        ]


def answer_all(server: Server, bodies: Sequence[bytes], clients: int) -> float:
    """Returns the seconds that it takes to have all of them answered."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        post = ("POST", "/v1/chat/completions")
        for status, said in threads.map(lambda body: server.call(*post, body), bodies):
            assert status == 200, said[:300]
    return time.perf_counter() - begun


def load(server: Server, clips: Sequence[Path], shape: Shape, rounds: int) -> list[dict]:
    """Returns a line a round: what became of the requests, places that are held, MiB."""
    sound, lines = shape.bodies(clips), []
    rng = random.Random(0)
    for number in range(rounds):
        bodies = list(sound)
        rng.shuffle(bodies)
        counts: collections.Counter[str] = collections.Counter()
        lock = threading.Lock()

        def one(place: int, bodies=bodies, counts=counts, lock=lock) -> None:
            body = bodies[place]
            if place % 10 == 3:
                said = _broken(server, body, place)
            elif place % 10 == 7:
                server.leave(body, 0.02 * (place % 7))
                said = "left"
            else:
                status, text = server.call("POST", "/v1/chat/completions", body)
                said = "answered" if status == 200 else json.loads(text)["error"]["code"]
            with lock:
                counts[said] += 1

        begun = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as threads:
            list(threads.map(one, range(len(bodies))))
        seconds = time.perf_counter() - begun
        end = time.monotonic() + 60
        while any(held := [server.metric(name) for name in HELD]) and time.monotonic() < end:
            time.sleep(0.1)
        lines.append(
            {
                "round": number + 1,
                "requests": sum(counts.values()),
                **{k: counts[k] for k in sorted(counts)},
                "places held": int(sum(held)),
                "seconds": seconds,
                "MiB": server.memory(),
            }
        )
    return lines


def _broken(server: Server, body: bytes, place: int) -> str:
    """Sends what is wrong in one of four ways; returns the code of the refusal."""
    kind = place // 10 % 4
    if kind == 0:
        body = body.replace(b'"max_tokens"', b'"max_tokns"')
    elif kind == 1:
        body = body[: len(body) // 2]
    elif kind == 2:
        fields = json.loads(body)
        part = fields["messages"][0]["content"][0]["video_url"]
        head, _, data = part["url"].partition(",")
        part["url"] = f"{head},{data[: len(data) // 8 * 4]}"  # half of the clip
        body = json.dumps(fields).encode()
    else:
        body = body.replace(b"data:video/mp4;base64,", b"file:///etc/hostname#")
    status, said = server.call("POST", "/v1/chat/completions", body)
    assert status >= 400, said[:300]
    return f"refused: {json.loads(said)['error']['code']}"


def many(model: Path, folder: Path, shape: Shape, videos: int, repeats: int) -> dict:
    """Returns how much faster 16 at a time are than one at a time; in turns, on new clips."""
    rates: dict[int, list[float]] = {1: [], CLIENTS: []}
    with serving(model) as server:
        for clients in rates:  # what is compiled is compiled now
            warm = write_clips(folder, 4, shape.frames, shape.side, 50 + clients)
            answer_all(server, shape.bodies(warm), clients)
        for repeat in range(repeats):
            for clients, found in rates.items():
                seed = 100 + 100 * repeat + clients
                clips = write_clips(folder, videos, shape.frames, shape.side, seed)
                bodies = shape.bodies(clips)
                found.append(len(bodies) / answer_all(server, bodies, clients))
    return _line("16 at a time against one", rates[1], rates[CLIENTS], shape)


def shared(model: Path, folder: Path, shape: Shape, videos: int, repeats: int) -> dict:
    """Returns how much faster a server is that shares prefixes; in turns, on new clips."""
    with serving(model) as sharing, serving(model, "--no-share") as apart:
        rates: dict[str, list[float]] = {"apart": [], "sharing": []}
        servers = {"apart": apart, "sharing": sharing}
        for name, server in servers.items():
            warm = write_clips(folder, 2, shape.frames, shape.side, 7)
            answer_all(server, shape.bodies(warm), CLIENTS)
            rates[name].clear()
        for repeat in range(repeats):
            clips = write_clips(folder, videos, shape.frames, shape.side, 1000 + repeat)
            bodies = shape.bodies(clips)
            for name, server in servers.items():
                rates[name].append(len(bodies) / answer_all(server, bodies, CLIENTS))
    return _line("prefixes kept against none", rates["apart"], rates["sharing"], shape)


def alike(lines: Sequence[dict]) -> list[dict]:
    """Returns the lines with the fields of all of them, in one order."""
    fields = dict.fromkeys(field for line in lines for field in line)
    return [{field: line.get(field, 0) for field in fields} for line in lines]


def _line(name: str, slow: list[float], fast: list[float], shape: Shape) -> dict:
    return {
        "what": name,
        **dataclasses.asdict(shape),
        "slow, requests/s": float(np.median(slow)),
        "fast, requests/s": float(np.median(fast)),
        "times": common.ratio(fast, slow),
        "least": min(f / s for s, f in zip(slow, fast, strict=True)),
    }


def main() -> None:
    """Prints a table each, and writes JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="to write the figures to")
    parser.add_argument("--preset", choices=("demo", "wider"), default="demo")
    parser.add_argument("--only", choices=("load", "many", "shared"), default=None)
    parser.add_argument("--repeats", type=int, default=3)
    flags = parser.parse_args()
    out = []
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), DEMO
        if flags.preset == "wider":
            model = folder / "model"
            write_model(model, WIDER)
        if flags.only in (None, "load"):
            shape = Shape(frames=8, side=128, tokens=32, questions=10)
            clips = write_clips(folder, 20, shape.frames, shape.side, 1)
            with serving(model) as server:
                lines = load(server, clips, shape, 3)
            common.show("200 requests, 16 clients, 20 videos", alike(lines), None)
            out += lines
        if flags.only in (None, "many"):
            lines = [many(model, folder, Shape(8, 128, 64, 8), 6, flags.repeats)]
            common.show("many at a time", lines, None)
            out += lines
        if flags.only in (None, "shared"):
            lines = [shared(model, folder, Shape(64, 192, 8, 8), 4, flags.repeats)]
            common.show("8 questions a video", lines, None)
            out += lines
    if flags.json:
        flags.json.write_text(json.dumps({"device": common.device_name(), "rows": out}, indent=2))


if __name__ == "__main__":
    main()

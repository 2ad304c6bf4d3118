"""Decoding in child processes that can be killed.

A decoder may hang in native code with the interpreter lock held; no thread, signal handler or
timeout of its own process helps then. So every clip is decoded in a child that imports no JAX, has
a deadline, and is replaced after a number of clips, because decoders leak.

The deadline is `timeout_s`, and more for every frame that is to be decoded, which the child tells
as soon as it knows. The kernel ends a child whose parent is gone, whatever it does.
"""

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import pathlib
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import av.logging
import numpy as np
from PIL import Image

from evr1.data.errors import MediaError
from evr1.data.media import frames, patches, remarks, video
from evr1.data.media.frames import images_of
from evr1.data.media.quarantine import Quarantine
from evr1.data.records import Budgets, Geometry, Media
from evr1.formats.video_size import VideoSize

START_TIMEOUT_S = 120.0
FRAME_S = 0.05  # more for each frame to decode: of the slowest codecs on a busy core
ORPHAN_GRACE_S = 10.0  # a child outlives its deadline by this much where nobody kills it


@dataclasses.dataclass(frozen=True)
class Job:
    """One medium to decode: `kind` is image or video, `start` and `end` are seconds or None.

    With `times`, in seconds and ascending, the frames nearest to them are decoded. With
    `frames_per_s` or `stamps` the path is that of a folder of images, the frames of a video at that
    rate or those seconds; or `frames` are these images, and path is the first of them.
    """

    kind: str
    path: str
    budgets: Budgets
    geometry: Geometry
    start: float | None = None
    end: float | None = None
    times: tuple[float, ...] = ()
    frames_per_s: float | None = None
    frames: tuple[str, ...] = ()
    stamps: tuple[float, ...] = ()

    @property
    def _pictures(self) -> dict[str, Any]:
        return {"listed": self.frames, "stamps": self.stamps}

    @property
    def _of_pictures(self) -> bool:
        return self.frames_per_s is not None or bool(self.stamps)

    def measure(self) -> patches.Shape:
        """Returns the shape that `run` will give, from the header, in this process.

        Raises:
            MediaError: see `video.measure`, `frames.measure` and `patches.measure_image`.
        """
        how = self.budgets, self.geometry
        if self.kind == "image":
            return patches.measure_image(self.path, *how)
        if self._of_pictures:
            clip = self.start, self.end
            return frames.measure(self.path, self.frames_per_s, *how, *clip, **self._pictures)
        return video.measure(self.path, *how, self.start, self.end)

    def header(self) -> patches.Shape:
        """Returns frames and size of the source as its header tells them; nothing is decoded.

        Raises:
            MediaError: it is missing, or has none.
        """
        if self.kind == "image":
            frames, size = 1, patches.read_size(self.path)
        else:
            told = video.read_header(self.path)
            frames, size = told.frames, (told.height, told.width)
        return patches.Shape(frames, 0, 0, np.zeros(0), self.kind == "video", source_size=size)

    def source_size(self) -> tuple[int, int]:
        """Returns (height, width) of the source, upright; of pictures, of the first one.

        Raises:
            MediaError: it is missing, or no frame of it can be decoded.
        """
        if self._of_pictures:
            return patches.read_size(self.frames[0] if self.frames else images_of(self.path)[0])
        return patches.read_size(self.path) if self.kind == "image" else video.first_size(self.path)

    def run(self, on_work: Callable[[int], None] = lambda frames: None) -> Media:
        """Decodes the medium in this process, with remarks about what it shows.

        Args:
            on_work: called with the number of frames to decode, as soon as that is known.

        Raises:
            MediaError: see `video.decode`, `frames.decode` and `patches.load_image`.
        """
        media = self._decode(on_work)
        about = remarks.of_frames(media.frames, media.is_video)
        return dataclasses.replace(media, remarks=media.remarks + about)

    def _decode(self, on_work: Callable[[int], None]) -> Media:
        how = self.budgets, self.geometry
        clip = self.start, self.end, self.times
        if self.kind == "image":
            return patches.load_image(self.path, *how)
        if self._of_pictures:
            return frames.decode(self.path, self.frames_per_s, *how, *clip, **self._pictures)
        return video.decode(self.path, *how, *clip, on_work=on_work)

    def to_json(self) -> str:
        """Returns the job as one line, which `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> "Job":
        """Returns the job that `to_json` wrote."""
        fields = json.loads(line)
        fields["budgets"] = Budgets(**fields["budgets"])
        if (size := fields["budgets"].video_size) is not None:
            fields["budgets"] = dataclasses.replace(fields["budgets"], video_size=VideoSize(*size))
        fields["geometry"] = Geometry(**fields["geometry"])
        for name in ("times", "frames", "stamps"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


class DecodePool:
    """A pool of child processes that decode media; any thread may call its methods.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        workers: int,
        timeout_s: float,
        *,
        quarantine: Quarantine | None = None,
        clips_per_child: int = 256,
        frame_s: float = FRAME_S,
        memory_bytes: int = 0,
    ):
        """Checks the settings; children start when there is work.

        Args:
            workers: decoding processes.
            timeout_s: wall-clock limit for one clip; each frame to decode adds `frame_s`.
            quarantine: list to consult and to extend.
            clips_per_child: a child is replaced after this many.
            frame_s: see there; 0 for media of strangers, who can promise a million frames.
            memory_bytes: that a child may take for a clip; 0: any.
        """
        if workers < 1 or timeout_s <= 0:
            raise ValueError(
                f"data.workers={workers}, data.decode_timeout_s={timeout_s}; "
                "give at least 1 worker and a time over 0"
            )
        self.timeout_s = timeout_s
        self._quarantine = quarantine
        self._clips_per_child = clips_per_child
        self._frame_s, self._memory_bytes = frame_s, memory_bytes
        self._closed = threading.Event()
        self._children: list[_Child | None] = [None] * workers
        self._idle: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(workers):
            self._idle.put(slot)

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Kills the children; a decode under way raises RuntimeError in its thread."""
        self._closed.set()
        for child in self._children:
            if child is not None:
                child.kill()  # a thread that waits for it sees the end of the pipe
        slots = []
        with contextlib.suppress(queue.Empty):
            while True:
                slots.append(self._idle.get_nowait())
        for slot in slots:
            child = self._children[slot]
            if child is not None:
                child.end()
            self._idle.put(slot)

    def measure(self, job: Job) -> patches.Shape:
        """Returns the shape that `decode` will give, from the file's header; raises as it does."""
        return self._run(job, "measure")[0]

    def header(self, job: Job) -> patches.Shape:
        """Returns frames and source size of one file, as its header tells; raises as `decode`."""
        return self._run(job, "header")[0]

    def decode(self, job: Job) -> Media:
        """Returns the decoded medium; waits for a free child.

        Raises:
            MediaError: the file failed, now or before, or took longer than the limit.
            RuntimeError: the pool was closed, or no process can be started.
        """
        shape, frames = self._run(job, "decode")
        height, width = shape.source_size
        return Media(
            frames,
            shape.timestamps,
            shape.is_video,
            shape.sample_fps,
            tuple(shape.remarks),
            source_size=(height, width),
        )

    def source_size(self, job: Job) -> tuple[int, int]:
        """Returns (height, width) of the source, upright; raises as `decode` does."""
        height, width = self._run(job, "size")[0].source_size
        return height, width

    def _run(self, job: Job, command: str) -> tuple[patches.Shape, np.ndarray]:
        quarantine = None if job.frames else self._quarantine  # a list is no file to keep out
        if quarantine is not None:
            quarantine.check(job.path, self.timeout_s)
        slot = self._idle.get()
        try:
            return self._run_in(slot, job, command)
        except MediaError as error:
            if quarantine is not None:
                quarantine.add(error, self.timeout_s)
            raise
        finally:
            self._idle.put(slot)

    def _run_in(self, slot: int, job: Job, command: str) -> tuple[patches.Shape, np.ndarray]:
        if self._closed.is_set():
            raise RuntimeError("the decoding pool is closed")
        child = self._children[slot]
        if child is not None and not child.is_usable(self._clips_per_child):
            child.end()
            child = None
        if child is None:
            child = self._children[slot] = _Child(self._memory_bytes)
        try:
            return child.run(job, command, self.timeout_s, self._frame_s)
        except _Late as late:
            child.end()
            kind, reason = "timeout", f"not done within {self.timeout_s:g} s{late}"
        except (EOFError, BrokenPipeError):
            cause = child.end(patience_s=2.0)
            kind = "crashed" if cause.startswith("SIG") else "error"
            reason = f"the decoder died ({cause})"
        self._children[slot] = None
        if self._closed.is_set():
            raise RuntimeError("the decoding pool was closed while it decoded")
        raise MediaError(kind, job.path, reason)


class _Late(Exception):
    """Raised when a child misses its deadline."""


class _Child:
    """A child process and its pipes: JSON lines go there; JSON lines and raw frames come back."""

    def __init__(self, memory_bytes: int):
        root = str(pathlib.Path(__file__).resolve().parents[3])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "evr1.data.media.decode", str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._requests = cast(io.FileIO, self._process.stdin)
        self._answers = cast(io.FileIO, self._process.stdout)
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN | select.POLLHUP)
        self._clips = 0
        self._is_ready = False

    def is_usable(self, clips: int) -> bool:
        return self._process.poll() is None and self._clips < clips

    def run(
        self, job: Job, command: str, timeout_s: float, frame_s: float
    ) -> tuple[patches.Shape, np.ndarray]:
        if not self._is_ready:  # starting up is not the clip's time
            try:
                self._read_line(time.monotonic() + START_TIMEOUT_S)
            except (EOFError, _Late):
                raise RuntimeError(
                    f"a decoding process did not start ({self.end(1.0)}); see its message above"
                ) from None
            self._is_ready = True
        self._clips += 1
        deadline = time.monotonic() + timeout_s
        request = f"{command} {timeout_s + ORPHAN_GRACE_S} {job.to_json()}\n"
        self._requests.write(request.encode())
        answer = json.loads(self._read_line(deadline))
        work = 0
        try:
            while "work" in answer:
                work += answer["work"]
                answer = json.loads(self._read_line(deadline + frame_s * work))
        except _Late:
            more = f" and {frame_s * work:g} s for {work} frames" if frame_s else ""
            raise _Late(more) from None
        deadline += frame_s * work
        if "error" in answer:
            raise MediaError(answer["error"], job.path, answer["reason"])
        shape = patches.Shape(**answer | {"timestamps": np.array(answer["timestamps"], np.float64)})
        has_frames = command == "decode"
        frames = np.empty((shape.frames * has_frames, shape.height, shape.width, 3), np.uint8)
        if has_frames:
            self._read_into(frames.reshape(-1).data, deadline)
        return shape, frames

    def kill(self) -> None:
        """Ends the process; the pipes stay with the thread that uses them."""
        self._process.kill()

    def end(self, patience_s: float = 0.0) -> str:
        """Ends the process, closes the pipes, and returns in words how it ended.

        Args:
            patience_s: how long it may take to end by itself.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=patience_s)
        self._process.kill()
        self._requests.close()
        self._answers.close()
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "stuck in the kernel"  # it dies when its I/O ends; nobody waits for that
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def _read_line(self, deadline: float) -> bytes:
        size = bytearray(4)
        self._read_into(memoryview(size), deadline)
        line = bytearray(int.from_bytes(size, "little"))
        self._read_into(memoryview(line), deadline)
        return bytes(line)

    def _read_into(self, view: memoryview, deadline: float) -> None:
        while view:
            left = deadline - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise _Late
            count = self._answers.readinto(view)
            if not count:
                raise EOFError
            view = view[count:]


def _answers(
    requests: Iterator[bytes], announce: Callable[[int], None]
) -> Iterator[tuple[dict[str, Any], memoryview]]:
    """Yields the child's answer to each request: (header, frames)."""
    for request in requests:
        command, limit, line = request.split(b" ", 2)
        signal.setitimer(signal.ITIMER_REAL, float(limit))  # the kernel ends an orphan that hangs
        job = Job.from_json(line)
        frames = np.zeros((0, 1, 1, 3), np.uint8)
        try:
            if command == b"measure":
                shape = job.measure()
            elif command == b"header":
                shape = job.header()
            elif command == b"size":
                none = patches.Shape(0, 0, 0, np.zeros(0), job.kind == "video")
                shape = dataclasses.replace(none, source_size=job.source_size())
            else:
                media = job.run(announce)
                frames = np.ascontiguousarray(media.frames)
                t, h, w, _ = frames.shape
                about = media.sample_fps, media.remarks, media.source_size
                shape = patches.Shape(t, h, w, media.timestamps, media.is_video, *about)
        except MediaError as error:
            yield {"error": error.kind, "reason": error.reason}, memoryview(b"")
            continue
        except MemoryError:
            reason = "takes more memory than a decoder may have"
            yield {"error": "undecodable", "reason": reason}, memoryview(b"")
            continue
        header = dataclasses.asdict(shape) | {"timestamps": shape.timestamps.tolist()}
        pixels, media = frames.reshape(-1).data, None
        del frames, media  # whoever reads them has the next copy
        yield header, pixels
        del pixels
        signal.setitimer(signal.ITIMER_REAL, 0)


def _requests() -> Iterator[bytes]:
    """Yields the lines of standard input; while one is worked on, its end ends this process.

    The kernel does that by a signal, also where a decoder hangs with the interpreter lock held; the
    parent's end is that of the pipe, whatever it died of.
    """
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
    ended = select.poll()
    ended.register(0, 0)
    while line := sys.stdin.buffer.readline():
        _watch(True)
        if ended.poll(0):  # before the kernel was asked to tell
            return
        yield line


def _watch(is_on: bool) -> None:
    """Has the kernel send its signal at whatever comes from the parent, or no longer."""
    flags = fcntl.fcntl(0, fcntl.F_GETFL) & ~os.O_ASYNC
    fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC if is_on else flags)


def _serve() -> None:
    """Runs the main loop of a child, until its standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    av.logging.set_level(av.logging.PANIC)  # the reason travels in the answer, once
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as large is an error
    answers = os.dup(1)
    os.dup2(2, 1)  # a library that prints must not write into the answers
    with open(answers, "wb", buffering=0) as out:

        def send(view: memoryview) -> None:
            while view:
                view = view[out.write(view) :]

        def send_line(header: dict[str, Any]) -> None:
            line = json.dumps(header).encode()
            send(memoryview(len(line).to_bytes(4, "little") + line))

        def announce(frames: int) -> None:
            left, _ = signal.getitimer(signal.ITIMER_REAL)
            signal.setitimer(signal.ITIMER_REAL, left + FRAME_S * frames)
            send_line({"work": frames})

        send(memoryview(b"\0\0\0\0"))
        for header, frames in _answers(_requests(), announce):
            _watch(False)  # what comes after the answer is the next request
            send_line(header)
            send(frames)
            del frames


def _bound_memory(more_bytes: int) -> None:
    """Bounds what this process may take beside what it has by now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    if int(sys.argv[1]):
        _bound_memory(int(sys.argv[1]))
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        _serve()

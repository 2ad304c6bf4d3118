"""Decodes every medium of a data set once, into shards."""

import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple, TypeVar

from rich import progress
from rich.console import Console

from evr1.config import urls
from evr1.data.errors import MediaError
from evr1.data.media import memory, parts, remarks, shard_files, shards, stage
from evr1.data.media.content import FileTable
from evr1.data.media.decode import DecodePool, Job
from evr1.data.media.quarantine import Quarantine
from evr1.data.media.requests import Opener, Request, check_budgets, media_requests
from evr1.data.media.size_table import SizeTable
from evr1.data.media.tfds_format import parse, serialize
from evr1.data.records import Budgets, Geometry, Row
from evr1.formats.part import WHOLE, Part
from evr1.formats.words import counted
from evr1.parallel import leaving

_LOOK_S = 0.5  # how often it looks whether it is to leave

T = TypeVar("T")
R = TypeVar("R")


@dataclasses.dataclass
class Summary:
    """The outcome of `preprocess`; the counts are of distinct media."""

    total: int = 0
    cached: int = 0  # in the shards before
    videos: int = 0
    images: int = 0
    frames: int = 0
    pixel_bytes: int = 0
    record_bytes: int = 0
    psnr: list[float] = dataclasses.field(default_factory=list)  # dB, of media kept with a loss
    seconds: float = 0.0
    failed: list[MediaError] = dataclasses.field(default_factory=list)
    repairs: list[str] = dataclasses.field(default_factory=list)  # of `out`, a line each
    remarked: dict[Request, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    sources: dict[Request, str] = dataclasses.field(default_factory=dict)  # "file:line"

    @property
    def done(self) -> int:
        """The number of media that are dealt with."""
        return self.cached + self.videos + self.images + len(self.failed)

    def line(self) -> str:
        """Returns the summary in words."""
        rate = self.frames / self.seconds if self.seconds else 0.0
        kept = f"{self.pixel_bytes / 1e6:.1f} MB"
        if 0 < self.record_bytes < self.pixel_bytes:
            kept += f" of pixels in {self.record_bytes / 1e6:.1f} MB"
        if self.psnr:
            mean = sum(self.psnr) / len(self.psnr)
            kept += f" at {mean:.1f} dB in the mean, {min(self.psnr):.1f} at least"
        return (
            f"{counted(self.videos, 'video')} and {counted(self.images, 'image')} written "
            f"({counted(self.frames, 'frame')}, "
            f"{rate:.0f} frames/s, {kept}), {self.cached} there before, "
            f"{len(self.failed)} failed, {self.seconds:.1f} s"
        )

    def warnings(self) -> list[str]:
        """Returns lines that count and name the media that may not show what they should."""
        named = (
            (f"{request.name} ({self.sources[request]})", about)
            for request, about in self.remarked.items()
        )
        return remarks.lines(remarks.by_kind(named), self.total)


@contextlib.contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Callable[[Summary], None]]:
    """Shows a bar on the console; yields a function to pass as `on_progress` of `preprocess`."""
    # TFDS, which writes shards, replaces the import statement of the whole process while it loads,
    # and the bar's thread imports as it draws: first the one, then the other.
    import tensorflow_datasets  # noqa: F401

    columns = (
        progress.TextColumn("decoding"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.description}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)

        def show(summary: Summary) -> None:
            rate = f"{summary.frames / max(summary.seconds, 1e-9):.0f} frames/s"
            bar.update(
                task,
                total=summary.total,
                completed=summary.done,
                description=f"{rate}, {len(summary.failed)} failed",
            )

        yield show


def preprocess(
    rows: Iterable[Row],
    out: str,
    *,
    budgets: Budgets,
    geometry: Geometry,
    media_dir: str = "",
    workers: int = 4,
    timeout_s: float = 120.0,
    shard_bytes: int = shards.SHARD_BYTES,
    memory_bytes: int = 0,
    part: Part = WHOLE,
    num_shards: int = 0,
    storage: str = "",
    on_progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Decodes the media that are not in `out` yet; quarantines and counts those that fail.

    Damaged files of an earlier run are mended first, see `evr1.data.media.shards`. With parts, or
    a number of shards, media have fixed places, see `evr1.data.media.parts`.

    Args:
        rows: whose media to decode.
        out: directory of shards, or its address in a bucket.
        budgets: how much of each medium is looked at.
        geometry: of the model.
        media_dir: put in front of relative paths.
        workers: decoding processes.
        timeout_s: limit for one medium.
        shard_bytes: size at which a shard is completed, where media have no fixed places.
        memory_bytes: bound on the pixels in flight, see `memory.Memory`.
        part: the share of the media to decode.
        storage: how pixels are kept, see `evr1.data.media.storage`; empty: as in `out`.
        num_shards: that `out` is cut into; 0: with parts some 32 media a shard, else by size.
        on_progress: called after each medium, in the caller's thread.

    Raises:
        ValueError: budgets that cross, another process writes there, or `out` is cut otherwise.
    """
    check_budgets(budgets)
    bound = memory.Memory(memory_bytes)
    summary = Summary()
    for row in rows:
        for request in media_requests(row):
            summary.sources.setdefault(request, row.source)
    summary.total = len(summary.sources)
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        bucket = stack.enter_context(stage.staged(out, part))
        out, named = (str(bucket.root), bucket.named) if bucket else (out, str)
        if part.count > 1 or num_shards > 0 or parts.count_of(out) > 0:
            count = _agree(out, summary.total, num_shards, bucket)
            writer = parts.PartWriter(out, count, part, storage, bucket or stage.HERE)
        else:
            writer = _by_size(out, shard_bytes, storage, bucket)
        _enter(stack, writer, bucket)
        quarantine = Quarantine(os.path.join(out, shards.QUARANTINE), part)
        pool = stack.enter_context(DecodePool(workers, timeout_s, quarantine=quarantine))
        summary.repairs = writer.repairs
        opener = Opener(media_dir, budgets, geometry, writer.storage)
        about = remarks.RemarkTable(out, part)
        notes = _Notes(FileTable(out, part), about, SizeTable(out, part))
        work = _Work(opener, notes, writer, pool, quarantine, bound, bound.limit // workers)
        with futures.ThreadPoolExecutor(workers) as threads:
            try:
                requests, again = list(summary.sources), list[Request]()
                if isinstance(writer, parts.PartWriter):
                    keys = dict(_results(threads, work.key, requests, 2 * workers))
                    requests, again = _of_part(keys, requests, writer)
                    summary.total = len(requests) + len(again)
                for some in (requests, again):
                    for outcome in _results(threads, work.decode, some, 2 * workers):
                        _count(summary, outcome, named)
                        summary.seconds = time.monotonic() - begin
                        on_progress(summary)
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
    return summary


def check_free(out: str, part: Part = WHOLE, num_shards: int = 0) -> None:
    """Checks that nobody writes where `preprocess` would, before rows are read, which takes long.

    It looks and holds nothing; in a bucket it does not look.

    Args:
        out: as of `preprocess`.
        part: likewise.
        num_shards: likewise.

    Raises:
        ValueError: another process writes there.
    """
    root = pathlib.Path(out)
    if urls.is_bucket(out) or not root.is_dir():
        return
    count = parts.count_of(out)
    is_shared = part.count > 1 or num_shards > 0 or count > 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(shard_files.lock(root, is_shared=is_shared))
        if count:
            stack.enter_context(parts.lock_shards(root, range(part.index, count, part.count)))


def _by_size(
    out: str, shard_bytes: int, storage: str, bucket: stage.Stage | None
) -> shards.ShardWriter:
    target = bucket or stage.HERE
    return shards.ShardWriter(out, shard_bytes=shard_bytes, storage=storage, target=target)


def _enter(
    stack: contextlib.ExitStack,
    writer: shards.ShardWriter | parts.PartWriter,
    bucket: stage.Stage | None,
) -> None:
    stack.enter_context(writer)
    if bucket:
        bucket.settle_storage(writer.storage)
        writer.repairs = bucket.repairs


def _agree(out: str, media: int, wanted: int, bucket: stage.Stage | None) -> int:
    """Returns into how many shards `out` is cut, also where another host decides it just now."""
    count = parts.agree(out, media, wanted)
    if bucket is None:
        return count
    bucket.settle(parts.MANIFEST)
    return parts.agree(out, media, wanted)


@dataclasses.dataclass(frozen=True)
class _Done:
    """What became of a request; `kind` is cached where the medium was there."""

    request: Request
    kind: str
    frames: int = 0
    pixel_bytes: int = 0
    record_bytes: int = 0
    psnr: float = math.inf
    remarks: tuple[str, ...] = ()


class _Notes(NamedTuple):
    """What is known of media beside their frames: contents, remarks, sizes."""

    files: FileTable
    about: remarks.RemarkTable
    sizes: SizeTable


@dataclasses.dataclass(frozen=True)
class _Work:
    """What the threads do; `share` is the bytes that one of them may always have in flight."""

    opener: Opener
    notes: _Notes
    writer: shards.ShardWriter | parts.PartWriter
    pool: DecodePool
    quarantine: Quarantine
    bound: memory.Memory
    share: int

    def key(self, request: Request) -> tuple[Request, str | MediaError]:
        """Returns the request and its key, or why it has none."""
        try:
            return request, self.opener.key(request, self.notes.files, is_written=True)
        except MediaError as error:
            return request, error

    def decode(self, request: Request) -> _Done | MediaError:
        """Decodes a medium and writes it, unless it is there."""
        _, key = self.key(request)
        if isinstance(key, MediaError):
            self.quarantine.add_missing(key)  # the pool does not see files that are missing
            return key
        if key in self.writer:
            return _Done(request, "cached", remarks=self.notes.about.of(key))
        try:
            job, path = self.opener.job(request), self.opener.path(request)
            with self.bound.hold(_pixel_bytes(self.pool, job, self.share)):
                decoded = self.pool.decode(job)
                media, record = (
                    shard_files.hollow(decoded),
                    serialize(key, decoded, path, self.writer.storage),
                )
                pixels = decoded.frames.nbytes
                del decoded  # before the record is written, which takes as much once more
                self.writer.add_record(key, media, record)
        except MediaError as error:
            self.quarantine.add_missing(error)
            self.writer.give_up(key)
            return error
        self.notes.about.add(key, path, media.remarks)
        identity = self.notes.files.identity(*self.opener.first_file(request))
        self.notes.sizes.add(identity, path, media.source_size)
        _, kept = parse(record, is_outline=True)
        sizes = len(media.frames), pixels, len(record)
        return _Done(request, request.kind, *sizes, kept.psnr, media.remarks)


def _of_part(
    keys: Mapping[Request, str | MediaError], requests: Sequence[Request], writer: parts.PartWriter
) -> tuple[list[Request], list[Request]]:
    """Returns the part's requests, shard by shard, and then those of content that came before.

    Args:
        keys: of all requests, or why there is none: such a request is of the part of its name.
        requests: in the order of the rows, so that every part takes the same file of two alike.
        writer: is told which keys will come.
    """
    first, again, keyless = dict[str, Request](), list[Request](), list[Request]()
    for request in requests:
        key = keys[request]
        if isinstance(key, MediaError):
            name = hashlib.blake2b(repr(request).encode(), digest_size=16).hexdigest()
            if writer.is_mine(name):
                keyless.append(request)
        elif writer.is_mine(key):
            again.append(request) if key in first else first.update({key: request})
    writer.expect(first)
    order = sorted(first, key=lambda key: (parts.shard_of(key, writer.count), key))
    return [*keyless, *(first[key] for key in order)], again


def _pixel_bytes(pool: DecodePool, job: Job, share: int) -> int:
    """Returns the bytes of a medium's pixels; 0 where its budgets keep them within a share anyway.

    Raises:
        MediaError: see `DecodePool.measure`.
    """
    budgets, is_image = job.budgets, job.kind == "image"
    pixels = budgets.image_max_pixels
    if not is_image:
        pixels = max(budgets.video_max_pixels, budgets.video_min_pixels) * budgets.video_max_frames
    is_bounded = is_image or budgets.video_budget == "qwen_vl_utils"
    if is_bounded and memory.COPIES * 3 * pixels <= share:
        return 0
    shape = pool.measure(job)
    return 3 * shape.frames * shape.height * shape.width


def _results(
    threads: futures.Executor, work: Callable[[T], R], items: Iterable[T], width: int
) -> Iterator[R]:
    """Yields what `work` returns for each item, as it is done; few items wait at a time."""
    queue, pending = iter(items), set[futures.Future[R]]()
    while True:
        pending |= {threads.submit(work, x) for x in itertools.islice(queue, width - len(pending))}
        if not pending:
            return
        done, pending = futures.wait(pending, _LOOK_S, return_when=futures.FIRST_COMPLETED)
        leaving.sync_point()
        for future in done:
            yield future.result()


def _count(summary: Summary, outcome: _Done | MediaError, named: Callable[[str], str]) -> None:
    if isinstance(outcome, MediaError):
        error = MediaError(outcome.kind, outcome.path, named(outcome.reason))
        summary.failed.append(error)
        return
    if outcome.remarks:
        summary.remarked[outcome.request] = outcome.remarks
    if outcome.kind == "cached":
        summary.cached += 1
    elif outcome.kind == "video":
        summary.videos += 1
    else:
        summary.images += 1
    summary.frames += outcome.frames
    summary.pixel_bytes += outcome.pixel_bytes
    summary.record_bytes += outcome.record_bytes
    if math.isfinite(outcome.psnr):
        summary.psnr.append(outcome.psnr)

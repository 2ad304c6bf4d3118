"""What each host does of the data: which examples it loads, and which files it opens to plan."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from evr1.data.errors import MediaError
from evr1.data.media.cache import place_free
from evr1.data.media.source import MediaSource, Request
from evr1.data.processor import Processor
from evr1.data.records import MediaSize, Row

FAILED = -1  # in place of a length: the row's media cannot be used


@dataclasses.dataclass(frozen=True)
class Share:
    """This host's part: of a batch the examples of every `count`-th place of the order.

    Attributes:
        index: which host this is.
        count: number of hosts.
        gather: returns the plain data of every host; all call it together.
    """

    index: int = 0
    count: int = 1
    gather: Callable[[Any], list[Any]] = lambda value: [value]

    def owns(self, name: str) -> bool:
        """Returns whether this host opens a file to plan, of all hosts it alone."""
        return zlib.crc32(name.encode()) % self.count == self.index


def measure(
    requests: Sequence[Request], source: MediaSource, share: Share, threads: int
) -> dict[Request, MediaSize | MediaError]:
    """Returns the size of each medium, or why it has none; each file is opened by one host.

    Args:
        requests: distinct, the same on all hosts.
        source: of the media; it learns what other hosts have measured.
        share: of this host.
        threads: that read headers side by side.
    """
    unknown = [request for request in requests if not source.is_measured(request)]
    own = [i for i, request in enumerate(unknown) if share.owns(place_free(request.name))]
    with futures.ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda i: source.measure(unknown[i]), own))
    if share.count > 1 and unknown:
        sizes = [[i, _to_json(size)] for i, size in zip(own, found, strict=True)]
        for told in share.gather(sizes):
            for i, size in told:
                source.learn(unknown[i], _from_json(size))
    return {request: source.measure(request) for request in requests}


def _to_json(size: MediaSize | MediaError) -> dict[str, Any]:
    if isinstance(size, MediaError):
        return {"kind": size.kind, "path": size.path, "reason": size.reason}
    return {**size._asdict(), "timestamps": list(size.timestamps)}


def _from_json(size: dict[str, Any]) -> MediaSize | MediaError:
    if "kind" in size:
        return MediaError(**size)
    return MediaSize(**{**size, "grid_thw": tuple(size["grid_thw"])})


def plan_lengths(
    rows: Sequence[Row],
    requests: Sequence[Sequence[Request]],
    sizes: dict[Request, MediaSize | MediaError],
    processor: Processor,
    share: Share,
    raw: bool = False,
) -> np.ndarray:
    """Returns the prompt tokens of every row, int32[rows]; each host counts its part.

    `FAILED` stands for a row whose media cannot be used.

    Args:
        rows: to plan.
        requests: their media.
        sizes: of these.
        processor: of the model.
        share: of this host.
        raw: prompts without the task template.

    Raises:
        ValueError: a row whose markers do not match its media.
    """
    own = range(share.index, len(rows), share.count)
    planned = []
    for i in own:
        row_sizes = [sizes[request] for request in requests[i]]
        usable = [size for size in row_sizes if not isinstance(size, MediaError)]
        is_whole = len(usable) == len(row_sizes)
        planned.append(int(processor.plan(rows[i], usable, raw)) if is_whole else FAILED)
    lengths = np.full(len(rows), FAILED, np.int32)
    for host, told in enumerate(share.gather(planned)):
        lengths[host :: share.count] = told
    return lengths

"""Batches of examples from rows, by Grain: shuffled, split among hosts, read ahead, resumable.

There is one order for all hosts, and the position is one number, so that it means the same on any
number of them. A row whose media fail is passed over on all hosts and the next one takes its
place; how many did is counted, and past a share the run stops.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import grain
import numpy as np

from evr1.data.errors import MediaError
from evr1.data.media.cache import place_free
from evr1.data.media.source import MediaSource, Request, media_requests
from evr1.data.order import Source, draw_order
from evr1.data.processor import Processor
from evr1.data.records import Example, Medium, Row, elsewhere
from evr1.data.share import Share, measure, plan_lengths

grain.config.update("py_traceback_filtering", "off")  # it would append to the message of errors


class Loader:
    """An iterator over batches, lists of examples, that can be resumed at any batch.

    `get_state` and `set_state` resume exactly, on the same rows and any number of hosts. Every host
    gets every batch; the examples of others stand in it without their content.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        processor: Processor,
        source: MediaSource,
        *,
        groups: int,
        seed: int = 0,
        shuffle: bool = True,
        curriculum: str = "",
        sources: Sequence[Source] = (),
        epochs: int | None = None,
        share: Share | None = None,
        max_prompt_tokens: int = 0,
        overlong: Literal["drop", "refuse"] = "drop",
        max_failed_share: float = 0.01,
        threads: int = 4,
        prefetch_batches: int = 2,
        raw: bool = False,
    ):
        """Plans the length of every row; reads nothing ahead yet.

        Args:
            rows: the data set.
            processor: of the model.
            source: of the media.
            groups: examples in a batch, on all hosts together; the last batch of the last epoch
                may be smaller.
            seed: of the order, see `draw_order`.
            shuffle: see `draw_order`.
            curriculum: see `draw_order`.
            sources: see `draw_order`.
            epochs: see `draw_order`.
            share: what this host loads; None: everything.
            max_prompt_tokens: longer prompts are dropped or refused; 0: no limit.
            overlong: what to do with them.
            max_failed_share: of the media; past it the run stops.
            threads: that read or decode side by side; 0: none, in the caller's thread.
            prefetch_batches: batches to have ready.
            raw: prompts without the task template.

        Raises:
            ValueError: nothing is left to train on, prompts too long, or too many media failed.
        """
        self._rows, self._processor, self._source, self._raw = rows, processor, source, raw
        self._max_prompt_tokens, self._max_failed_share = max_prompt_tokens, max_failed_share
        self._requests = [media_requests(row) for row in rows]
        self._media = set().union(*self._requests)
        self._counts: collections.Counter[str] = collections.Counter()
        self._failed_elsewhere = 0
        self._groups, self._share = groups, share or Share()
        distinct = list(dict.fromkeys(itertools.chain.from_iterable(self._requests)))
        sizes = measure(distinct, source, self._share, max(threads, 1))
        self.lengths = plan_lengths(rows, self._requests, sizes, processor, self._share, raw)
        self._is_used = self._select(overlong)
        self._check_failed()
        self._check_sources(sources)
        self._identity = rows_identity(rows, bool(curriculum))
        self._identity |= {"seed": seed if shuffle else None}
        self._identity |= _mix_identity(sources)
        self._identity |= {"curriculum": curriculum} if curriculum else {}
        self._order = draw_order(
            rows,
            sources=sources,
            seed=seed,
            shuffle=shuffle,
            curriculum=curriculum,
            epochs=epochs,
            is_used=self._is_used,
        )
        ahead = -(-prefetch_batches * groups // self._share.count)
        self._options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=max(ahead, threads) if threads else 0
        )
        self._planned_failures = len(self._failed())
        self._at = 0
        self._reader: grain.DatasetIterator[Any] | None = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading ahead."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> list[Example]:
        batch: list[Example] = []
        while len(batch) < self._groups and self._at < len(self._order):
            end = min(self._at + self._groups - len(batch), len(self._order))
            batch += self._read(self._at, end)
            self._at = end
        if not batch:
            raise StopIteration
        return batch

    def _read(self, start: int, end: int) -> list[Example]:
        """Returns the examples of some places of the order, less those that failed."""
        share = self._share
        own = {at: self._next_own() for at in range(start, end) if at % share.count == share.index}
        missing = {at for at, example in own.items() if example is None}
        if share.count > 1:
            failed = len(self._failed()) - self._planned_failures
            told = share.gather({"missing": sorted(missing), "failed": failed})
            missing = {at for one in told for at in one["missing"]}
            self._failed_elsewhere = sum(one["failed"] for one in told) - failed
            self._check_failed()
        examples = []
        for at in range(start, end):
            if at in missing:
                continue
            example = own.get(at)
            if example is None:
                number: Any = self._order[at]
                example = elsewhere(self._rows[number], at % share.count)
            examples.append(dataclasses.replace(example, host=at % share.count))
        return examples

    def _next_own(self) -> Example | None:
        """Returns the next example of this host."""
        share = self._share
        if self._reader is None:
            first = self._at + (share.index - self._at) % share.count
            own = self._order[first :: share.count]
            # A tuple, because Grain passes over None.
            loaded = own.map(lambda index: (self.load(index),))
            self._reader = iter(loaded.to_iter_dataset(self._options))
        return next(self._reader)[0]

    def get_state(self) -> dict[str, Any]:
        """Returns the position for JSON: the batch after the last one yielded comes next."""
        return {"identity": self._identity, "position": self._at}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to a position.

        Raises:
            ValueError: it was saved with other rows or another seed.
        """
        if state["identity"] != self._identity:
            raise ValueError(
                f"the data position was saved with {state['identity']}, this run has "
                f"{self._identity}; "
                "give the same data file and seed, or a new workdir"
            )
        self.close()
        self._at = state["position"]

    def metrics(self) -> dict[str, float]:
        """Returns the counts so far: failed media by kind, rows passed over, rows too long."""
        failed = self._failed()
        kinds = collections.Counter(error.kind for error in failed.values())
        return {
            "data/decode_failed": float(len(failed) + self._failed_elsewhere),
            **{f"data/decode_failed/{kind}": float(n) for kind, n in sorted(kinds.items())},
            **{f"data/{name}": float(n) for name, n in sorted(self._counts.items())},
        }

    def _select(self, overlong: str) -> np.ndarray:
        """Returns bool[rows]: the row's media were measured and its prompt is not too long."""
        limit = self._max_prompt_tokens or np.iinfo(np.int32).max
        too_long = np.flatnonzero(self.lengths > limit)
        if len(too_long) and overlong == "refuse":
            row = self._rows[too_long[0]]
            raise ValueError(
                f"{row.source} ({row.problem_id}): {self.lengths[too_long[0]]} prompt tokens, over "
                f"data.max_prompt_tokens={limit}, as {len(too_long)} of {len(self._rows)} rows "
                "are; raise it, lower the pixel budgets, or set data.filter_overlong"
            )
        self._counts["overlong_rows"] = len(too_long)
        is_used = (self.lengths >= 0) & (self.lengths <= limit)
        if not is_used.any():
            self._check_failed()
            raise ValueError(
                f"none of {len(self._rows)} rows is left: {self._obstacles(self.lengths)}; raise "
                "the limit or lower the pixel budgets"
            )
        return is_used

    def _obstacles(self, lengths: np.ndarray) -> str:
        """Returns why none of the rows with these planned lengths can be used."""
        planned = lengths[lengths >= 0]
        shortest = f" (from {planned.min()} tokens)" if planned.size else ""
        return (
            f"{planned.size} are over data.max_prompt_tokens={self._max_prompt_tokens}{shortest}, "
            f"{(lengths < 0).sum()} have media that cannot be used"
        )

    def _check_sources(self, sources: Sequence[Source]) -> None:
        start = 0
        for source in sources:
            rows = slice(start, start + source.rows)
            if not self._is_used[rows].any():
                raise ValueError(
                    f"data.sources: none of the {source.rows} rows of the source with "
                    f"{self._rows[start].source} can be used: {self._obstacles(self.lengths[rows])}"
                    "; raise the limit, lower the pixel budgets or take the source out"
                )
            start += source.rows

    def load(self, index: int) -> Example | None:
        """Returns the example of a row; None where the next row is to take its place."""
        if not self._is_used[index]:
            return None
        try:
            loaded = [self._source.load(request) for request in self._requests[index]]
        except MediaError:
            self._check_failed()
            self._counts["skipped_rows"] += 1
            return None
        example = self._processor.encode(self._rows[index], loaded, self._raw)
        if 0 < self._max_prompt_tokens < len(example.tokens):
            self._counts["overlong_rows"] += 1  # its header promised another size
            return None
        return example

    def _check_failed(self) -> None:
        failed = self._failed()
        number = len(failed) + self._failed_elsewhere
        if number <= self._max_failed_share * len(self._media):
            return
        if not failed:
            raise ValueError(
                f"{number} of {len(self._media)} media cannot be used, over data.max_failed_share="
                f"{self._max_failed_share:g}, all of them on other hosts, which name them"
            )
        uncached = [error for error in failed.values() if error.kind == "uncached"]
        first = uncached[0] if uncached else next(iter(failed.values()))
        raise ValueError(
            f"{number} of {len(self._media)} media cannot be used, over "
            f"data.max_failed_share={self._max_failed_share:g}; first: {first}"
        )

    def _failed(self) -> dict[Request, MediaError]:
        return {r: e for r, e in self._source.failed.items() if r in self._media}


def _mix_identity(sources: Sequence[Source]) -> dict[str, Any]:
    """Returns what a position in a mixture is of; unequal shares were drawn otherwise once."""
    if not sources:
        return {}
    is_even = len({source.weight for source in sources}) == 1
    return {"sources": [list(s) for s in sources]} | ({} if is_even else {"shares": "exact"})


def _named(medium: Medium) -> str:
    """Returns what tells a medium from others, wherever the cache of media lies."""
    if isinstance(medium, str):
        return place_free(medium)
    frames = tuple(map(place_free, medium.frames))
    path = place_free(medium.path)
    return repr(dataclasses.replace(medium, path=path, frames=frames))


def rows_identity(rows: Sequence[Row], is_by_pass_rate: bool = False) -> dict[str, Any]:
    """Returns how many rows there are and a hash of what is asked, of what, and answered.

    Args:
        rows: of a file, or of several.
        is_by_pass_rate: their pass rates count too.
    """
    digest = hashlib.blake2b(digest_size=8)
    for row in rows:
        images, videos = ([_named(m) for m in media] for media in (row.images, row.videos))
        fields = [row.problem_id, row.problem, row.problem_type, images, videos]
        fields += [row.answer, row.options, row.video_start, row.video_end]
        fields += [[turn.content for turn in row.turns]] if row.turns else []
        fields += [row.extra.get("pass_rate")] if is_by_pass_rate else []
        digest.update(json.dumps(fields, default=str).encode())
    return {"rows": len(rows), "digest": digest.hexdigest()}

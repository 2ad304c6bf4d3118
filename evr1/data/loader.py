"""Batches of examples from rows, by Grain: shuffled, split among hosts, read ahead, resumable.

There is one order for all hosts, and the position is one number, so that it means the same on any
number of them. A row whose media fail, that is larger than was planned, or that `data.skip` names
is passed over on all hosts and the next one takes its place; all are counted, and where more than a
share of the media fails the run stops.
"""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import grain
import numpy as np

from evr1.data import left_out, rows_identity
from evr1.data.errors import MediaError
from evr1.data.media.source import MediaSource, Request, media_requests
from evr1.data.order import Source, draw_order
from evr1.data.processor import Processor
from evr1.data.records import Example, Row, elsewhere
from evr1.data.share import Share, measure, plan_lengths

grain.config.update("py_traceback_filtering", "off")  # it would append to the message of errors


class Passed(NamedTuple):
    """A row that gives no example when its turn comes.

    Attributes:
        metric: data/*, counts it.
        line: what to tell about it, once; empty: it is told elsewhere.
    """

    metric: str
    line: str = ""


class Loader:
    """An iterator over batches, lists of examples, that can be resumed at any batch.

    `get_state` and `set_state` resume exactly, on the same rows and any number of hosts, also where
    other rows are skipped. Every host gets every batch; the examples of others stand in it without
    their content.

    Use it as a context manager, or call `close`.

    Attributes:
        lengths: int32[rows], planned prompt tokens.
        skipped: rows that are passed over.
        misfit: why an example that is larger than planned cannot be used; "": it can. Known once
            the shapes of batches are planned, from `lengths`.
        tell: takes a line about a row that is passed over, or media that may show nothing; by
            default it is kept for `pop_lines`.
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
        skipped: frozenset[int] = frozenset(),
        epochs: int | None = None,
        share: Share | None = None,
        max_prompt_tokens: int = 0,
        overlong: Literal["drop", "refuse"] = "drop",
        max_overlong_share: float = 1.0,
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
            skipped: rows to pass over when their turn comes; the order is as with them.
            epochs: see `draw_order`.
            share: what this host loads; None: everything.
            max_prompt_tokens: longer prompts are dropped or refused; 0: no limit.
            overlong: what to do with them.
            max_overlong_share: of the rows that may be dropped for it.
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
        self._media, self._counts = set().union(*self._requests), collections.Counter[str]()
        self._failed_elsewhere = self._at = 0
        self.misfit: Callable[[Example], str] = lambda _: ""
        self.skipped, self._is_endless = skipped, epochs is None
        self._lines, self._lines_told = list[str](), set[str]()
        self.tell: Callable[[str], None] = self._lines.append
        self._passed: dict[int, str] = {}  # rows that gave nothing when last drawn
        self._groups, self._share = groups, share or Share()
        distinct = list(dict.fromkeys(itertools.chain.from_iterable(self._requests)))
        sizes = measure(distinct, source, self._share, max(threads, 1))
        self.lengths = plan_lengths(rows, self._requests, sizes, processor, self._share, raw)
        self._is_used = self._select(overlong, max_overlong_share)
        self._check_failed()
        self._check_sources(sources)
        order_of = {"seed": seed if shuffle else None, **_order_identity(sources, curriculum)}
        self._identity = rows_identity.identity_of(rows, bool(curriculum)) | order_of
        self._order = draw_order(
            rows,
            sources=sources,
            seed=seed,
            shuffle=shuffle,
            curriculum=curriculum,
            epochs=epochs,
            is_used=self._is_used,
        )
        ahead = max(-(-prefetch_batches * groups // self._share.count), threads)
        self._options = grain.ReadOptions(threads, ahead if threads else 0)
        self._planned_failures = len(self._failed())
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
        batch = self.take(self._groups)
        if not batch:
            raise StopIteration
        return batch

    def take(self, count: int) -> list[Example]:
        """Returns so many examples, or fewer where there are no more."""
        batch: list[Example] = []
        while len(batch) < count and self._at < len(self._order):
            end = min(self._at + count - len(batch), len(self._order))
            batch += self._read(self._at, end)
            self._at = end
        return batch

    def _read(self, start: int, end: int) -> list[Example]:
        """Returns the examples of some places of the order, less those that failed."""
        share = self._share
        own = {at: self._next_own() for at in range(start, end) if at % share.count == share.index}
        passed = [(at, *x) for at, x in own.items() if isinstance(x, Passed)]
        remarked = [
            each for at, x in own.items() if isinstance(x, Example) for each in self._about(at)
        ]
        if share.count > 1:
            failed = len(self._failed()) - self._planned_failures
            told = share.gather({"passed": passed, "failed": failed, "remarked": remarked})
            passed = [each for one in told for each in one["passed"]]
            remarked = [each for one in told for each in one["remarked"]]
            self._failed_elsewhere = sum(one["failed"] for one in told) - failed
            self._check_failed()
        for line in self._source.told.lines(remarked, len(self._media)):
            self.tell(line)
        missing = {at: Passed(*each) for at, *each in passed}
        examples = []
        for at in range(start, end):
            number: Any = self._order[at]
            if at in missing:
                self._pass_over(number, missing[at])
                continue
            self._passed.pop(number, None)
            example = own.get(at)
            if not isinstance(example, Example):
                example = elsewhere(self._rows[number], at % share.count)
            examples.append(dataclasses.replace(example, host=at % share.count))
        return examples

    def _about(self, at: int) -> list[tuple[str, str, list[str]]]:
        """Returns what is to be said of the media of a place of the order; see `remarks.Told`."""
        number: Any = self._order[at]
        found = ((r.name, self._source.remarks(r)) for r in self._requests[number])
        return [(name, self._rows[number].source, list(about)) for name, about in found if about]

    def _pass_over(self, number: int, passed: Passed) -> None:
        """Counts a row without an example, on all hosts alike, and tells it the first time."""
        self._counts[passed.metric] += 1
        if passed.line and passed.line not in self._lines_told:
            self._lines_told.add(passed.line)
            self.tell(passed.line)
        self._passed[number] = passed.line or passed.metric
        if self._is_endless and len(self._passed) == self._is_used.sum():
            raise ValueError(
                f"none of {len(self._passed)} rows can be used any more; the last one: "
                f"{self._passed[number]}"
            )

    def pop_lines(self) -> list[str]:
        """Returns what there is to tell since the last call, the same on all hosts."""
        lines = list(self._lines)
        self._lines.clear()
        return lines

    def _next_own(self) -> Example | Passed:
        """Returns the next example of this host."""
        share = self._share
        if self._reader is None:
            first = self._at + (share.index - self._at) % share.count
            own = self._order[first :: share.count]
            loaded = own.map(self._load)
            self._reader = iter(loaded.to_iter_dataset(self._options))
        return next(self._reader)

    def get_state(self) -> dict[str, Any]:
        """Returns the position for JSON: the batch after the last one yielded comes next."""
        return {"identity": self._identity, "position": self._at}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to a position.

        Raises:
            ValueError: it was saved with other rows or another seed.
        """
        if unlike := rows_identity.unlike(state["identity"], self._identity):
            raise ValueError(
                f"the run's place in the data is of other data: {unlike}; give the same data file "
                "and seed, or a new workdir"
            )
        self.close()
        self._at = state["position"]

    def metrics(self) -> dict[str, float]:
        """Returns the counts so far: failed media by kind, rows passed over, rows too long."""
        failed = self._failed()
        kinds = collections.Counter(error.kind for error in failed.values())
        return {
            "data/decode_failed": float(len(failed) + self._failed_elsewhere),
            **({"data/psnr_db": self._source.psnr} if self._source.psnr else {}),
            **{f"data/decode_failed/{kind}": float(n) for kind, n in sorted(kinds.items())},
            **{f"data/{name}": float(n) for name, n in sorted(self._counts.items())},
        }

    def _select(self, overlong: str, max_share: float) -> np.ndarray:
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
        if len(too_long) > max_share * len(self._rows):
            raise ValueError(
                f"{left_out.overlong(self._rows, self.lengths, limit)}: over "
                f"data.max_overlong_share={max_share:g}; raise max_prompt_tokens, lower the pixel "
                f"budgets, or raise that share; first: {self._rows[too_long[0]].source}"
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
        example = self._load(index)
        return None if isinstance(example, Passed) else example

    def is_skipped(self, source: str) -> bool:
        """Returns whether `data.skip` names the row of this file and line."""
        return any(self._rows[i].source == source for i in self.skipped)

    def _load(self, index: int) -> Example | Passed:
        row = self._rows[index]
        if not self._is_used[index]:
            return Passed("skipped_rows")
        if index in self.skipped:
            line = f"{row.source} ({row.problem_id}): passed over, as data.skip says"
            return Passed("listed_rows", line)
        try:
            loaded = [self._source.load(request) for request in self._requests[index]]
        except MediaError:
            self._check_failed()
            return Passed("skipped_rows")
        example = self._processor.encode(row, loaded, self._raw)
        tokens, limit = len(example.tokens), self._max_prompt_tokens
        metric, reason = "misfit_rows", self.misfit(example)
        if 0 < limit < tokens:
            metric, reason = "overlong_rows", f"over data.max_prompt_tokens={limit}"
        if not reason:
            return example
        planned = self.lengths[index]  # as the headers of its media promised
        line = f"{row.source} ({row.problem_id}): {planned} prompt tokens planned, {tokens} decoded"
        return Passed(metric, f"{line}, {reason}: passed over")

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


def _order_identity(sources: Sequence[Source], curriculum: str) -> dict[str, Any]:
    """Returns what else a position is of."""
    identity: dict[str, Any] = {"curriculum": curriculum} if curriculum else {}
    return identity | ({"sources": [list(s) for s in sources]} if sources else {})

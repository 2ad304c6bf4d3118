"""Keeps the rows that a model solves sometimes: k completions of each, scored as in training.

    evr1 filter --model HF_DIR --rows rows.jsonl --out DIR --k 8

A completion passes when its accuracy is --pass_at or more, and a row is kept when --min < share of
passes < --max. DIR gets kept.jsonl, too_easy.jsonl, too_hard.jsonl and failed.jsonl (media or
scorer failed): the rows as they were, in their order, with pass_rate and mean_accuracy, failed ones
with null for both and filter_failure, the reason. summary.json is written last; it has counts and
histograms. Running it again continues from DIR/progress.jsonl. Failed rows are tried again, and
other --min, --max or --pass_at need no new completions. Tokens depend on --seed and the row's place
in the file alone.

--pass_at 0.5 suits answers that are right or wrong, and is the usual threshold of an IoU. Graded
types (grounding, tracking, ocr, regression) whose completions mostly pass need a higher one:
training learns from the spread of accuracies, and there is spread above the threshold, too.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from rich import console, progress

from evr1 import rewards
from evr1.batch.shapes import shapes_of_examples
from evr1.cli import inference, outputs, pass_rates, sessions
from evr1.data import jsonl, readers, rows
from evr1.data.errors import MediaError
from evr1.data.media.cache import MediaCache
from evr1.data.records import Row
from evr1.formats import problem_types, user_code
from evr1.formats.words import counted
from evr1.rewards import Score, extra
from evr1.rewards.pool import RewardPool
from evr1.types import Rollouts

PROGRESS = "progress.jsonl"
SUMMARY = "summary.json"


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 with one line on standard error."""
    return inference.main("filter_by_pass_rate", _parser(), _run, argv)


def _run(flags: argparse.Namespace) -> int:
    out, folder = console.Console(), pathlib.Path(flags.out)
    say = inference.noter(out, flags)
    rule = _check(flags)
    types = problem_types.Types(extra.all_scorers(flags.extra), flags.unknown_type)
    complete = inference.complete(flags)
    schema = inference.schema(flags, canonical=types.canonical, complete=complete)
    data = rows.load_rows(flags.rows, schema, say)
    kept = {row.index for row in data}
    read = readers.read_lines(flags.rows, MediaCache(flags.media_cache))
    originals: list[Any] = [fields for index, (_, fields) in enumerate(read) if index in kept]
    for row, fields in zip(data, originals, strict=True):
        _line(fields, row)
    _check_folder(folder, pathlib.Path(flags.rows))
    failed = _unscorable(data, flags)
    failures = outputs.Failures(len(data), flags.max_failed_share, "failed")
    for index, reason in failed.items():
        failures.add(next(row for row in data if row.index == index), reason)
    with contextlib.ExitStack() as stack:
        settings = inference.settings(flags) | {
            "extra": outputs.with_digest(flags.extra, user_code.digest(flags.extra))
        }
        results = stack.enter_context(outputs.Results(str(folder / PROGRESS), settings, 1))
        say(
            f"{counted(len(data), 'row')}, {len(results.done)} done before; "
            f"{counted(flags.k, 'completion')} of each at temperature {flags.temperature:g}; "
            f"{flags.model}"
        )
        for line in types.lines():
            say(line)
        scorable = [row for row in data if row.index not in failed]
        todo = _unfinished(scorable, results.done, 2 * flags.slots)
        failures.check()
        if todo:
            session = sessions.open_session(flags, stack, data, say)
            measure = _Measure(flags, session, stack, results, failures, failed)
            bar = stack.enter_context(inference.bar(out, "measuring"))
            measure.run(todo, min(flags.slots, len(scorable)), bar, len(data))
            bar.stop()
        failures.check(say)
    measured = {v["index"]: v["accuracies"] for _, v in jsonl.read(folder / PROGRESS)} | failed
    summary = _write(folder, data, originals, [measured[r.index] for r in data], rule, flags.k)
    out.print(pass_rates.table(summary))
    if not any(rule.low < j / flags.k < rule.high for j in range(flags.k + 1)):
        say(f"no pass rate of k={flags.k} lies between --min and --max; raise --k")
    say(f"{folder}: kept {summary['kept']} of {counted(len(data), 'row')}")
    return 0


def _check(flags: argparse.Namespace) -> pass_rates.Rule:
    """Returns the rule that the flags give; raises ValueError where there is none."""
    if flags.k < 1 or flags.slots < 1:
        raise ValueError(f"--k {flags.k}, --slots {flags.slots}; give at least 1 of each")
    if not 0 <= flags.min < flags.max <= 1:
        raise ValueError(f"--min {flags.min:g}, --max {flags.max:g}; give 0 <= min < max <= 1")
    if not 0 < flags.pass_at <= 1:
        raise ValueError(f"--pass_at {flags.pass_at:g}; give more than 0 and at most 1")
    return pass_rates.Rule(flags.min, flags.max, flags.pass_at)


def _check_folder(folder: pathlib.Path, source: pathlib.Path) -> None:
    """Raises ValueError where files of somebody else would be replaced."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is no directory; give the name of one")
    made = [folder / f"{place}.jsonl" for place in pass_rates.PLACES] + [folder / SUMMARY]
    if source.resolve() in [path.resolve() for path in made]:
        raise ValueError(f"--rows {source} would be replaced; give another --out")
    there = [path for path in made if path.exists()]
    if there and not (folder / PROGRESS).exists():
        raise ValueError(f"{there[0]} exists and is not of this command; give another --out")


def _unscorable(data: Sequence[Row], flags: argparse.Namespace) -> dict[int, str]:
    """Rows that no completion can be scored for, with the reason; nothing is drawn for them."""
    scorers, reasons = extra.all_scorers(flags.extra), {}
    for row in data:
        try:
            rewards.check_row(row, scorers, flags.box_scale)
        except ValueError as error:
            reasons[row.index] = inference.name_flags(str(error), flags)
    return reasons


def _unfinished(data: Sequence[Row], done: frozenset[int], size: int) -> list[Row]:
    """Returns the chunks, of `size` rows each, that hold a row that is not done.

    Whole chunks: their rows are padded together, so every run pads them in the same way.
    """
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    return [row for chunk in chunks if any(r.index not in done for r in chunk) for row in chunk]


class _Measure:
    """Draws and scores completions; what comes out goes to `results`, or to `failed`."""

    def __init__(
        self,
        flags: argparse.Namespace,
        session: sessions.Session,
        stack: contextlib.ExitStack,
        results: outputs.Results,
        failures: outputs.Failures,
        failed: dict[int, str],
    ):
        self._flags, self._results = flags, results
        self._failures, self._failed = failures, failed
        self._waiting: list[tuple[Row, Future[list[Score]]]] = []
        self._session = session
        self._sampling = self._session.actor.sampling(
            temperature=flags.temperature, max_tokens=flags.max_tokens, seed=flags.seed
        )
        self._pool = stack.enter_context(
            RewardPool(
                flags.score_workers,
                flags.score_timeout_s,
                extra=flags.extra,
                box_scale=flags.box_scale,
                think_open=self._session.actor.processor.think_open,
            )
        )

    def run(self, todo: Sequence[Row], slots: int, bar: progress.Progress, total: int) -> None:
        """Measures the rows that are not done.

        Args:
            todo: whole chunks of `2 * flags.slots` rows.
            slots: rows that decode at the same time.
            bar: shows how many rows are done.
            total: rows of the data file.

        Raises:
            ValueError: too many rows failed.
        """

        flags, session, done = self._flags, self._session, self._results.done
        actor = session.actor
        task = bar.add_task("", total=total, completed=len(done) + len(self._failed))
        tokens, seconds = 0, 0.0
        for chunk, encoded in session.chunks(todo, 2 * flags.slots):
            for row, example in zip(chunk, encoded, strict=True):
                if isinstance(example, MediaError):
                    self._fail(row, inference.name_flags(str(example), flags))
                    bar.advance(task)
            examples = [e for e in encoded if not isinstance(e, MediaError)]
            pending = [e for e in examples if e.row.index not in done]
            if pending:
                # Buckets of the whole chunk, also where a part of it is done already.
                shapes = shapes_of_examples(examples, actor.processor.geometry, flags.max_tokens)
                padded = dataclasses.replace(actor, shapes=shapes)

                def finish(i: int, rollouts: Rollouts, pending=pending) -> None:
                    self._submit(pending[i].row, rollouts)
                    bar.advance(task)

                ids = [e.row.index for e in pending]
                begun = time.perf_counter()
                rollouts = padded.generate(
                    session.params,
                    pending,
                    ids,
                    self._sampling,
                    n=flags.k,
                    slots=slots,
                    on_finish=finish,
                )
                tokens += int(rollouts.lengths.sum())
                seconds += time.perf_counter() - begun
                bar.update(task, description=f"{tokens / seconds:.0f} tokens/s")
            self._collect(wait=True)
            for line in session.remarks(chunk):
                inference.noter(bar.console, flags)(f"  {line}")
            self._failures.check()

    def _submit(self, row: Row, rollouts: Rollouts) -> None:
        """Starts scoring the completions of a row, and writes what is scored by now."""
        broken = int((~rollouts.is_finite).sum())
        if broken:
            self._fail(row, f"logits that are not finite in {counted(broken, 'completion')}")
            return
        texts = self._session.actor.texts(rollouts)
        self._waiting.append((row, self._pool.submit(texts, [row] * len(texts))))
        self._collect(wait=False)

    def _collect(self, wait: bool) -> None:
        while self._waiting and (wait or self._waiting[0][1].done()):
            row, future = self._waiting.pop(0)
            scores = future.result()
            broken = [s for s in scores if s.has_failed]
            if broken:
                self._fail(row, f"{len(broken)} of {len(scores)} scorings: {broken[0].detail}")
            else:
                accuracies = [float(s.accuracy) for s in scores]
                self._results.add([{"index": row.index, "accuracies": accuracies}])

    def _fail(self, row: Row, reason: str) -> None:
        self._failed[row.index] = reason
        self._failures.add(row, reason)


def _write(
    folder: pathlib.Path,
    data: Sequence[Row],
    originals: Sequence[Mapping],
    measured: Sequence[pass_rates.Measured],
    rule: pass_rates.Rule,
    k: int,
) -> dict:
    """Writes all outputs and returns the summary; where there is a summary, they belong to it."""
    lines: dict[str, list[str]] = {place: [] for place in pass_rates.PLACES}
    for row, fields, one in zip(data, originals, measured, strict=True):
        kept = {name: value for name, value in fields.items() if name != "filter_failure"}
        lines[rule.place(one)].append(_line(kept | rule.added(one), row))
    (folder / SUMMARY).unlink(missing_ok=True)
    for place, text in lines.items():
        outputs.write_atomic(folder / f"{place}.jsonl", "".join(text))
    summary = pass_rates.summarize(data, measured, rule, k)
    outputs.write_atomic(folder / SUMMARY, json.dumps(summary, indent=1) + "\n")
    return summary


def _line(fields: Mapping, row: Row) -> str:
    """Returns a row as JSON; raises ValueError where it has no such form."""
    try:
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        line.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell and UTF-8 cannot
        line = json.dumps(fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{row.source}: row: {error}; drop what no JSON file can hold") from None
    return line + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = inference.parser(__doc__, "directory to write; what it holds already is kept")
    add = parser.add_argument
    add("--k", type=int, default=8, help="completions of a row (default 8)")
    add("--min", type=float, default=0.0, help="rows above this pass rate are kept (default 0)")
    add("--max", type=float, default=1.0, help="rows below this pass rate are kept (default 1)")
    add("--pass_at", type=float, default=0.5, help="accuracy that passes (default 0.5)")
    add("--temperature", type=float, default=1.0, help="0: greedy (default 1)")
    add("--max_tokens", type=int, default=1024, help="of a completion (default 1024)")
    add("--slots", type=int, default=16, help="rows that decode at the same time (default 16)")
    add("--window", type=int, default=16, help="decode steps per dispatch (default 16)")
    add("--extra", default="", help="own scorers: path of a .py file or a module")
    add("--unknown_type", default="", help="what unknown problem types are read as")
    add("--score_workers", type=int, default=2, help="scoring processes (default 2)")
    add("--score_timeout_s", type=float, default=2.0, help="for one completion (default 2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

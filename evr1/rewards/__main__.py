"""Scores responses without a model: python -m evr1.rewards --rows in.jsonl --out out.jsonl.

A row holds problem_type, response, answer (or ground_truth), and optionally options and problem. An
output row is the input row with overall, accuracy, format, status and extracted (and detail, where
something went wrong). "-" reads from stdin or writes to stdout. A table by problem type goes to
stderr.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from evr1 import rewards
from evr1.rewards.base import Score, Status, Task, Weights, make_task
from evr1.rewards.judge import BatchScorer, Judge, Judged
from evr1.rewards.judge_cache import Cached
from evr1.rewards.judge_http import HttpJudge
from evr1.rewards.pool import RewardPool

BATCH = 4096  # rows in flight


def main(argv: list[str] | None = None) -> None:
    """Runs the command; bad input ends in one line and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m evr1.rewards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", required=True, help="JSONL file with responses, or - for stdin")
    parser.add_argument("--out", required=True, help="JSONL file to write, or - for stdout")
    parser.add_argument("--accuracy_weight", type=float, default=0.9)
    parser.add_argument("--format_weight", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=2, help="scoring processes (default 2)")
    parser.add_argument("--timeout_s", type=float, default=2.0, help="per response (default 2)")
    add = parser.add_argument_group("an LLM judge (none without --judge_url)").add_argument
    add("--judge_url", default="", help="base URL of an OpenAI-compatible endpoint")
    add("--judge_model", default="", help="the model's name there")
    add("--judge_key_env", default="", help="environment variable that holds the API key")
    add(
        "--judge_types",
        default="open-ended,preference",
        help="problem types that it rules on (default open-ended,preference)",
    )
    add("--judge_cache", default="", help="JSONL file that keeps rulings")
    args = parser.parse_args(argv)
    try:
        run(args)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on: no message at exit either
        sys.exit(1)
    except (OSError, ValueError) as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing was written to --out")


def run(args: argparse.Namespace) -> None:
    """Reads, scores and writes the rows in batches.

    Raises:
        ValueError: a row is malformed or has no scorer; names its line.
    """
    weights = Weights(args.accuracy_weight, args.format_weight).check()
    table: dict[str, list[Score]] = collections.defaultdict(list)
    with contextlib.ExitStack() as stack:
        rows = read_rows(_open(stack, args.rows), args.rows)
        pool = stack.enter_context(RewardPool(args.workers, args.timeout_s, weights))
        scorer = _with_judge(args, pool, weights)
        out = stack.enter_context(_output(args.out))
        while batch := list(itertools.islice(rows, BATCH)):
            scores = scorer.score_batch(
                [r.get("response") for r, _ in batch], [t for _, t in batch]
            )
            for (row, task), score in zip(batch, scores, strict=True):
                table[task.problem_type].append(score)
                print(json.dumps({**row, **_fields(score)}, ensure_ascii=False), file=out)
        if not table:
            raise ValueError(f"{args.rows}: no rows")
    print(format_table(table), file=sys.stderr)


def _with_judge(args: argparse.Namespace, scorer: BatchScorer, weights: Weights) -> BatchScorer:
    """The scorer with the judge that the flags name; itself where they name none."""
    if not args.judge_url:
        if args.judge_model or args.judge_key_env or args.judge_cache:
            raise ValueError("--judge_url is not given; add it, or drop the other --judge flags")
        return scorer
    judge: Judge = HttpJudge(args.judge_url, args.judge_model, api_key_env=args.judge_key_env)
    if args.judge_cache:
        judge = Cached(judge, Path(args.judge_cache))
    return Judged(scorer, judge, args.judge_types.split(","), weights)


def read_rows(lines: IO[str], name: str) -> Iterator[tuple[dict[str, Any], Task]]:
    """The rows of a JSONL file with their tasks.

    Args:
        lines: the open file.
        name: of the file, for messages.

    Raises:
        ValueError: a row is malformed or has no scorer; names its line.
    """
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _read_row(line, f"{name}:{number}")
    except UnicodeDecodeError:
        raise ValueError(f"{name}: not UTF-8 after line {number}; convert it first") from None


def _read_row(line: str, where: str) -> tuple[dict[str, Any], Task]:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"got {line.strip()[:60]!r}; a row is a JSON object")
        if not isinstance(row.get("response"), str | None):
            raise ValueError(f"response is {row['response']!r}; give a text or null")
        task = make_task(row)
        rewards.find_scorer(task.problem_type)
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply; correct the row") from None
    except ValueError as e:
        raise ValueError(f"{where}: {e}") from e
    return row, task


def format_table(table: dict[str, list[Score]]) -> str:
    """A line per problem type: rows, mean scores, and how many were not plainly scored."""
    others = [s for s in Status if s is not Status.OK]
    head = ["problem_type", "rows", "overall", "accuracy", "format", *others]
    lines = [head]
    total = [s for scores in table.values() for s in scores]
    for name, scores in [*sorted(table.items()), ("all", total)]:
        means = [sum(column) / len(scores) for column in list(zip(*scores, strict=True))[:3]]
        counts = [sum(s.status is status for s in scores) for status in others]
        lines.append([name, str(len(scores)), *(f"{m:.4f}" for m in means), *map(str, counts)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            c.rjust(w) if i else c.ljust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _fields(score: Score) -> dict[str, Any]:
    fields = score._asdict()
    return fields if score.detail else {k: v for k, v in fields.items() if k != "detail"}


def _open(stack: contextlib.ExitStack, path: str) -> IO[str]:
    if path == "-":
        return sys.stdin
    return stack.enter_context(open(path, encoding="utf-8-sig"))


@contextlib.contextmanager
def _output(path: str) -> Iterator[IO[str]]:
    """Where the rows go; a file appears, in the place of an old one, only when it is complete."""
    if path == "-":
        yield sys.stdout
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # a device or a pipe cannot be replaced
        with target.open("w", encoding="utf-8", errors="replace") as file:
            yield file
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        # half a surrogate pair is no text, yet JSON can spell it
        with part.open("w", encoding="utf-8", errors="replace") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    main()

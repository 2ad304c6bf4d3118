"""Scores responses without a model: evr1 rewards --rows in.jsonl --out out.jsonl.

A row holds problem_type, response (or completion), answer (or ground_truth), and optionally
options, problem, what its type asks for (or the shape of another tool, as docs/data.md has them),
and think_open: true where its prompt left a think block
open (--model DIR tells it for rows that do not say). An output row is the input row with overall,
accuracy, format, status and extracted (and detail, where something went wrong; and terms, where
they were asked for); media that Parquet holds as bytes are data: URLs in it. A row that cannot be
scored gets status error, and the others go on. "-" reads JSONL from stdin or writes to stdout;
.json and .parquet files are read too. A table by problem type goes to stderr.
"""

import argparse
import collections
import contextlib
import functools
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from evr1 import rewards
from evr1.config import arguments, columns
from evr1.formats import box_frames, chat_template, problem_types, think_block
from evr1.parallel import leaving
from evr1.rewards import compose, extra, files
from evr1.rewards.base import Score, Status, Task, Weights, make_task
from evr1.rewards.judging.judge import BatchScorer, Judge, Judged
from evr1.rewards.judging.judge_cache import Cached
from evr1.rewards.judging.judge_http import HttpJudge
from evr1.rewards.pool import RewardPool

BATCH = 1024  # rows in flight
_FLAGS = {  # by the field of a run's config
    f"{group}.{name}": name
    for group, names in (
        ("data", ("columns", "problem_type", "thinking", "template_variables")),
        ("rewards", ("box_scale", "unknown_type", "extra", "terms", "timeout_s", "workers")),
    )
    for name in names
}


def main(argv: list[str] | None = None) -> None:
    """Runs the command; bad input ends in one line and exit code 1."""
    args = make_parser().parse_args(argv)
    try:
        run(args)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on: no message at exit either
        sys.exit(1)
    except OSError as e:
        sys.exit(f"error: {f'{e.filename}: {e.strerror}; check the path' if e.filename else e}")
    except ValueError as e:
        sys.exit(f"error: {arguments.name_flags(str(e), _FLAGS)}")
    except KeyboardInterrupt as stop:
        sys.exit(leaving.status(stop, "interrupted; nothing was written to --out"))


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = arguments.Parser(
        prog=None if sys.argv[0].startswith("evr1 ") else "python -m evr1.rewards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--rows", required=True, help="JSONL, .json or .parquet file with responses, or - for stdin"
    )
    add("--out", required=True, help="JSONL file to write, or - for stdout")
    add("--accuracy_weight", type=float, default=0.9)
    add("--format_weight", type=float, default=0.1)
    add("--workers", type=int, default=2, help="scoring processes (default 2)")
    add("--timeout_s", type=float, default=2.0, help="per response (default 2)")
    frames = ", ".join(box_frames.SCALES)
    add(
        "--box_scale",
        default="",
        choices=["", *box_frames.SCALES],
        metavar="FRAME",
        help=f"of the responses' boxes: {frames} (default: the frame of the ground truth)",
    )
    add("--model", default="", help="directory whose chat template the responses' prompts went by")
    add(
        "--thinking",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="what they set its enable_thinking to (default: nothing)",
    )
    add("--template_variables", default="", help="further ones that they set, a JSON object")
    add("--columns", default="", help='our field to theirs, as JSON: \'{"answer": "gold"}\'')
    add(
        "--problem_type",
        default="",
        help="of rows without one and without options; default: they get status error",
    )
    add("--unknown_type", default="", help="what unknown problem types are read as")
    add("--extra", default="", help="own scorers and terms: path of a .py file or a module")
    add("--terms", default="", help="further terms of overall, e.g. repetition_penalty=0.1,...")
    add("--max_length", type=int, default=0, help="limit that the length terms go by")
    add("--overlong_cache", type=int, default=0, help="default: a fifth of --max_length")
    add("--repetition_words", type=int, default=4, help="words of a phrase (default 4)")
    add = parser.add_argument_group("an LLM judge (none without --judge_url)").add_argument
    add("--judge_url", default="", help="base URL of an OpenAI-compatible endpoint")
    add("--judge_model", default="", help="the model's name there")
    add("--judge_key_env", default="", help="environment variable that holds the API key")
    add("--judge_types", default="open-ended", help="problem types that it rules on (open-ended)")
    add("--judge_cache", default="", help="JSONL file that keeps rulings")
    return parser


def run(args: argparse.Namespace) -> None:
    """Reads, scores and writes the rows in batches.

    Raises:
        ValueError: a flag is wrong, or the file cannot be read as rows; names its line.
    """
    table: dict[str, list[Score]] = collections.defaultdict(list)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(files.reading(args.rows))
        scoring = stack.enter_context(Scoring(args))
        out = stack.enter_context(files.writing(args.out))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # an own term may print
        advance = stack.enter_context(_progress(source.total))
        while rows := list(itertools.islice(source.rows, BATCH)):
            for name, row, score in scoring.of(rows):
                table[name].append(score)
                print(json.dumps(row, ensure_ascii=False), file=out)
            advance(len(rows))
        if not table:
            raise ValueError(f"{args.rows}: no rows")
    lines = [arguments.name_flags(line, _FLAGS) for line in scoring.lines()]
    print(*lines, format_table(table), sep="\n", file=sys.stderr)


class Scoring:
    """What the flags ask for, with its worker processes; a context manager.

    Raises:
        ValueError: a flag is wrong.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        weights = Weights(args.accuracy_weight, args.format_weight).check()
        scorers = extra.all_scorers(args.extra)
        self._types = problem_types.Types(scorers, args.unknown_type)
        if args.problem_type:
            problem_types.canonical(args.problem_type, self._types.own)
        self._terms = _terms(args)
        self._read = functools.partial(
            _read,
            types=self._types,
            scorers=scorers,
            box_scale=args.box_scale,
            think_open=_is_left_open(args),
            has_terms=bool(self._terms.parts),
            renamed=columns.parse(args.columns),
            default_type=args.problem_type,
        )
        self._pool = RewardPool(args.workers, args.timeout_s, weights, args.extra, args.box_scale)
        try:
            self._scorer = _with_judge(args, self._pool, weights)
        except ValueError:
            self._pool.close()
            raise

    def __enter__(self) -> "Scoring":
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.close()

    def of(self, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], Score]]:
        """Yields the problem type, the row with its score, and the score, of each row."""
        tasks = [self._read(row) for row in rows]
        scores = compose.add_terms(
            _score(self._scorer, rows, tasks), _outcomes(rows, tasks), self._terms
        )
        for row, task, score in zip(rows, tasks, scores, strict=True):
            name = task.problem_type if isinstance(task, Task) else _name_of(row, self._types)
            yield name, _scored(row, score), score

    def lines(self) -> list[str]:
        """Returns what is to be said of the problem types of the rows."""
        return self._types.lines()


def _with_judge(args: argparse.Namespace, scorer: BatchScorer, weights: Weights) -> Judged:
    """Returns the scorer, with the judge that the flags name."""
    if not args.judge_url:
        if args.judge_model or args.judge_key_env or args.judge_cache:
            raise ValueError("--judge_url is not given; add it, or drop the other --judge flags")
        return Judged(scorer, None)
    judge: Judge = HttpJudge(args.judge_url, args.judge_model, api_key_env=args.judge_key_env)
    if args.judge_cache:
        judge = Cached(judge, Path(args.judge_cache))
    return Judged(scorer, judge, args.judge_types.split(","), weights)


def _is_left_open(args: argparse.Namespace) -> bool:
    """Returns whether the prompts of --model end inside a think block.

    Raises:
        ValueError: it has no chat template, or none to which the other flags apply.
    """
    if not args.model:
        if args.thinking is not None or args.template_variables:
            raise ValueError("--thinking and --template_variables need --model DIR")
        return False
    root = Path(args.model)
    root = root / "hf" if (root / "hf").is_dir() else root  # as evr1 convert has it
    variables = chat_template.choose_variables(root, args.thinking, args.template_variables)
    special = chat_template.special_tokens(root)
    start = chat_template.start_of_answer(chat_template.read(root), special, variables)
    return think_block.is_left_open(start)


def _read(
    row: dict[str, Any],
    types: problem_types.Types,
    scorers: Mapping[str, Any],
    box_scale: str,
    think_open: bool,
    has_terms: bool,
    renamed: Mapping[str, Any],
    default_type: str,
) -> Task | str:
    """Returns the task of a row, or what is wrong with the row; terms go by its length too."""
    try:
        if not {"response", "completion"} & row.keys():
            raise ValueError("response is missing; give a text or null")
        if not isinstance(_response(row), str | None):
            raise ValueError(f"response is {_response(row)!r}; give a text or null")
        task = make_task(
            _in_our_words(row, renamed, default_type), box_scale, types.canonical, think_open
        )
        rewards.find_scorer(task.problem_type, scorers)
        if has_terms and not _is_length(row.get("length")):
            raise ValueError(f"length is {row['length']!r}; give a whole number, such as 90")
    except ValueError as e:
        return arguments.name_flags(str(e), _FLAGS)
    return task


def _in_our_words(
    row: dict[str, Any], renamed: Mapping[str, Any], default_type: str
) -> dict[str, Any]:
    """Returns a row with the fields that scoring reads, by whichever tool it was written."""
    if renamed or (row.get("answer") is None and row.get("ground_truth") is None):
        from evr1.data import dialects  # rows in our own words need none of it

        # To other tools a response is the answer.
        told = {k: v for k, v in row.items() if k not in ("response", "completion")}
        row = dialects.words(told, renamed)
    chosen = "multiple choice" if row.get("options") else default_type
    return row if row.get("problem_type") or not chosen else row | {"problem_type": chosen}


def _is_length(value: Any) -> bool:
    """Returns whether a value counts tokens (90, 90.0), or is None: nobody counted them."""
    if value is None:
        return True
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value >= 0 and value % 1 == 0  # not so for NaN and infinity


def _response(row: Mapping[str, Any]) -> Any:
    """Returns the text to score; rows of rollouts and of evr1 generate call it completion."""
    return row["response"] if "response" in row else row.get("completion")


def _score(
    scorer: BatchScorer, rows: Sequence[dict[str, Any]], tasks: Sequence[Task | str]
) -> list[Score]:
    """Scores the rows in their order; those without a task are errors."""
    good = [
        (_response(row), task)
        for row, task in zip(rows, tasks, strict=True)
        if isinstance(task, Task)
    ]
    scores = iter(scorer.score_batch([r for r, _ in good], [t for _, t in good]))
    return [
        next(scores) if isinstance(task, Task) else Score(0.0, 0.0, 0.0, Status.ERROR, detail=task)
        for task in tasks
    ]


def _outcomes(
    rows: Sequence[dict[str, Any]], tasks: Sequence[Task | str]
) -> Iterator[compose.Outcome]:
    """Yields what terms look at.

    A rollout's row holds its length in tokens, and whether it was cut.
    """
    for row, task in zip(rows, tasks, strict=True):
        text = _response(row) or ""
        scored_task = task if isinstance(task, Task) else Task("", "")
        length = row.get("length") if isinstance(task, Task) else None
        yield (
            text,
            scored_task,
            len(text) if length is None else int(length),
            row.get("finished") is not False,
        )


def _terms(args: argparse.Namespace) -> compose.Terms:
    """Returns the terms that the flags ask for.

    Raises:
        ValueError: no such term, no number for a weight, or a length term without its limit.
    """
    weights = []
    for part in filter(None, args.terms.split(",")):
        name, _, weight = part.partition("=")
        try:
            weights.append((name.strip(), float(weight)))
        except ValueError:
            raise ValueError(f"--terms: got {part!r}; give name=weight") from None
        if name.strip() in compose.NEED_LIMIT and args.max_length < 1:
            raise ValueError(f"--terms: {name.strip()} needs --max_length, the limit it goes by")
    cache = args.overlong_cache or max(1, args.max_length // 5)
    if cache < 0 or args.repetition_words < 1:
        raise ValueError("--overlong_cache and --repetition_words must be above 0")
    settings = compose.Settings(args.max_length, cache, args.repetition_words)
    return compose.find_terms(weights, extra.load(args.extra).terms, settings)


def _name_of(row: dict[str, Any], types: problem_types.Types) -> str:
    """Returns the problem type under which a row without a task is counted."""
    problem_type = row.get("problem_type")
    try:
        return problem_types.canonical(problem_type, types.own)
    except ValueError:
        return (problem_type.strip() if isinstance(problem_type, str) else "")[:40] or "(none)"


def format_table(table: dict[str, list[Score]]) -> str:
    """Returns a line per problem type: rows, mean scores, and how many were not plainly scored."""
    failures = [s for s in Status if s is not Status.OK]
    head = ["problem_type", "rows", "overall", "accuracy", "format", *failures]
    lines = [head]
    total = [s for scores in table.values() for s in scores]
    for name, scores in [*sorted(table.items()), ("all", total)]:
        means = [sum(column) / len(scores) for column in list(zip(*scores, strict=True))[:3]]
        counts = [sum(s.status is status for s in scores) for status in failures]
        lines.append([name, str(len(scores)), *(f"{m:.4f}" for m in means), *map(str, counts)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            c.rjust(w) if i else c.ljust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _scored(row: dict[str, Any], score: Score) -> dict[str, Any]:
    """Returns the row with its score and without any earlier one."""
    fields = {**score._asdict(), "status": str(score.status), "terms": dict(score.terms)}
    unsaid = [name for name in ("detail", "terms") if not fields[name]]
    was_scored = {"overall", "status"} <= row.keys()
    kept = {k: v for k, v in row.items() if not (was_scored and k in unsaid)}
    return kept | {k: v for k, v in fields.items() if k not in unsaid}


@contextlib.contextmanager
def _progress(total: int | None) -> Iterator[Any]:
    """Shows a bar on stderr, if that is a terminal; yields a function that takes the rows done."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("scoring", total=total)
        yield lambda rows: bar.update(task, advance=rows)


if __name__ == "__main__":
    main()

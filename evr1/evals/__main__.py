"""Everything about benchmarks besides asking the model that is tested.

evr1 benchmarks list
evr1 benchmarks show TASK
evr1 benchmarks prepare TASK --data DIR [--unpack]
evr1 benchmarks score RUN
evr1 benchmarks judge RUN --judge http://localhost:8000/v1 --model NAME
evr1 benchmarks judge RUN --judge MODEL_DIR
evr1 benchmarks score --cases cases.jsonl --out verdicts.jsonl
evr1 benchmarks compare A B
evr1 benchmarks view RUN --compare OTHER_RUN

TASK is a name of the list, or the path of a .py file of your own (docs/own_benchmark.md).
"""

import argparse
import json
import sys
from pathlib import Path

from rich.table import Table

from evr1.config import arguments
from evr1.evals import cases, compare, judge, prepare, rescore, show, view
from evr1.evals.tasks import TASKS
from evr1.parallel import leaving
from evr1.rewards import files


def main(argv: list[str] | None = None) -> None:
    """Runs the command; bad input ends in one line and exit status 1."""
    flags = _parser().parse_args(argv)
    try:
        flags.run(flags)
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}; check the path")
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        sys.exit(leaving.status(stop, "interrupted; what is done is kept"))


def _list(flags: argparse.Namespace) -> None:
    """Prints a table of the tasks."""
    table = Table()
    table.add_column("task", min_width=max(map(len, TASKS)))
    for column in ("n", "chance %", "metric", "frames", "judge"):
        table.add_column(column, overflow="fold")
    for task in TASKS.values():
        s = task.source
        chance = "" if s.chance is None else f"{s.chance:g}"
        table.add_row(task.name, str(s.n), chance, s.metric, s.frames, s.judge)
    rescore.wide_console().print(table)
    print("show TASK tells the rest: prompts, rules, labels, files")


def _score(flags: argparse.Namespace) -> None:
    """Scores the answers of a run, or loose rows."""
    if flags.run_dir and not flags.cases:
        rescore.run(Path(flags.run_dir), flags.all_profiles, not flags.no_logs)
    elif flags.cases and flags.out and not flags.run_dir:
        _score_cases(flags)
    else:
        raise ValueError("score what? give the folder of a run, or --cases with --out")


def _score_cases(flags: argparse.Namespace) -> None:
    """Scores loose rows; one that cannot be scored gets an `error`."""
    failed = count = 0
    with files.reading(flags.cases) as source, files.writing(flags.out) as out:
        for row in source.rows:
            try:
                verdict = cases.score_case(row)
            except ValueError as error:
                verdict = {"id": row.get("id"), "profile": row.get("profile"), "error": str(error)}
                failed += 1
            out.write(json.dumps(verdict, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count} cases scored into {flags.out}, {failed} of them with an error")


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(
        prog=None if sys.argv[0].startswith("evr1 ") else "python -m evr1.evals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("list", help="the tasks").set_defaults
    add(run=_list)
    show.add_command(commands)
    prepare.add_command(commands)
    score = commands.add_parser("score", help="score responses")
    add = score.add_argument
    add("run_dir", nargs="?", metavar="RUN", help="folder with samples_*.jsonl")
    add("--all-profiles", action="store_true", help="show all profiles and their spread")
    add("--no-logs", action="store_true", help="write no logs for inspect view")
    add("--cases", help="instead of a run: JSONL of task, profile, doc, response")
    add("--out", help="JSONL to write for --cases")
    score.set_defaults(run=_score)
    judge.add_command(commands)
    compare.add_command(commands)
    view.add_command(commands)
    return parser


if __name__ == "__main__":
    main()

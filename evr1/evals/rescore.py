"""Scores the answers of a run by the rules as they are now, without a model."""

import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evr1.evals import inspect_log, results, samples, scoring
from evr1.evals.bootstrap import Metric
from evr1.evals.results import TaskResults
from evr1.evals.samples import Run
from evr1.evals.scoring import Result
from evr1.evals.tasks.base import Task
from evr1.formats import extras

_SHOWN = 2  # rules in the table, unless all are asked for


def run(folder: Path, all_profiles: bool = False, has_logs: bool = True) -> None:
    """Scores a run, writes its results, and prints a table and what is missing.

    Args:
        folder: of the run.
        all_profiles: print all profiles of a task, and how far apart they are.
        has_logs: write logs for `inspect view`, or say how to get them.
    """
    read = samples.read_run(folder)
    scored = score_run(read)
    path = results.write(folder, scored, read.manifest)
    console = wide_console()
    console.print(table(scored, all_profiles))
    for line in (*notes(read), *(note for each in scored for note in problems(each))):
        console.print(line, markup=False, highlight=False)
    console.print(f"{path} and {folder / 'summary.csv'} are written", soft_wrap=True)
    if has_logs and inspect_log.is_available():
        console.print("writing logs for inspect view; --no-logs leaves them out")
        inspect_log.write(folder, scored, read.manifest)
        console.print(f"inspect view --log-dir {folder / inspect_log.FOLDER}", soft_wrap=True)
    elif has_logs:
        fix = f"no logs for inspect view: {extras.install('inspect')}, or --no-logs"
        console.print(fix, markup=False, highlight=False, soft_wrap=True)


def wide_console() -> Console:
    """Returns a console that cuts no table where its output is no terminal.

    Names and paths are no markup, whatever brackets they hold. A character that the output cannot
    encode, of a name say, is shown as "?".
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=None if sys.stdout.isatty() else 240, markup=False)


def score_run(read: Run) -> list[TaskResults]:
    """Returns the scores of each task of a run by all of its profiles.

    Raises:
        ValueError: there is no such task, or its answers cannot be scored together.
    """
    listed = []
    for name, merged in read.tasks.items():
        task = scoring.task_of(name, read.manifest)
        scored = scoring.judge_all(task, merged.answers, judged=read.judged)
        n_expected = scoring.expected(task, read.manifest)
        listed.append(
            TaskResults(
                task=task,
                answers=merged.answers,
                settings=scoring.settings_of(name, merged.answers),
                results=[scoring.score(each, n_expected) for each in scored.values()],
            )
        )
    return listed


def notes(read: Run) -> list[str]:
    """Returns what is odd about the files of a run, a line each."""
    lines = [f"{path}: a torn last line was left out" for path in read.torn]
    for name, merged in read.tasks.items():
        if merged.duplicates:
            listed = ", ".join(merged.duplicates[:5])
            more = len(merged.duplicates) - 5
            dots = f" and {more} more" if more > 0 else ""
            lines.append(f"{name}: answered more than once, and the same: {listed}{dots}")
    return lines


def problems(each: TaskResults) -> list[str]:
    """Returns lines on why a task has no headline, and on samples at which a rule stops."""
    first, lines = each.results[0], []
    for result in each.results:
        lines += [line for line in (result.scored.problem, result.failure) if line]
    if not first.is_partial:
        return lines
    found = first.scored
    missing = {"failed": found.n_error, "wait for a judge (judge RUN)": found.n_unjudged}
    missing["are not there"] = max(first.n_expected - len(each.answers), 0)
    named = ", ".join(f"{n} {what}" for what, n in missing.items() if n)
    reasons = sorted({answer.reason for answer in each.answers if answer.reason})
    because = f" ({', '.join(reasons)})" if reasons else ""
    count = f"{each.task.name}: partial, {found.n_scored} of {first.n_expected} scored"
    return [f"{count}{': ' if named else ''}{named}{because}", *lines]


def table(scored: Sequence[TaskResults], all_profiles: bool = False) -> Table:
    """Returns a table of the headlines in percent."""
    out = Table()
    out.add_column("task", min_width=max(len(each.label) for each in scored))
    for column in ("profile", "metric", "score %", "95 %", "n", "unread", "cut", "failed"):
        out.add_column(column, justify="left" if column in ("profile", "metric") else "right")
    out.add_column("prompt, preset")
    for each in scored:
        shown = [
            result
            for result in each.results
            if all_profiles or is_first(each.task, result.scored.profile)
        ]
        for place, result in enumerate(shown):
            made = f"{each.settings.prompt}, {each.settings.preset}"
            if each.settings.repeats > 1:
                made += f", avg@{each.settings.repeats}"
            out.add_row("" if place else each.label, *_cells(result), "" if place else made)
        if all_profiles and len(shown) > 1:
            out.add_row("", "spread", "", *spread(shown))
        out.add_section()
    return out


def is_first(task: Task, profile: str) -> bool:
    """Whether a profile is one of those that are shown first, with whatever judge."""
    return scoring.rule_of(profile) in list(task.rules)[:_SHOWN]


def _cells(result: Result) -> list[str]:
    scored, metric = result.scored, results.headline(result)
    count = f"{scored.n_scored}/{result.n_expected}"
    shown = ["partial", ""] if result.is_partial else [percent(metric.value), interval(metric)]
    counts = (scored.n_unparsed, scored.n_truncated, scored.n_error)
    return [scored.profile, scored.headline, *shown, count, *map(str, counts)]


def percent(value: float) -> str:
    """Returns a share in percent."""
    return f"{100 * value:.1f}" if math.isfinite(value) else "-"


def interval(metric: Metric) -> str:
    """Returns the ends of an interval in percent."""
    return f"{percent(metric.low)}..{percent(metric.high)}" if math.isfinite(metric.low) else "-"


def spread(shown: Sequence[Result]) -> tuple[str, str]:
    """Returns how far apart profiles are that share the metric of the first, and their ends."""
    name = shown[0].scored.headline
    values = [
        results.headline(r).value for r in shown if not r.is_partial and r.scored.headline == name
    ]
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return "-", "-"
    low, high = min(values), max(values)
    return percent(high - low), f"{percent(low)}..{percent(high)}"

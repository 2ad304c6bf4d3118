"""Compares two runs, question by question: the difference, its interval, and what flipped."""

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from evr1.evals import bootstrap, samples, scoring
from evr1.evals.bootstrap import Metric
from evr1.evals.judgements import Said
from evr1.evals.rescore import wide_console
from evr1.evals.samples import Answer
from evr1.evals.scoring import Scored
from evr1.evals.tasks.base import Sample, Task

_NAMED = 5  # ids in a message


class Comparison(NamedTuple):
    """The scores of two runs on the samples that both have scored.

    Attributes:
        task: the benchmark.
        profile: of the rule.
        metric: the name of the headline.
        a: its value in the first run.
        b: its value in the second run.
        difference: b - a, with the interval of the pairs.
        gained: ids that score more in the second run.
        lost: ids that score less in it.
        n_pairs: samples that both have scored.
        n_alone: samples that one of them has scored.
        n_expected: samples of the benchmark, as the manifests say, else all.
    """

    task: str
    profile: str
    metric: str
    a: float
    b: float
    difference: Metric
    gained: list[str]
    lost: list[str]
    n_pairs: int
    n_alone: int
    n_expected: int


def add_command(commands: Any) -> None:
    """Adds `compare` to the commands."""
    command = commands.add_parser("compare", help="compare two runs, question by question")
    add = command.add_argument
    add("a", metavar="A", help="folder of the first run")
    add("b", metavar="B", help="folder of the second run")
    add("--profile", default="", help="of the rules (default: the first); with a judge: evr1@NAME")
    add("--force", action="store_true", help="although presets, prompts or data differ")
    command.set_defaults(run=run)


def run(flags: argparse.Namespace) -> None:
    """Compares the tasks that two runs share, and prints a table.

    Raises:
        ValueError: they share no task, or their answers were made differently.
    """
    a, b = flags.a, flags.b
    runs = samples.read_run(Path(a)), samples.read_run(Path(b))
    shared = [name for name in runs[0].tasks if name in runs[1].tasks]
    if not shared:
        raise ValueError(f"{a} and {b} share no task; compare runs of the same benchmarks")
    listed, warnings = [], []
    for name in shared:
        task = scoring.task_of(name, runs[0].manifest)
        answers = runs[0].tasks[name].answers, runs[1].tasks[name].answers
        differing = differences(*answers)
        if differing and not flags.force:
            raise ValueError(
                f"{name}: {a} and {b} differ in {'; '.join(differing)}; --force compares them"
            )
        warnings += [f"{name}: they differ in {each}" for each in differing]
        n_expected = max(scoring.expected(task, run.manifest) for run in runs)
        profile = flags.profile or next(iter(task.rules))
        judged = runs[0].judged, runs[1].judged
        listed.append(compare(task, *answers, profile, n_expected, judged))
    console = wide_console()
    console.print(table(listed))
    for line in warnings:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def differences(a: Sequence[Answer], b: Sequence[Answer]) -> list[str]:
    """Returns in what two runs differ that makes their scores incomparable; [] for nothing."""
    found = []
    for name in ("preset", "prompt"):
        ours, theirs = (sorted({getattr(each, name) for each in run}) for run in (a, b))
        if ours != theirs:
            found.append(f"{name}: {', '.join(ours)} and {', '.join(theirs)}")
    others = {answer.sample.id: answer for answer in b}
    pairs = [(x, others[x.sample.id]) for x in a if x.sample.id in others]
    checks = {
        "the prompts": lambda x: x.prompt_sha256,
        "the data": scoring.doc_hash,
        "the media": lambda x: x.sample.media,
    }
    for what, key in checks.items():
        ids = [x.sample.id for x, y in pairs if key(x) != key(y)]
        if ids:
            dots = ", ..." if len(ids) > _NAMED else ""
            found.append(f"{what} of {len(ids)} samples ({', '.join(ids[:_NAMED])}{dots})")
    return found


def compare(
    task: Task,
    a: Sequence[Answer],
    b: Sequence[Answer],
    profile: str,
    n_expected: int,
    judged: Sequence[Mapping[str, Said]] = ({}, {}),
) -> Comparison:
    """Returns the comparison of two runs on a task.

    Args:
        task: the benchmark.
        a: answers of the first run.
        b: answers of the second run.
        profile: of the rule; with "@NAME" behind it where it asks a judge.
        n_expected: samples of the benchmark.
        judged: name of a judge -> its replies, for each run.

    Raises:
        ValueError: there is no such profile, or no sample that both have scored.
    """
    ours, theirs = (
        _score(task, answers, profile, replies)
        for answers, replies in zip((a, b), judged, strict=True)
    )
    return compare_scored(ours, theirs, n_expected)


def compare_scored(a: Scored, b: Scored, n_expected: int) -> Comparison:
    """Returns the comparison of two runs on a task by one profile.

    Args:
        a: the first run.
        b: the second run, by the same profile.
        n_expected: samples of the benchmark.

    Raises:
        ValueError: there is no sample that both have scored, or their scores do not add up.
    """
    ids = [{record.sample.id for record in each.rounds[0]} for each in (a, b)]
    both = ids[0] & ids[1]
    pairs = {r.sample.id: r.sample for r in a.rounds[0] if r.sample.id in both}
    if not pairs:
        raise ValueError(f"{a.task.name}: no sample was scored in both runs")
    ours, theirs = (_on(each, pairs) for each in (a, b))
    if failure := ours.failure or theirs.failure:
        raise ValueError(failure)
    name = ours.headline
    plan = bootstrap.plan(ours.rounds[0])
    drawn = theirs.draw(plan)[name] - ours.draw(plan)[name]
    a_scores, b_scores = ours.scores(), theirs.scores()
    return Comparison(
        task=a.task.name,
        profile=a.profile,
        metric=name,
        a=ours.values[name],
        b=theirs.values[name],
        difference=bootstrap.metric(
            theirs.values[name] - ours.values[name], drawn, len(plan.videos)
        ),
        gained=[id for id in sorted(pairs) if b_scores[id] > a_scores[id]],
        lost=[id for id in sorted(pairs) if b_scores[id] < a_scores[id]],
        n_pairs=len(pairs),
        n_alone=len(ids[0] ^ ids[1]),
        n_expected=n_expected,
    )


def _score(
    task: Task, answers: Sequence[Answer], profile: str, judged: Mapping[str, Said]
) -> Scored:
    rule, _, judge = profile.partition("@")
    if rule not in task.rules:
        raise ValueError(f"{task.name}: no profile {rule!r}; there is {', '.join(task.rules)}")
    if rule not in task.judges:
        return scoring.judge_all(task, answers, [rule])[rule]
    found = scoring.judge_all(
        task, answers, [rule], {k: v for k, v in judged.items() if k == judge}
    )
    if profile not in found:
        raise ValueError(f"{task.name}: {judge} has judged no answer of both runs for {rule}")
    return found[profile]


def _on(scored: Scored, pairs: Mapping[str, Sample]) -> Scored:
    """Returns the same for some samples; both runs are drawn by the samples of the first."""
    rounds = tuple(
        tuple(r._replace(sample=pairs[r.sample.id]) for r in each if r.sample.id in pairs)
        for each in scored.rounds
    )
    return dataclasses.replace(scored, rounds=rounds, n_scored=len(pairs))


def table(listed: Sequence[Comparison]) -> Table:
    """Returns a table of comparisons in percent."""
    out = Table()
    out.add_column("task", min_width=max(len(each.task) for each in listed))
    for column in ("profile", "metric", "A %", "B %", "B - A", "95 %", "gained", "lost", "pairs"):
        out.add_column(column, justify="left" if column in ("profile", "metric") else "right")
    for each in listed:
        low, high = each.difference.low, each.difference.high
        interval = f"{100 * low:+.1f}..{100 * high:+.1f}" if math.isfinite(low) else "-"
        is_partial = each.n_pairs != each.n_expected
        pairs = f"{each.n_pairs}/{each.n_expected}{' partial' if is_partial else ''}"
        out.add_row(
            each.task,
            each.profile,
            each.metric,
            f"{100 * each.a:.1f}",
            f"{100 * each.b:.1f}",
            f"{100 * each.difference.value:+.1f}",
            interval,
            str(len(each.gained)),
            str(len(each.lost)),
            pairs,
        )
    return out

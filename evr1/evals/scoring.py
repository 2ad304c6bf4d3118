"""Answers in, scores out: the verdicts of every profile of a task in one pass over its answers."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from evr1.evals import bootstrap, judgements, tasks
from evr1.evals.bootstrap import Metric
from evr1.evals.judgements import Said
from evr1.evals.samples import Answer
from evr1.evals.tasks import metrics
from evr1.evals.tasks.base import JUDGE, OURS, RANDOM, Aggregate, Record, Task, Verdict
from evr1.formats import think_block, user_code

_ROUNDING = 1e-6  # by which a mean of shares may exceed 1


class Settings(NamedTuple):
    """How the answers of a task were made; the same for all of them."""

    prompt: str
    preset: str
    repeats: int  # responses a sample


@dataclasses.dataclass(frozen=True)
class Scored:
    """What the rule of a profile makes of the answers to a task.

    Attributes:
        task: the benchmark.
        profile: of the rule; behind an "@", the judge that ruled where it asks one.
        rounds: the records of the first response to each sample, of the second one, and so on.
        n_scored: samples with a score; those that failed or wait for a judge have none.
        n_unparsed: responses in which nothing was read.
        n_truncated: samples with a response that was cut off; they are scored as they are.
        n_error: samples that failed: without a response, or where the rule stops.
        n_unjudged: samples that wait for a judge.
        problems: where the rule stops, a line each.
    """

    task: Task
    profile: str
    rounds: tuple[tuple[Record, ...], ...]
    n_scored: int
    n_unparsed: int
    n_truncated: int
    n_error: int
    n_unjudged: int
    problems: tuple[str, ...] = ()

    @property
    def aggregate(self) -> Aggregate:
        """The aggregate of the profile: by default the mean over all samples."""
        return self.task.aggregates.get(rule_of(self.profile), metrics.overall)

    @property
    def values(self) -> dict[str, float]:
        """Each metric, averaged over the rounds (avg@k); none where the aggregate fails."""
        return self._summed[0]

    @property
    def failure(self) -> str:
        """What the aggregate fails with, in a line; "": nothing."""
        return self._summed[1]

    @functools.cached_property
    def _summed(self) -> tuple[dict[str, float], str]:
        try:
            tables = [self.aggregate(each) for each in self.rounds if each]
        # It may be a user's own; a training and the scores of other tasks go on.
        except Exception as error:  # noqa: BLE001
            return {}, _failure(self, "cannot add up", error)
        names = dict.fromkeys(name for table in tables for name in table)
        return {name: metrics.mean(t[name] for t in tables if name in t) for name in names}, ""

    @property
    def problem(self) -> str:
        """Where the rule stops: the first line, and how many more there are; "": nowhere."""
        more = len(self.problems) - 1
        return f"{self.problems[0]}{f' (and {more} more)' if more else ''}" if self.problems else ""

    @property
    def headline(self) -> str:
        """The name of the first metric."""
        return next(iter(self.values), "accuracy")

    def draw(self, plan: bootstrap.Plan) -> dict[str, np.ndarray]:
        """Returns the draws of each metric, averaged over the rounds."""
        tables = [bootstrap.draw(each, self.aggregate, plan) for each in self.rounds]
        empty = np.full(len(plan.counts), math.nan)
        return {
            name: np.mean([table.get(name, empty) for table in tables], axis=0)
            for name in self.values
        }

    def scores(self) -> dict[str, float]:
        """Returns the mean score of each sample, by its id."""
        values: dict[str, list[float]] = {}
        for each in self.rounds:
            for record in each:
                values.setdefault(record.sample.id, []).append(metrics.score(record))
        return {id: metrics.mean(listed) for id, listed in values.items()}


@dataclasses.dataclass(frozen=True)
class Result:
    """The scores of a task by one profile.

    Attributes:
        scored: what they were computed from.
        metrics: name -> value, standard error and interval; the headline is first.
        n_expected: samples that a complete run scores.
        failure: why there are no metrics, or no intervals; "": they are there.
    """

    scored: Scored
    metrics: Mapping[str, Metric]
    n_expected: int
    failure: str = ""

    @property
    def is_partial(self) -> bool:
        """Whether samples are missing or too many, or do not add up: then there is no headline."""
        return self.scored.n_scored != self.n_expected or bool(self.scored.failure)


def settings_of(task: str, answers: Sequence[Answer]) -> Settings:
    """Returns how answers were made.

    Raises:
        ValueError: they were made in different ways.
    """
    made = {(a.prompt, a.preset) for a in answers}
    if len(made) != 1:
        named = " and ".join(f"prompt {prompt}, preset {preset}" for prompt, preset in sorted(made))
        raise ValueError(f"{task}: answers were made with {named}; keep one kind in a run")
    runs = {a.made: a.sample.id for a in answers if a.made}
    if len(runs) > 1:
        raise ValueError(
            f"{task}: answers are of {len(runs)} runs with other models, seeds or sampling (those "
            f"of {' and '.join(list(runs.values())[:2])}, say); keep the files of one run in a "
            "folder"
        )
    repeats = {len(a.responses) for a in answers if not a.reason} or {1}
    if len(repeats) != 1:
        raise ValueError(
            f"{task}: samples have {' and '.join(map(str, sorted(repeats)))} responses; keep one "
            "number in a run"
        )
    return Settings(*made.pop(), repeats.pop())


def rule_of(profile: str) -> str:
    """Returns the profile of the rule.

    >>> rule_of("official@gpt-4o"), rule_of("evr1")
    ('official', 'evr1')
    """
    return profile.partition("@")[0]


def seen(answer: Answer, profile: str) -> tuple[str, ...]:
    """Returns the responses as the rule of a profile sees them.

    Kits see what was generated. Ours knows where a prompt has opened a block of reasoning, as the
    rewards do: it sees the opening tag, too, and nothing of a block that is never closed.

    Args:
        answer: to a sample.
        profile: of the scoring.
    """
    if not answer.think_open or rule_of(profile) != OURS:
        return answer.responses
    return tuple(
        think_block.OPENING + response if think_block.closes(response) else ""
        for response in answer.responses
    )


def judge_all(
    task: Task,
    answers: Sequence[Answer],
    profiles: Sequence[str] = (),
    judged: Mapping[str, Said] | None = None,
) -> dict[str, Scored]:
    """Returns what each profile makes of the answers to a task, which may be in any order.

    A profile that asks a judge stands there once for each judge that has replied, as "evr1@NAME",
    and without one only where none has.

    Args:
        task: the benchmark.
        answers: to its samples, one an id.
        profiles: of its rules; none: all.
        judged: name of a judge -> its replies.

    Raises:
        ValueError: an id comes twice, answers were or answers were made in different ways.
    """
    repeats = settings_of(task.name, answers).repeats
    answers = sorted(answers, key=lambda answer: answer.sample.id)
    for one, other in zip(answers, answers[1:], strict=False):
        if one.sample.id == other.sample.id:
            raise ValueError(f"{task.name}: {one.sample.id} is answered twice; merge the answers")
    answered = [answer for answer in answers if not answer.reason]
    rows: dict[str, list[list[Verdict] | str]] = {name: [] for name in profiles or task.rules}
    for answer in answered:
        for profile, row in rows.items():
            row.append(_verdicts(task, profile, answer))
    versions: dict[str, list[list[Verdict] | str]] = {}
    for profile, row in rows.items():
        pairs = list(zip(answered, row, strict=True))
        ruled = {
            f"{profile}@{name}": _ruled(task, profile, pairs, name, said)
            for name, said in sorted((judged or {}).items())
        }
        versions |= {name: each for name, each in ruled.items() if each} or {profile: row}
    return {
        profile: _scored(task, profile, answers, list(zip(answered, row, strict=True)), repeats)
        for profile, row in versions.items()
    }


def _ruled(
    task: Task,
    profile: str,
    pairs: Sequence[tuple[Answer, list[Verdict] | str]],
    name: str,
    said: Said,
) -> list[list[Verdict] | str]:
    """Returns the verdicts with those of a judge; [] where it has settled none of them."""
    out: list[list[Verdict] | str] = []
    has_settled = False
    for answer, verdicts in pairs if profile in task.judges else ():
        if isinstance(verdicts, str) or not any(map(is_left, verdicts)):
            out.append(verdicts)
            continue
        try:
            settled = [
                judgements.settle(task.judges[profile], answer.sample.doc, r, name, said.replies)
                if is_left(v)
                else v
                for r, v in zip(seen(answer, profile), verdicts, strict=True)
            ]
        except Exception as error:  # noqa: BLE001  as in _verdicts
            out.append(f"{task.name}: {profile}@{name} cannot judge {answer.sample.id}: {error!r}")
            continue
        has_settled |= any(
            is_left(v) and isinstance(e, Verdict) for v, e in zip(verdicts, settled, strict=True)
        )
        out.append([e if isinstance(e, Verdict) else Verdict(JUDGE, None) for e in settled])
    return out if has_settled else []


def verdicts_of(
    task: Task, profile: str, answers: Sequence[Answer]
) -> Iterator[tuple[Answer, list[Verdict]]]:
    """Yields the answers with what a rule makes of their responses, where it does not stop."""
    for answer in answers:
        if not answer.reason:
            verdicts = _verdicts(task, profile, answer)
            if not isinstance(verdicts, str):
                yield answer, verdicts


def _verdicts(task: Task, profile: str, answer: Answer) -> list[Verdict] | str:
    """Returns what a rule makes of each response, or why it stops."""
    rule, doc = task.rules[profile], answer.sample.doc
    where = f"{task.name}: {profile} cannot score {answer.sample.id}"
    try:
        verdicts = [rule(doc, response) for response in seen(answer, profile)]
    except ValueError as error:
        return f"{where}: {error}"
    # Whatever a rule trips over is a counted outcome of this sample, not the end of a training.
    except Exception as error:  # noqa: BLE001
        return (
            f"{where}: {user_code.short(error)}; its row is no official one, or the rule is wrong"
        )
    for verdict in verdicts:
        if not isinstance(verdict, Verdict) or not isinstance(verdict.score, Real | None):
            return (
                f"{where}: the rule gives {user_code.short(verdict)}; return Verdict(text, score)"
            )
        is_code = not task.file  # kits give some replies -1, which their aggregates know
        if not (is_code or verdict.score is None or 0 <= verdict.score <= 1 + _ROUNDING):
            return f"{where}: the rule gives the score {verdict.score}; one is from 0 to 1"
    return verdicts


def _scored(
    task: Task,
    profile: str,
    answers: Sequence[Answer],
    row: Sequence[tuple[Answer, list[Verdict] | str]],
    repeats: int,
) -> Scored:
    read = [(answer, verdicts) for answer, verdicts in row if not isinstance(verdicts, str)]
    judged = [(answer, verdicts) for answer, verdicts in read if not any(map(_waits, verdicts))]
    return Scored(
        task=task,
        profile=profile,
        rounds=tuple(
            tuple(Record(answer.sample, verdicts[place]) for answer, verdicts in judged)
            for place in range(repeats)
        ),
        n_scored=len(judged),
        n_unparsed=sum(not _is_read(verdict) for _, verdicts in read for verdict in verdicts),
        n_truncated=sum(answer.status == "truncated" for answer in answers),
        n_error=len(answers) - len(read),
        n_unjudged=len(read) - len(judged),
        problems=tuple(verdicts for _, verdicts in row if isinstance(verdicts, str)),
    )


def is_left(verdict: Verdict) -> bool:
    """Whether a rule leaves a response to a judge, perhaps with a score without one."""
    return verdict.extracted == JUDGE


def _waits(verdict: Verdict) -> bool:
    """Whether a verdict needs a judge; a rule that falls back on a score without one has it."""
    return is_left(verdict) and verdict.score is None


def _is_read(verdict: Verdict) -> bool:
    """Whether a rule read something in a response; an option drawn at random is not read."""
    read_out = verdict.extracted
    is_empty = read_out is None or (isinstance(read_out, str | list | tuple) and not len(read_out))
    return not is_empty and read_out != RANDOM


def score(scored: Scored, n_expected: int, draws: int = bootstrap.DRAWS, seed: int = 0) -> Result:
    """Returns the scores of a profile, with standard errors and intervals over videos.

    Args:
        scored: see judge_all.
        n_expected: samples that a complete run scores.
        draws: of videos; 0: no intervals.
        seed: of the draws.
    """
    plain = {name: Metric(value) for name, value in scored.values.items()}
    if not draws or not plain:
        return Result(scored, plain, n_expected, scored.failure)
    plan = bootstrap.plan(scored.rounds[0], draws, seed)
    try:
        drawn = scored.draw(plan)
    except Exception as error:  # noqa: BLE001  as in Scored
        why = _failure(scored, "has no intervals, as some draws do not add up", error)
        return Result(scored, plain, n_expected, why)
    metrics = {n: bootstrap.metric(v, drawn[n], len(plan.videos)) for n, v in scored.values.items()}
    # All alike: draws cannot tell how far others may be from them.
    told = {n: metric if metric.stderr else Metric(metric.value) for n, metric in metrics.items()}
    return Result(scored, told, n_expected)


def _failure(scored: Scored, what: str, error: Exception) -> str:
    text = str(error) if isinstance(error, ValueError) else user_code.short(error)
    return f"{scored.task.name}: {scored.profile} {what}: {text}"


def task_of(name: str, manifest: Mapping[str, Any]) -> Task:
    """Returns a task of a run: the one of the file that its manifest names, else a built-in one.

    Raises:
        ValueError: there is no such task, or its file is gone or holds another.
    """
    listed = manifest.get("tasks")
    entry = listed.get(name) if isinstance(listed, dict) else None
    file = entry.get("file") if isinstance(entry, dict) else None
    if not file:
        return tasks.built_in(name)
    try:
        task = tasks.find(str(file))
        if task.name != name:
            raise ValueError(f"{file}: its task is named {task.name}; give the file of {name}")
    except ValueError as error:
        raise ValueError(f"manifest.json: tasks.{name}.file: {error}") from error
    return task


def expected(task: Task, manifest: Mapping[str, Any]) -> int:
    """Returns how many samples a complete run scores: as its manifest says, else all.

    Raises:
        ValueError: the manifest says no number.
    """
    listed = manifest.get("n_expected", {})
    n = listed.get(task.name, task.source.n) if isinstance(listed, dict) else listed
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise ValueError(
            f"manifest.json: n_expected of {task.name} is {n!r}; it is a number of samples"
        )
    return n


def fingerprint(answers: Sequence[Answer]) -> str:
    """Returns the sha256 of ids, rows and prompts, in the order of the ids."""
    digest = hashlib.sha256()
    for answer in sorted(answers, key=lambda each: each.sample.id):
        row = (answer.sample.id, doc_hash(answer), answer.prompt_sha256)
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def doc_hash(answer: Answer) -> str:
    """Returns the sha256 of a row, whatever the order of its fields."""
    text = json.dumps(answer.sample.doc, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()

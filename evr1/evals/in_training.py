"""Benchmarks at the evaluations of a training: a few questions of each, always the same ones.

Samples, media headers and shapes are read once, before the first step, so that what is wrong is
said then and later evaluations compile nothing. Every evaluation leaves a folder of a run, which
`python -m evr1.evals` takes like one of the job. Several hosts share the videos, as the parts of a
job do; their answers come together on the first one.
"""

import contextlib
import dataclasses
import functools
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from evr1.config.evals import BenchmarkSettings
from evr1.data.media.decode import DecodePool
from evr1.evals import manifest, presets, results, samples, scoring
from evr1.evals.answerer import Answerer
from evr1.evals.feed import Failure, Planned
from evr1.evals.packs import Key
from evr1.evals.plan import Prepared
from evr1.evals.prepare import load_samples
from evr1.evals.results import TaskResults
from evr1.evals.samples import Answer
from evr1.evals.subset import stratified
from evr1.evals.tasks import find
from evr1.evals.tasks.base import Task
from evr1.formats.part import Part
from evr1.parallel import hosts
from evr1.sampler.actor import Actor
from evr1.types import Count, Params, no_count

FOLDER = "benchmarks"  # in the workdir of a training
_FIELD = "config.eval.benchmarks"


def prepare(settings: BenchmarkSettings) -> list[Prepared]:
    """Returns the benchmarks with the questions that are asked; needs no model.

    Args:
        settings: as a training has them: `folders` names each task and where its files lie.

    Raises:
        ValueError: an unknown task or preset, or annotations that are not there; in one line.
    """
    if settings.preset:
        with _naming("config.eval.benchmark_preset"):
            presets.find(settings.preset)
    with _naming(_FIELD):
        listed = [_prepare(settings, name, Path(folder)) for name, folder in settings.folders]
        names = Counter(_metric_name(each.task.name) for each in listed)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"two tasks are named {twice[0]}; keep one of them")
    return listed


def _prepare(settings: BenchmarkSettings, name: str, folder: Path) -> Prepared:
    task = find(name)
    chosen = stratified(load_samples(task, folder), settings.limit)
    if not chosen:
        raise ValueError(f"{folder} holds no question of {task.name}; check the folder")
    preset = presets.find(settings.preset or task.source.frames)
    return Prepared(task, folder, tuple(chosen), next(iter(task.prompts)), preset, settings.limit)


@contextlib.contextmanager
def _naming(field: str):
    """Puts the field before what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Ready:
    """A benchmark whose shapes are known.

    Attributes:
        prepared: its questions.
        plans: of this host's share, and the shapes that they are answered in, the same for all.
        slots: packs that decode at the same time.
    """

    prepared: Prepared
    plans: tuple[Planned, ...]
    slots: int


@dataclasses.dataclass(frozen=True)
class Benchmarks:
    """The benchmarks of a training; there may be none.

    Attributes:
        settings: how they are answered.
        actor: of the training.
        tasks: see Ready.
    """

    settings: BenchmarkSettings
    actor: Actor
    tasks: tuple[Ready, ...]

    def evaluate(
        self,
        params: Params,
        step: int,
        tell: Callable[[str], None] = lambda line: None,
        count: Count = no_count,
    ) -> dict[str, float]:
        """Answers all questions; returns the metrics, and leaves `workdir/benchmarks/step_<n>`.

        All hosts call it together.

        Folders of this step and of later ones come from a training that was resumed before them
        and are removed first, as lines of metrics.jsonl are.

        Args:
            params: weights to answer with, as the actor draws with them.
            step: of the training.
            tell: takes a line for each task whose rule or aggregate fails.
            count: takes how many questions of a task this host has answered.
        """
        if not self.tasks:
            return {}
        folder = Path(self.settings.workdir or "", FOLDER, f"step_{step}")
        hosts.once(lambda: self._begin(folder, step))
        metrics: dict[str, float] = {}
        with _pool(self.settings) as pool:
            for ready in self.tasks:
                actor = dataclasses.replace(self.actor, slots=ready.slots)
                answerer = Answerer(self.settings, actor, params, pool)
                answers = _answer(answerer, ready, folder, count)
                scored = functools.partial(task_metrics, ready.prepared, answers, tell)
                metrics |= hosts.from_primary(scored)
        return metrics

    def _begin(self, folder: Path, step: int) -> None:
        """Removes what is answered again, and makes the folder of a run."""
        for old in folder.parent.glob("step_*"):
            number = old.name.removeprefix("step_")
            if number.isdecimal() and int(number) >= step:
                shutil.rmtree(old)
        # The weights are kept nowhere else: this folder is the name of the model.
        settings = dataclasses.replace(self.settings, model=str(folder))
        manifest.write(folder, settings, [ready.prepared for ready in self.tasks])


def open_benchmarks(
    settings: BenchmarkSettings, prepared: Sequence[Prepared], actor: Actor
) -> Benchmarks:
    """Reads the headers of all media and plans the shapes; compiles nothing.

    Args:
        settings: how they are answered.
        prepared: the benchmarks.
        actor: of the training; its shapes are those of the rollouts.

    Raises:
        ValueError: a medium or subtitles that a question needs cannot be read, or a prompt is too
            long; in one line.
    """
    if not prepared:
        return Benchmarks(settings, actor, ())
    ids = {each.task.name: [sample.id for sample in each.samples] for each in prepared}
    hosts.agree(ids, "set of questions")
    with _pool(settings) as pool:
        answerer = Answerer(settings, actor, {}, pool)
        tasks = tuple(_ready(answerer, each) for each in prepared)
    return Benchmarks(settings, actor, tasks)


def _ready(answerer: Answerer, prepared: Prepared) -> Ready:
    plans = answerer.plan(prepared, Part(hosts.index(), hosts.count()), frozenset())
    failures = [
        [[sample.id for sample in each.samples], each.detail, each.reason]
        for each in plans
        if isinstance(each, Failure)
    ]
    planned = [each for each in plans if isinstance(each, Planned)]
    told: list[Any] = hosts.gather_json([failures, [each.key for each in planned]])
    _check(prepared, [failure for failures, _ in told for failure in failures])
    # One set of shapes for all: with few questions, padding costs less than compiling for each.
    keys = [key for _, keys in told for key in keys]
    key = Key(*map(max, zip(*keys, strict=True)))
    plans = tuple(dataclasses.replace(each, key=key) for each in planned)
    return Ready(prepared, plans, _slots(answerer.actor, key.prompt_tokens))


def _check(prepared: Prepared, failures: Sequence[tuple[list[str], str, str]]) -> None:
    """Raises ValueError where questions cannot be asked, with the first of them."""
    if not failures:
        return
    order = {sample.id: i for i, sample in enumerate(prepared.samples)}
    ids, detail, reason = min(failures, key=lambda failure: order[failure[0][0]])
    n = sum(len(ids) for ids, _, _ in failures)
    raise ValueError(
        f"{_FIELD}: {prepared.task.name}: {n} of the {len(prepared.samples)} questions cannot "
        f"be asked, {ids[0]} since {detail} ({reason}); mend that, or "
        "lower config.eval.benchmark_limit until they are left out"
    )


def _slots(actor: Actor, prompt_tokens: int) -> int:
    """Returns how many packs take no more room for their prompts than rollouts do."""
    assert actor.shapes is not None
    return min(actor.slots, max(1, actor.slots * actor.shapes.prompt_tokens[-1] // prompt_tokens))


def _pool(settings: BenchmarkSettings) -> DecodePool:
    """Returns decoding processes, which last as long as an evaluation."""
    return DecodePool(settings.workers, settings.decode_timeout_s)


def _answer(answerer: Answerer, ready: Ready, folder: Path, count: Count) -> list[Answer]:
    """Returns the answers of all hosts, by id; the first host writes its own as they come, then
    those of the others."""
    answers: list[Answer] = []
    # Not a terminal: the training has its own display.
    console = Console(quiet=True, force_terminal=False)
    path = samples.path_of(folder, ready.prepared.task.name)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(samples.Writer(path)) if hosts.is_primary() else None

        def keep(answer: Answer) -> None:
            if writer is not None:
                writer.append(answer)
            answers.append(answer)
            name, total = ready.prepared.task.name, len(ready.prepared.samples)
            count(len(answers), total, f"questions of {name}")

        answerer.answer_planned(ready.prepared, ready.plans, keep, console)
        for host, lines in enumerate(hosts.gather_json(list(map(samples.encode, answers)))):
            for line in lines if host != hosts.index() else ():
                keep(samples.decode(line, f"host {host}"))
    return sorted(answers, key=lambda answer: answer.sample.id)


def task_metrics(
    prepared: Prepared, answers: Sequence[Answer], tell: Callable[[str], None] = lambda line: None
) -> dict[str, float]:
    """Returns the metrics of a benchmark.

    `eval/lvbench@64` is the headline of our rule, `eval/lvbench@64/official` that of the authors'.
    Where a question has no score, since it failed or waits for a judge, the name begins with
    `partial_`, as in a results file: over fewer questions it is another number.

    Args:
        prepared: the benchmark.
        answers: to all of its questions.
        tell: takes a line on each rule or aggregate that fails, of which nothing else comes.
    """
    task, n = prepared.task, prepared.n_expected
    scored = [
        scoring.score(each, n, draws=0)
        for each in scoring.judge_all(task, answers, _profiles(task)).values()
    ]
    settings = scoring.settings_of(task.name, answers)
    label = _metric_name(TaskResults(task, answers, settings, scored).label)
    first, metrics = scored[0], {}
    for result in scored:
        for line in (result.scored.problem, result.failure):
            if line:
                tell(f"benchmark {line}")
        mark = "partial_" if result.is_partial else ""
        end = "" if result is first else f"/{result.scored.profile}"
        value = results.headline(result).value
        if math.isfinite(value):
            metrics[f"eval/{mark}{label}{end}"] = value
    metrics[f"eval/{label}/failed_share"] = 1.0 if first.failure else first.scored.n_error / n
    metrics[f"eval/{label}/truncated_share"] = first.scored.n_truncated / n
    if first.scored.n_unjudged:
        metrics[f"eval/{label}/unjudged_share"] = first.scored.n_unjudged / n
    return metrics


def _profiles(task: Task) -> list[str]:
    """Returns the first rule, which is ours, and the authors'."""
    first = next(iter(task.rules))
    return [first, *(name for name in ("official",) if name in task.rules and name != first)]


def _metric_name(name: str) -> str:
    return name.lower()

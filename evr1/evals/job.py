"""Benchmarks as a job: every sample of some tasks is answered by a model, and nothing is lost.

plan -> decode (processes) -> encode -> prefill -> decode -> append: stages joined by a bounded
queue. A part of a job is a whole job over its share of the videos; parts never speak.
"""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from evr1.batch.features import make_encoder
from evr1.batch.shapes import shapes_alike
from evr1.config.evals import BenchmarkSettings
from evr1.data.media.decode import DecodePool
from evr1.data.media.source import MediaSource
from evr1.data.processor import Processor
from evr1.evals import manifest, presets, samples, show
from evr1.evals.feed import BundleFeed, Failure, Opener, Place, Planned, waiting_threads
from evr1.evals.packs import Asker, Key, bundles
from evr1.evals.prepare import load_samples, take_stock
from evr1.evals.progress import TaskProgress, task_progress
from evr1.evals.samples import Answer
from evr1.evals.subset import stratified
from evr1.evals.tasks import TASKS, find
from evr1.evals.tasks.base import Choices, Sample, Task
from evr1.models.io import hf
from evr1.parallel import sharding
from evr1.parallel.mesh import make_mesh
from evr1.sampler.actor import Actor, open_actor
from evr1.sampler.sampling import Sampling
from evr1.types import Params, Rollouts


@dataclasses.dataclass(frozen=True)
class Part:
    """The share of a job: of the videos, those whose hash is `index` modulo `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Returns the part that a text names.

        >>> Part.parse("1/3"), Part.parse("3/3"), Part.parse("0/3")
        (Part(index=1, count=3), Part(index=0, count=3), Part(index=0, count=3))

        Raises:
            ValueError: it is no "i/N" with i from 0 to N.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 0 <= int(index) <= int(count) > 0):
            raise ValueError(f"--part={text}: give i/N, the i-th of N parts, such as 1/3")
        return cls(int(index) % int(count), int(count))

    @property
    def number(self) -> int:
        """The number of the part, from 1."""
        return self.index or self.count

    def has(self, task: str, sample: Sample) -> bool:
        """Returns whether the sample is of this part: all questions on a video are of one."""
        return _hash(task, sample.cluster) % self.count == self.index


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A task that is ready to be answered.

    Attributes:
        task: the benchmark.
        folder: of its files.
        samples: to be answered, of all parts.
        prompt: profile.
        preset: frames that are shown.
        limit: questions that were asked for; 0: all.
    """

    task: Task
    folder: Path
    samples: tuple[Sample, ...]
    prompt: str
    preset: presets.Preset
    limit: int

    @property
    def n_expected(self) -> int:
        """Samples that a complete run scores."""
        return len(self.samples) if self.limit else self.task.source.n

    def manifest(self) -> dict[str, Any]:
        """Returns what the manifest of a run says of the task."""
        return {
            "data": str(self.folder.resolve()),
            "prompt": self.prompt,
            "preset": self.preset.name,
            "limit": self.limit,
            **({"file": self.task.file} if self.task.file else {}),
        }


def prepare(settings: BenchmarkSettings) -> list[Prepared]:
    """Returns the tasks of a config with their samples; needs no model.

    Raises:
        ValueError: an unknown task, prompt or preset, or a folder that holds no complete copy.
    """
    names = list(TASKS) if settings.tasks == ("all",) else list(dict.fromkeys(settings.tasks))
    tasks = [find(name) for name in names]
    twice = [name for name, n in Counter(task.name for task in tasks).items() if n > 1]
    if twice:
        raise ValueError(f"config.tasks: two tasks are named {twice[0]}; rename one of them")
    return [_prepare(settings, task) for task in tasks]


def _prepare(settings: BenchmarkSettings, task: Task) -> Prepared:
    prompt = settings.prompt or next(iter(task.prompts))
    if prompt not in task.prompts:
        raise ValueError(f"config.prompt is {prompt!r}; {task.name} has {', '.join(task.prompts)}")
    preset = presets.find(settings.preset or task.source.frames)
    folder = settings.folder(task.name)
    stock = take_stock(task, folder)
    if not (stock.is_complete or settings.allow_missing or settings.limit):
        raise ValueError(
            f"{folder} holds no complete {task.name}: see python -m evr1.evals prepare "
            f"{task.name} --data {folder}; get what is missing, or set allow_missing=True or limit"
        )
    listed = load_samples(task, folder)
    if settings.limit:
        listed = stratified(listed, settings.limit)
    return Prepared(task, folder, tuple(listed), prompt, preset, settings.limit)


def run(
    settings: BenchmarkSettings,
    part: Part,
    retry: bool,
    console: Console,
    devices: Sequence[Any] | None = None,
) -> None:
    """Answers all samples of the part that have no answer yet.

    Args:
        settings: of the job.
        part: share of it.
        retry: also answer samples that failed before.
        console: for the user.
        devices: these, and not the ones that are there.

    Raises:
        ValueError: bad input, or a folder that was written with other settings; in one line.
    """
    folder = Path(settings.workdir or "")
    prepared = prepare(settings)
    manifest.check(folder, settings, prepared)
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                samples.Writer(samples.path_of(folder, each.task.name, part.number, part.count))
            )
            for each in prepared
        ]
        todo = [
            (each, writer, _done(folder, each.task.name, retry))
            for each, writer in zip(prepared, writers, strict=True)
        ]
        left = [(each, _waiting(each, part, done)) for each, _, done in todo]
        for each, count in left:
            console.print(
                f"{each.task.name}: {count} of {len(each.samples)} questions to answer"
                f"{f', part {part.number} of {part.count}' if part.count > 1 else ''}; "
                f"prompt {each.prompt}, preset {each.preset.name}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        if not any(count for _, count in left):
            return
        answerer = stack.enter_context(opened(settings, devices))
        manifest.write(folder, settings, prepared)  # now, as a wrong model is to leave none
        for each, writer, done in todo:
            if _waiting(each, part, done):
                answerer.answer(each, part, done, writer.append, console)


def _waiting(prepared: Prepared, part: Part, done: frozenset[str]) -> int:
    return sum(
        part.has(prepared.task.name, sample) and sample.id not in done
        for sample in prepared.samples
    )


def _done(folder: Path, task: str, retry: bool) -> frozenset[str]:
    """Returns the ids that need no answer any more, whichever part has answered them."""
    answers = [
        answer
        for path in folder.glob(f"samples_{task}.*jsonl")
        for answer in samples.read(path).answers
    ]
    return frozenset(a.sample.id for a in answers if a.task == task and not (a.reason and retry))


@contextlib.contextmanager
def opened(
    settings: BenchmarkSettings, devices: Sequence[Any] | None = None
) -> Iterator["Answerer"]:
    """Opens the model and the decoding processes of a job; `devices` as in `run`."""
    model = settings.model or ""
    processor = Processor.from_hf(
        str(hf.side_dir(model)),
        thinking=settings.thinking,
        template_variables=settings.template_variables,
    )
    mesh = make_mesh(**dataclasses.asdict(settings.mesh), devices=devices)
    actor = open_actor(
        model,
        processor,
        dtype=settings.dtype,
        mesh=mesh if mesh.size > 1 else None,
        slots=settings.slots,
        window=settings.window_steps,
    )
    with contextlib.ExitStack() as stack:
        if actor.mesh is not None:
            stack.enter_context(jax.set_mesh(actor.mesh))
        pool = stack.enter_context(DecodePool(settings.workers, settings.decode_timeout_s))
        yield Answerer(settings, actor, actor.load(model), pool)


@dataclasses.dataclass(frozen=True)
class Answerer:
    """A model that answers the samples of tasks.

    Attributes:
        settings: of the job.
        actor: the model.
        params: its weights, as the actor draws with them.
        pool: processes that decode media.
    """

    settings: BenchmarkSettings
    actor: Actor
    params: Params
    pool: DecodePool

    def answer(
        self,
        prepared: Prepared,
        part: Part,
        done: frozenset[str],
        append: Callable[[Answer], None],
        console: Console,
    ) -> None:
        """Answers the samples of a task.

        Args:
            prepared: the task.
            part: share of its samples.
            done: ids that need no answer.
            append: takes each answer as soon as it is there.
            console: for the user.
        """
        said = f"{prepared.task.name}: reading the headers of its media"
        with console.status(said, spinner="line"):  # in ASCII, as some terminals are
            plans = self.plan(prepared, part, done)
        self.answer_planned(prepared, plans, append, console)

    def plan(self, prepared: Prepared, part: Part, done: frozenset[str]) -> list[Planned | Failure]:
        """Returns the shapes of what waits for an answer, or why it has none.

        Args:
            prepared: the task.
            part: share of its samples.
            done: ids that need no answer.
        """
        opener = self.opener(prepared)
        chosen = [s for s in prepared.samples if part.has(prepared.task.name, s)]
        with waiting_threads(self.pool, self.settings.workers) as threads:
            plans = threads.map(lambda bundle: opener.plan(bundle, done), bundles(chosen))
            return [each for listed in plans for each in listed]

    def answer_planned(
        self,
        prepared: Prepared,
        plans: Sequence[Planned | Failure],
        append: Callable[[Answer], None],
        console: Console,
    ) -> None:
        """Answers what `plan` has returned, maybe for a task that is answered again and again."""
        planned = [each for each in plans if isinstance(each, Planned)]
        failures = [each for each in plans if isinstance(each, Failure)]
        total = sum(len(p.waiting) for p in planned) + sum(len(f.samples) for f in failures)
        with (
            task_progress(console, prepared.task.name, total) as progress,
            waiting_threads(self.pool, self.settings.workers) as threads,
        ):
            run = _TaskRun(self, prepared, append, progress)
            for failure in failures:
                run.fail(failure)
            while planned:
                planned = run.answer_all(planned, threads)

    def opener(self, prepared: Prepared) -> Opener:
        """Returns what makes the media and questions of a task ready for the model."""
        s, processor = self.settings, self.actor.processor
        begin, _ = _reply_ids(prepared.task.choices.get(prepared.prompt), processor)
        source = MediaSource(
            budgets=prepared.preset.budgets(),
            geometry=processor.geometry,
            pool=self.pool,
            media_dir=str(prepared.folder),
            shards=s.shards,
        )
        prompt = prepared.task.prompts[prepared.prompt]
        asker = Asker(prepared.folder, prompt, processor, s.rows, begin)
        return Opener(asker, source, s.samples, s.max_prompt_tokens)


class _TaskRun:
    """The state of a task while it is answered."""

    def __init__(
        self,
        answerer: Answerer,
        prepared: Prepared,
        append: Callable[[Answer], None],
        progress: TaskProgress,
    ):
        s, actor = answerer.settings, answerer.actor
        choices = prepared.task.choices.get(prepared.prompt)
        _, self.replies = _reply_ids(choices, actor.processor)
        self.think_open = actor.processor.think_open and not self.replies
        self.sampling = _sampling(s, prepared.preset, actor, tuple(self.replies))
        self.answerer, self.prepared, self.append = answerer, prepared, append
        self.progress = progress
        self.opener = answerer.opener(prepared)

    def answer_all(self, planned: Sequence[Planned], threads: futures.Executor) -> list[Planned]:
        """Answers bundles, key by key; returns those that turned out to be larger than planned."""
        by_key: dict[Key, list[Planned]] = {}
        for each in sorted(planned, key=lambda each: each.key, reverse=True):
            by_key.setdefault(each.key, []).append(each)
        misfits = []
        for key, alike in by_key.items():
            misfits += self._answer_alike(key, alike, threads)
        return misfits

    def _answer_alike(
        self, key: Key, planned: Sequence[Planned], threads: futures.Executor
    ) -> list[Planned]:
        actor, s = self.answerer.actor, self.answerer.settings
        shapes = shapes_alike(key.prompt_tokens, key.row_patches, self.sampling.max_tokens)
        shards = sharding.batch_shards(actor.mesh)
        sampler = actor.sampler(key.rows, shapes, prefill_groups=shards)
        encoder = make_encoder(
            actor.model, sampler.prompts, groups=shards, held=1, patches=0, mesh=actor.mesh
        )
        feed = BundleFeed(
            planned,
            self.opener,
            lambda examples: encoder(self.answerer.params, examples),
            lambda sample: _hash(self.prepared.task.name, sample.id) % 2**31,
            self.fail,
            threads=threads,
            ahead=s.ahead,
        )
        sampler.run(
            self.answerer.params,
            feed,
            self.sampling,
            self._finish,
            prompt_tokens=key.prompt_tokens,
            question_tokens=key.question_tokens,
        )
        return feed.misfits

    def _finish(self, place: Place, rollouts: Rollouts) -> None:
        """Writes the answers of a group."""
        draws, seconds = self.answerer.settings.samples, time.perf_counter() - place.begun
        for at in range(0, len(place.samples), draws):
            sample = place.samples[at]
            if sample is None:
                continue
            rows = range(at, at + draws)
            lengths = [int(rollouts.lengths[row]) for row in rows]
            self.progress.tokens += sum(lengths)
            self._write(
                sample,
                responses=tuple(
                    self._text(rollouts.completions[row, :n].tolist())
                    for row, n in zip(rows, lengths, strict=True)
                ),
                finishes=tuple(self._finish_of(rollouts, row) for row in rows),
                tokens=tuple(lengths),
                frames=place.frames,
                seconds=round(seconds, 3),
            )

    def _text(self, ids: Sequence[int]) -> str:
        return self.replies[ids[0]] if self.replies else self.answerer.actor.processor.decode(ids)

    def _finish_of(self, rollouts: Rollouts, row: int) -> str:
        return "stop" if self.replies or rollouts.finished[row] else "length"

    def fail(self, failure: Failure) -> None:
        """Writes samples that get no answer."""
        self.progress.failed += len(failure.samples)
        for sample in failure.samples:
            self._write(sample, reason=failure.reason, detail=failure.detail)

    def _write(self, sample: Sample, **fields: Any) -> None:
        prepared = self.prepared
        text = ""
        if fields.get("reason") != "prompt":  # it would only fail again
            text = show.render(prepared.task.prompts[prepared.prompt](sample), sample)
        self.append(
            Answer(
                task=prepared.task.name,
                sample=sample,
                prompt=prepared.prompt,
                prompt_sha256=hashlib.sha256(text.encode()).hexdigest(),
                preset=prepared.preset.name,
                seed=self.answerer.settings.seed,
                think_open=self.think_open,
                **fields,
            )
        )
        self.progress.advance()


def _sampling(
    s: BenchmarkSettings, preset: presets.Preset, actor: Actor, allowed: tuple[int, ...]
) -> Sampling:
    """Returns how responses are drawn; where one of a few is chosen, it is the likeliest."""
    if allowed:
        return actor.sampling(temperature=0.0, max_tokens=1, allowed_ids=allowed)
    return actor.sampling(
        temperature=s.temperature,
        top_p=s.top_p,
        top_k=s.top_k,
        max_tokens=s.max_tokens or preset.sampling.max_tokens,
        seed=s.seed,
    )


def _reply_ids(
    choices: Choices | None, processor: Processor
) -> tuple[tuple[int, ...], dict[int, str]]:
    """Returns the ids that a reply begins with, and what the next id stands for.

    Raises:
        ValueError: the tokenizer cuts the beginning otherwise before some continuation, or gives
            two the same token.
    """
    if choices is None:
        return (), {}
    ids = [processor.tokenize(choices.begin + text) for text in choices.continuations]
    replies = {
        each[-1]: text.strip() for each, text in zip(ids, choices.continuations, strict=True)
    }
    heads = {tuple(each[:-1]) for each in ids}
    if len(heads) > 1 or len(replies) < len(ids):
        raise ValueError(
            f"the tokenizer does not give each of {', '.join(choices.continuations)} one token "
            f"behind {choices.begin!r}; use a prompt profile whose replies are generated"
        )
    return heads.pop(), replies


def _hash(task: str, name: str) -> int:
    digest = hashlib.sha256(json.dumps([task, name]).encode()).digest()
    return int.from_bytes(digest[:8], "big")

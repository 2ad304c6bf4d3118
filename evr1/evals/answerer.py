"""A model that answers the samples of tasks: plan, decode, encode, prefill, decode, append."""

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
from rich.console import Console

from evr1.batch.features import make_encoder
from evr1.batch.shapes import shapes_alike
from evr1.config.evals import BenchmarkSettings
from evr1.data.media.decode import DecodePool
from evr1.data.media.place import place_of
from evr1.data.media.source import MediaSource
from evr1.data.processor import Processor
from evr1.evals import manifest, presets, room, show
from evr1.evals.feed import BundleFeed, Failure, Opener, Place, Planned, waiting_threads
from evr1.evals.packs import Asker, Key, bundles
from evr1.evals.plan import Prepared, hash_of, is_of
from evr1.evals.progress import TaskProgress, task_progress
from evr1.evals.samples import Answer
from evr1.evals.tasks.base import Choices, Sample
from evr1.formats import think_block
from evr1.formats.part import Part
from evr1.models.io import hf
from evr1.parallel import sharding
from evr1.parallel.mesh import make_mesh
from evr1.sampler.actor import Actor, open_actor
from evr1.sampler.sampling import Sampling
from evr1.types import Params, Rollouts


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
        yield Answerer(settings, actor, actor.load(model), pool, manifest.made(settings))


@dataclasses.dataclass(frozen=True)
class Answerer:
    """A model that answers the samples of tasks.

    Attributes:
        settings: of the job.
        actor: the model.
        params: its weights, as the actor draws with them.
        pool: processes that decode media.
        made: see Answer.
    """

    settings: BenchmarkSettings
    actor: Actor
    params: Params
    pool: DecodePool
    made: str = ""

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
        chosen = [s for s in prepared.samples if is_of(part, prepared.task.name, s)]
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
            shards=place_of(s.shards),
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
        self.told: set[int] = set()  # numbers of packs that the user knows of
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
        sampler = actor.sampler(key.rows, shapes, self._slots(key), prefill_groups=shards)
        encoder = make_encoder(
            actor.model, sampler.prompts, groups=shards, held=1, patches=0, mesh=actor.mesh
        )
        feed = BundleFeed(
            planned,
            self.opener,
            lambda examples: encoder(self.answerer.params, examples),
            lambda sample: hash_of(self.prepared.task.name, sample.id) % 2**31,
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

    def _slots(self, key: Key) -> int:
        """Returns how many packs decode at the same time, and says where they are fewer."""
        actor, limit = self.answerer.actor, self.sampling.max_tokens
        found = room.of_key(actor, self.answerer.params, key, limit)
        if found is not None:
            room.check(found, key)
        count = room.slots(actor.slots, found, actor.mesh)
        if count < actor.slots and count not in self.told:
            self.told.add(count)
            self.progress.tell(
                f"{self.prepared.task.name}: {count} packs of {key.prompt_tokens} tokens decode at "
                f"a time, not {actor.slots}: the devices have no room for more"
            )
        return count

    def _finish(self, place: Place, rollouts: Rollouts) -> None:
        """Writes the answers of a group."""
        draws, seconds = self.answerer.settings.samples, time.perf_counter() - place.begun
        for at in range(0, len(place.samples), draws):
            sample = place.samples[at]
            if sample is None:
                continue
            rows = range(at, at + draws)
            broken = [row for row in rows if not rollouts.is_finite[row]]
            if broken:
                steps = rollouts.drawn[broken].min()
                detail = f"the model's logits are not finite after {steps} tokens"
                self.fail(Failure((sample,), "not_finite", detail))
                continue
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
        text = show.asked(prepared.task, prepared.prompt, sample)
        self.append(
            Answer(
                task=prepared.task.name,
                sample=sample,
                prompt=prepared.prompt,
                prompt_sha256=hashlib.sha256(text.encode()).hexdigest(),
                preset=prepared.preset.name,
                seed=self.answerer.settings.seed,
                think_open=self.think_open,
                made=self.answerer.made,
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

    A block of reasoning that the prompt has opened is left empty: a letter inside of it would be
    a thought, and no answer.

    Raises:
        ValueError: the tokenizer cuts the beginning otherwise before some continuation, or gives
            two the same token.
    """
    if choices is None:
        return (), {}
    begin = choices.begin
    if processor.think_open:
        begin = f"\n{think_block.CLOSING}\n\n{begin}"
    ids = [processor.tokenize(begin + text) for text in choices.continuations]
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

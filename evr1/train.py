"""The training loop, read top to bottom: publish, collect, prepare, update, evaluate, save."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from evr1 import preflight, report, rewards
from evr1.batch.shapes import ShapeTable, plan_shapes, with_parts
from evr1.config import Settings, changes, command
from evr1.config.base import get_config
from evr1.config.evals import in_training as benchmark_settings
from evr1.config.learner import drawn_groups, held_prompts, learner_settings
from evr1.data.dataset import (
    Batches,
    Dataset,
    budgets,
    chooses_frames,
    describe_shards,
    fill_shards,
    open_dataset,
    open_source,
    read_rows,
    row_sizes,
)
from evr1.data.demo.files import prepare_demo
from evr1.data.media import video_budget
from evr1.data.processor import Processor
from evr1.data.rows_identity import by_field
from evr1.data.share import Share
from evr1.evals import in_training
from evr1.exchange.records import batch_records
from evr1.formats import problem_types, words
from evr1.judge import with_judge
from evr1.learner.checkpoint import Checkpoints
from evr1.learner.export import export
from evr1.learner.learner import Learner, Prepared, make_learner
from evr1.learner.not_finite import SkippedUpdates
from evr1.learner.slots import Slots, plan_slots
from evr1.learner.state import LearnerState, restored, saved_arrays
from evr1.learner.unsaved import SAVING, UPDATING, Unsaved
from evr1.models import Model, load_model, lora
from evr1.models.io import hf, peft
from evr1.parallel import hosts, leaving
from evr1.parallel.mesh import make_mesh
from evr1.preflight.rehearsal import Parts, compile_programs
from evr1.rewards import extra
from evr1.rl.state import AlgorithmState
from evr1.rollout import sides
from evr1.rollout.collect import Collector, without_rows
from evr1.rollout.heldout import HeldOut
from evr1.rollout.mixing import Mixer
from evr1.rollout.sample import GroupSampler
from evr1.rollout.scoring import find_terms, open_pool
from evr1.rollout.temporal import TemporalBonus
from evr1.sampler import room
from evr1.sampler.actor import Actor
from evr1.telemetry import compile_cache, perf
from evr1.telemetry.phases import PhaseTimer
from evr1.telemetry.profile import traced
from evr1.telemetry.provenance import common
from evr1.telemetry.records import RolloutRecord
from evr1.telemetry.workdir import sole_run
from evr1.telemetry.writer import Writer


def train(settings: Settings) -> None:
    """Runs or resumes a training, up to export and report.

    Raises:
        ValueError: bad input, in one line.
        FloatingPointError: more gradients than may be were not finite.
    """
    with contextlib.ExitStack() as stack, hosts.as_one(command.explain):
        run = open_run(settings, stack)
        learner, collector, timer = run.learner, run.collector, run.timer
        state = _restore(run)
        unsaved = Unsaved(run.workdir, timer, state.step)
        leaving.plan(unsaved)
        writer = stack.enter_context(_writer(run, state.step))
        evaluate = functools.partial(_evaluate, run, writer)
        _begin(run, state, writer, evaluate)
        position = _position(run, state)
        steps, folder = range(state.step, settings.num_steps), run.workdir / "profile"
        for _ in traced(steps, settings.log.profile_steps, folder, writer.line, timer):
            try:
                with timer("publish"):
                    published = learner.publish(state)
                with timer("collect"):
                    rollouts, metrics = collector.collect(published)
                for line in run.dataset.train.pop_lines():
                    writer.line(line)
                del published  # a second copy of the weights
                with timer("logprob"):
                    prepared, prepare_metrics = learner.prepare(state, rollouts)
                with timer(UPDATING):
                    state, update_metrics = learner.update(state, prepared)
            except hosts.Leave:
                _leave(run, state, position, writer)
                raise
            unsaved.step = state.step
            with timer("record"):
                is_saved = _is_due(settings.checkpoint.every_steps, state.step, settings.num_steps)
                rollouts = rollouts.without_features()  # no longer needed, and large
                prepared = prepared._replace(rollouts=rollouts)
                metrics |= prepare_metrics | update_metrics
                latest = run.checkpoints.latest_step
                metrics, lines = run.skipped.check(metrics, prepared, state.step, latest)
                for line in lines:
                    writer.line(line)
                is_evaluated = _is_due(settings.eval.every_steps, state.step, settings.num_steps)
                position = _position(run, state)
                advantages = prepared.batch.advantages[..., 0]
                records = batch_records(rollouts, advantages, run.processor, state.step)
                writer.rollouts(itertools.islice(records, settings.log.rollouts_per_step or None))
            with timer("record"):
                metrics |= _readings(run, prepared, metrics, timer)
                writer.metrics(state.step, metrics)
            is_best = is_evaluated and evaluate(state)
            if is_saved or is_best:
                with timer("checkpoint"):
                    _save(run, state, position, writer)
        with hosts.staying():
            _finish(run, state, writer)


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a run."""

    settings: Settings
    processor: Processor
    dataset: Dataset
    collector: Collector
    learner: Learner
    heldout: HeldOut
    benchmarks: in_training.Benchmarks
    chain: preflight.Chain
    skipped: SkippedUpdates
    checkpoints: Checkpoints
    compiles: perf.CompileCounter
    timer: PhaseTimer
    page: report.Refreshed
    lines: tuple[str, ...]  # to print at the start

    @property
    def workdir(self) -> Path:
        return Path(self.settings.workdir)

    @property
    def actor(self) -> Actor:
        return self.chain.sampler.actor


def open_run(settings: Settings, stack: contextlib.ExitStack) -> Run:
    """Opens everything that a run is made of; nothing is compiled yet.

    Raises:
        ValueError: bad rows, media, models or budgets.
    """
    s, r = settings, settings.rollout
    hosts.agree(common(s.to_dict()), "config or version")
    terms = find_terms(s.rewards, r.max_completion_tokens)
    asked = in_training.prepare(benchmark_settings(s))
    stack.enter_context(sole_run(s.workdir))
    hosts.check_shared(s.workdir)
    compiles = stack.enter_context(perf.CompileCounter())
    cache_line = compile_cache.enable(s.compile_cache)
    mesh = make_mesh(**dataclasses.asdict(s.mesh))
    mesh = mesh if mesh.size > 1 else None
    model = load_model(s.model, dtype=s.train.dtype, remat=s.train.remat)
    model = dataclasses.replace(model, cache_dtype=r.cache_dtype)
    processor, dataset, shapes = _open_data(s, model, stack)
    timer = PhaseTimer()
    learner = make_learner(learner_settings(s), model, mesh, shapes)
    learner = dataclasses.replace(learner, count=timer.count)
    if mesh is not None and hosts.count() == 1:  # else small arrays would be programs of all
        stack.enter_context(jax.set_mesh(mesh))
    pool = open_pool(s.rewards, stack, processor.think_open)
    judged = with_judge(s.rewards, pool, s.train.dtype, mesh)
    slots = _plan_slots(s, learner, shapes)
    actor = Actor(
        lora.plain(learner.model),
        processor,
        slots=slots.rollout // hosts.count(),
        window=r.window_steps,
        mesh=learner.local_mesh,
        shapes=shapes,
    )
    if learner.programs.has_frozen_tower:
        actor = actor.with_encoder(held_prompts(s))
    checkpoints = Checkpoints(Path(s.workdir) / "checkpoints", keep=s.checkpoint.keep)
    stack.callback(checkpoints.close)
    greedy = actor.sampling(temperature=0.0, max_tokens=s.eval.max_completion_tokens, seed=s.seed)
    sampler = GroupSampler(
        actor,
        r.n,
        sides.sampling_of(r, actor, s.seed, int(s.algorithm.advantage == "remax")),
        sides.open_scorer(s.rewards, s.algorithm.temporal_bonus, judged, terms, actor),
        timer,
    )
    return Run(
        settings=s,
        processor=processor,
        dataset=dataset,
        collector=_collector(s, dataset, sampler, slots.rollout),
        learner=learner,
        heldout=sides.open_heldout(greedy, dataset, actor, judged, slots.heldout, timer.count),
        benchmarks=in_training.open_benchmarks(benchmark_settings(s), asked, actor),
        chain=preflight.Chain(
            dataset,
            sampler,
            learner,
            judged.score_batch,
            tuple(extra.load(s.rewards.extra).scorers),
        ),
        skipped=SkippedUpdates(s.train.max_skipped_updates, Path(s.workdir)),
        checkpoints=checkpoints,
        compiles=compiles,
        timer=timer,
        page=report.Refreshed(Path(s.workdir), dataset.shown),
        lines=tuple(
            line
            for line in (
                cache_line,
                slots.line,
                actor.encoder.describe() if actor.encoder else "",
                model.undivided(mesh) if mesh else "",
            )
            if line
        ),
    )


def _open_data(
    settings: Settings, model: Model, stack: contextlib.ExitStack
) -> tuple[Processor, Dataset, ShapeTable]:
    """Reads and plans the rows; where the config says so, makes and preprocesses them first."""
    s, d, r = settings, settings.data, settings.rollout
    if d.generate:
        hosts.say(f"the demo's clips and rows: {s.workdir}/data")
        hosts.once(lambda: prepare_demo(s.workdir, s.seed))
    side = str(hf.side_dir(s.model))
    processor = Processor.from_hf(
        side, d.template, d.thinking, s.rewards.box_scale, d.template_variables, d.sanitize
    )
    scorers = extra.all_scorers(s.rewards.extra)
    types = problem_types.Types(scorers, s.rewards.unknown_type)
    check = functools.partial(rewards.check_row, scorers=scorers, box_scale=s.rewards.box_scale)
    share = Share(hosts.index(), hosts.count(), hosts.gather_json)
    geometry = processor.geometry
    limits = budgets(d, side)
    sizes = row_sizes(d, limits, geometry, s.rewards.box_scale, share)
    rows = read_rows(d, types.canonical, s.eval.prompts, check, hosts.say, sizes)
    for line in filter(None, (*types.lines(), processor.spelled(rows.all))):
        hosts.say(line)
    hosts.agree(by_field(rows.all, bool(d.curriculum)), "set of rows")
    if chooses_frames(d, rows.all):
        hosts.say(video_budget.describe(limits, Path(side), geometry))
    if d.preprocess:
        hosts.once(lambda: fill_shards(d, rows.all, limits, geometry, print))
    source = open_source(d, limits, geometry, Path(s.workdir) / "quarantine.jsonl", stack)
    groups = s.dynamic.draw_prompts or r.prompts
    ahead = d.prefetch_batches * math.ceil(r.prompts / groups)
    batches = Batches(groups=groups, prefetch=ahead, seed=s.seed, share=share)
    dataset = open_dataset(d, rows, processor, source, batches, stack)
    hosts.agree({"rows": sorted(dataset.train.skipped)}, "data.skip")
    for line in describe_shards(d, dataset, share):
        hosts.say(line)
    lengths, grids = dataset.sizes(d.max_prompt_tokens, hosts.say)
    shapes = plan_shapes(
        s.shapes,
        lengths,
        grids,
        merge_size=processor.geometry.merge_size,
        max_prompt_tokens=d.max_prompt_tokens,
        completion_tokens=max(r.max_completion_tokens, s.eval.max_completion_tokens),
    )
    shapes = with_parts(
        shapes,
        lengths,
        grids,
        group=(r.n, r.max_completion_tokens),
        minibatch_groups=math.ceil(r.prompts / s.algorithm.updates_per_rollout),
    )
    return processor, dataset.fitting(shapes.misfit, hosts.say), shapes


def _plan_slots(settings: Settings, learner: Learner, shapes: ShapeTable) -> Slots:
    """Returns the slots of all hosts; a judge's weights are on the devices already."""
    return plan_slots(
        learner.settings,
        learner.programs,
        shapes,
        groups=drawn_groups(settings),
        held=held_prompts(settings),
        free=min(hosts.gather_json(room.device_free())),
    )


def _collector(
    settings: Settings, dataset: Dataset, sampler: GroupSampler, slots: int
) -> Collector:
    s, a = settings, settings.algorithm
    temporal = mixer = None
    if a.temporal_bonus:
        temporal = TemporalBonus(
            dataclasses.replace(sampler, n=a.temporal_rollouts),
            sampler.actor.processor.geometry,
            bonus=a.temporal_bonus,
            margin=a.temporal_margin,
        )
    if s.mix.enabled or s.replay.enabled:
        mixer = Mixer(s.mix, s.replay, sampler, dataset.rows.train)
    return Collector(
        dataset,
        sampler,
        dataclasses.replace(s.rollout, slots=slots),
        s.dynamic,
        temporal=temporal,
        mixer=mixer,
    )


def _restore(run: Run) -> LearnerState:
    """Returns the state to go on from."""
    learner, settings = run.learner, run.settings
    state = learner.init()
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        saved_arrays(learner.settings, state),
    )
    saved = run.checkpoints.restore(abstract)
    if saved is None:
        return state
    if saved.step > settings.num_steps:
        raise ValueError(
            f"num_steps={settings.num_steps}, but {run.checkpoints.directory} is at step "
            f"{saved.step}; raise num_steps or choose another config.workdir"
        )
    run.dataset.train.set_state(saved.extra["data"])
    draw = without_rows(saved.extra["draw"], run.dataset.train.is_skipped)
    run.collector.set_state(draw)
    run.skipped.count = saved.extra["skipped_updates"]
    memory = AlgorithmState.from_json(saved.extra["algorithm"])
    if settings.algorithm.kl_controller == "fixed":  # then the config may have a new one
        memory = memory._replace(kl_coef=state.memory.kl_coef)
    return restored(state, saved.step, saved.state)._replace(memory=memory)


def _position(run: Run, state: LearnerState) -> dict[str, Any]:
    """Returns all but the arrays of what a run goes on from, as plain data."""
    return {
        "data": run.dataset.train.get_state(),
        "draw": run.collector.get_state(),
        "algorithm": state.memory.to_json(),
        "skipped_updates": run.skipped.count,
    }


def _save(run: Run, state: LearnerState, position: dict[str, Any], writer: Writer) -> None:
    writer.sync()
    run.checkpoints.save(state.step, saved_arrays(run.learner.settings, state), position)


def _leave(run: Run, state: LearnerState, position: dict[str, Any], writer: Writer) -> None:
    """Saves the last whole step unless it is on disk, as it was said; several hosts end here."""
    waiting = Unsaved(run.workdir, run.timer, state.step)().unsaved
    with run.timer(SAVING):
        if state.step > (run.checkpoints.latest_step() or 0):
            _save(run, state, position, writer)
        run.checkpoints.wait()
    if waiting:
        hosts.say(f"{waiting} is saved")
    hosts.leave_together()


def _begin(
    run: Run, state: LearnerState, writer: Writer, evaluate: Callable[[LearnerState], bool]
) -> None:
    """Says what is run; a new run is checked, and evaluated at step 0."""
    for line in run.lines:
        writer.line(line)
    if state.step:
        left = words.counted(run.settings.num_steps - state.step, "step")
        writer.line(f"resumed from the checkpoint of step {state.step}; {left} to go")
    else:
        head = f"config: all of it is in {run.workdir}/config.json; set otherwise than in base.py:"
        writer.line("\n  ".join([head, *changes(run.settings, get_config())]))
    is_checked, samplers = run.settings.canaries and not state.step, run.collector.samplers
    parts = Parts(run.learner, samplers, run.heldout, run.dataset, is_checked)
    with run.timer("compile"):
        compile_programs(parts, state, writer, run.workdir)
    run.compiles.on_change = writer.compiling
    if is_checked:
        with run.timer("checks"):
            # Not bound to a name: the evaluation publishes weights of its own.
            preflight.check(run.chain, run.learner.publish(state), state.policy.params, writer.line)
    writer.start(run.timer.pop())
    if not state.step:
        evaluate(state)


def _evaluate(run: Run, writer: Writer, state: LearnerState) -> bool:
    """Answers the held-out rows and the benchmarks; metrics and records go to the writer.

    Returns whether a checkpoint is to be kept, since no step was better on the held-out rows.
    """
    metrics: dict[str, float] = {}
    records: list[RolloutRecord] = []
    if not (run.dataset.rows.heldout or run.benchmarks.tasks):
        return False
    # A step has its evaluation, or is not saved; before the first one there is nothing to save.
    with run.timer("eval"), hosts.staying() if state.step else contextlib.nullcontext():
        published = run.learner.publish(state)
        if run.dataset.rows.heldout:
            metrics, records = run.heldout.evaluate(published, state.step)
        metrics |= run.benchmarks.evaluate(
            published.params, state.step, writer.line, run.timer.count
        )
    with run.timer("record"):
        metrics |= run.timer.pop()
        writer.metrics(state.step, metrics)
        writer.rollouts(records)
    if run.settings.log.report and hosts.is_primary():
        with run.timer("report"):
            run.page.refresh(writer.line)
    if not (run.settings.checkpoint.keep_best and run.dataset.rows.heldout):
        return False
    return run.checkpoints.is_best(state.step, metrics["eval/accuracy"])


def _readings(
    run: Run, prepared: Prepared, metrics: dict[str, float], timer: PhaseTimer
) -> dict[str, float]:
    """Returns the metrics of the process and of the step's speed."""
    learner, version = run.learner, prepared.version
    readings: dict[str, Any] = run.dataset.train.metrics() | perf.readings(run.compiles)
    readings["optim/learning_rate"] = np.asarray(learner.programs.schedule(version)).item()
    readings |= perf.over_hosts(timer.pop())
    times, devices = metrics | readings, jax.device_count()
    epochs = learner.settings.algorithm.epochs_per_rollout
    parts = [part for minibatch in prepared.parts for part in minibatch] * epochs
    has_tower = run.actor.encoder is None
    readings |= perf.speed(prepared.batch, times)
    return readings | perf.update_mfu(learner.model, parts, times, devices, has_tower=has_tower)


def _finish(run: Run, state: LearnerState, writer: Writer) -> None:
    """Writes what a run leaves: export, adapters, report, and a table of held-out accuracy."""
    settings, workdir, params = run.settings, run.workdir, state.policy.params
    with run.timer("checkpoint"):
        run.checkpoints.wait()
    if settings.checkpoint.export:
        out = workdir / "export"
        side, geometry = hf.side_dir(settings.model), run.processor.geometry
        limits = budgets(settings.data, side)
        files = video_budget.exported(side, limits, geometry)
        with run.timer("export"):
            dtype = settings.checkpoint.export_dtype
            export(run.learner, params, out, dtype, files, run.timer.count)
        writer.line(f"exported, reloaded and compared: {out}")
    if settings.lora.is_on and settings.lora.export_adapter:
        out = workdir / "adapter"
        hosts.once(lambda: peft.save_adapter(params, run.learner.model, out, source=settings.model))
        writer.line(f"adapters for peft: {out}")
    writer.sync()
    if not hosts.is_primary():
        return
    if settings.log.report:
        with run.timer("report"):
            writer.line(f"report: {report.build(workdir, run.dataset.shown)}")
    writer.line(report.accuracy_table(report.read_metrics(workdir / "metrics.jsonl")))


def _writer(run: Run, first: int) -> Writer:
    return Writer(
        run.settings.workdir,
        config=run.settings.to_dict(),
        num_steps=run.settings.num_steps,
        start_step=first + 1 if first else 0,
        tensorboard=run.settings.log.tensorboard,
        wandb=run.settings.log.wandb,
        trackio=run.settings.log.trackio,
        is_primary=hosts.is_primary(),
        timer=run.timer,
        frames=run.dataset.shown,
    )


def _is_due(every: int, step: int, last: int) -> bool:
    """Every so many steps, and after the last."""
    return step == last or (every > 0 and step % every == 0)

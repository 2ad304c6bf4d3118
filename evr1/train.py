"""The training loop, read top to bottom: data, rollout, score, batch, update, evaluate, save."""

import contextlib
import functools
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import base
from evr1 import canaries, compile_cache, export, gauges, heldout, learn, report
from evr1 import config as config_lib
from evr1.checkpoint import Checkpoints
from evr1.config import Config
from evr1.data.records import Example
from evr1.judge import with_judge
from evr1.models import load_model
from evr1.rewards import Score, Status, Weights, compose, extra
from evr1.rewards.judge import Judged
from evr1.rewards.pool import RewardPool
from evr1.rl.outcomes import Outcomes, Part, has_signal
from evr1.rl.state import AlgorithmState
from evr1.run import Data, Policy, open_data, open_policy, sole_run
from evr1.step import TrainState
from evr1.types import GroupBatch, Rollouts
from evr1.writer import Writer


def train(config: Config) -> None:
    """Runs or resumes the training that a resolved config describes, up to export and report.

    Raises:
        ValueError: bad input, in one line.
        FloatingPointError: the gradient of a step is not finite.
    """
    if jax.process_count() > 1:
        raise ValueError(
            f"{jax.process_count()} processes: evr1 trains on one host so far, with all of its "
            "devices; start it on one"
        )
    workdir = Path(config.workdir)
    terms = _terms(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sole_run(workdir))
        compiles = gauges.CompileCounter()
        told = compile_cache.enable(config.compile_cache)
        model = load_model(config.model, dtype=config.train.dtype, remat=config.train.remat)
        data = open_data(config, model, stack)
        policy = open_policy(config, model, data)
        if policy.mesh is not None:
            stack.enter_context(jax.set_mesh(policy.mesh))
        checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep)
        stack.callback(checkpoints.close)
        state, memory, first = _start(config, policy, data, checkpoints)
        reference = policy.load(config.model) if config.algorithm.kl_coef else None
        scorer = with_judge(config, stack.enter_context(_reward_pool(config)), policy.mesh)
        writer = stack.enter_context(_writer(config, first))
        compiles.on_change = writer.compiling
        writer.line(told)
        evaluate = functools.partial(_evaluate, config, policy, data, scorer, writer)

        if first:
            left = config.num_steps - first
            writer.line(f"resumed from the checkpoint of step {first}; {left} steps to go")
        else:
            writer.line(_describe(config))
            if config.canaries:
                canaries.check(config, policy, data, state.params, scorer.score_batch, writer.line)
            evaluate(state, 0)
        for step in range(first, config.num_steps):
            timer = writer.timer
            with timer("data_wait"):
                examples = next(data.train)
            with timer("rollout"):
                ids = [step * len(examples) + g for g in range(len(examples))]
                scoring = Scoring(scorer, data, examples)
                rollouts = policy.sampler.generate(
                    state.params, examples, ids, policy.sampling, on_finish=scoring.start
                )
            with timer("score"):
                scores = scoring.finish(rollouts, terms)
                outcomes, metrics = assess(config, examples, rollouts, scores)
            version = int(state.step)
            with timer("logprob"):
                batch, memory, more = learn.make_batch(
                    config,
                    policy,
                    data,
                    examples,
                    rollouts,
                    outcomes,
                    memory,
                    state.params,
                    reference,
                )
                parts = learn.split(config, policy, data, batch)
            with timer("update"):
                state, update_metrics = learn.update(policy, state, examples, parts)
            saved = checkpoints.latest_step()
            _stop_if_not_finite(update_metrics, examples, parts, workdir, step + 1, saved)
            metrics |= more | update_metrics
            if "policy/kl_ref" in metrics:
                metrics["policy/kl_coef"] = memory.kl_coef
                memory = learn.next_kl_coef(config, memory, metrics["policy/kl_ref"])

            done = step + 1
            records = heldout.rollout_records(
                data, examples, rollouts, scores, batch.advantages[..., 0], done, version, "train"
            )
            writer.rollouts(records[: config.log.rollouts_per_step or None])
            metrics |= data.train.metrics() | gauges.readings(compiles)
            metrics["optim/learning_rate"] = np.asarray(policy.schedule(version)).item()
            metrics |= timer.pop()
            metrics |= gauges.speed(model, batch, metrics, jax.device_count())
            writer.metrics(done, metrics)
            if _is_due(config.eval.every_steps, done, config.num_steps):
                evaluate(state, done)
            if _is_due(config.checkpoint.every_steps, done, config.num_steps):
                writer.sync()
                extra = {"data": data.train.get_state(), "algorithm": memory.to_json()}
                checkpoints.save(done, state, extra)

        checkpoints.wait()
        if config.checkpoint.export:
            out, dtype = workdir / "export", config.checkpoint.export_dtype
            export.export(policy, state.params, config.model, out, dtype)
            writer.line(f"exported, reloaded and compared: {out}")
        writer.sync()
        if config.log.report:
            writer.line(f"report: {report.build(workdir, data.frames)}")
        writer.line(heldout.table(*report.read_metrics(workdir / "metrics.jsonl")))


class Scoring:
    """Scores the completions of a rollout batch, each group as soon as it is drawn."""

    def __init__(self, scorer: Judged, data: Data, examples: Sequence[Example]) -> None:
        self._scorer, self._data, self._examples = scorer, data, examples
        self._started: dict[int, Future[list[Score]]] = {}

    def start(self, g: int, group: Rollouts) -> None:
        """Starts scoring the completions of prompt g; `group` has no G axis."""
        texts = heldout.texts(self._data, group)
        self._started[g] = self._scorer.submit(texts, [self._examples[g].row] * len(texts))

    def finish(self, rollouts: Rollouts, terms: compose.Terms) -> list[Score]:
        """The scores of all G * N completions, in order, with the judge's rulings and the terms."""
        texts = heldout.texts(self._data, rollouts)
        rows = [e.row for e in self._examples for _ in range(rollouts.lengths.shape[1])]
        scores = [s for g in range(len(self._examples)) for s in self._started[g].result()]
        scores = self._scorer.rule(scores, texts, rows)
        outcomes = zip(texts, rows, rollouts.lengths.flat, rollouts.finished.flat, strict=True)
        return compose.add_terms(scores, outcomes, terms)


def assess(
    config: Config, examples: Sequence[Example], rollouts: Rollouts, scores: Sequence[Score]
) -> tuple[Outcomes, dict[str, float]]:
    """What the rollouts earned, for the advantages, and the metrics of it.

    A completion whose scorer failed is no zero: it enters no mean and is not trained on.

    Raises:
        ValueError: more than rewards.max_failed_share of the scorers failed.
    """
    shape = rollouts.lengths.shape
    rewards = np.array([s.overall for s in scores], np.float32).reshape(shape)
    failed = np.array([s.status in (Status.TIMEOUT, Status.ERROR) for s in scores]).reshape(shape)
    if failed.mean() > config.rewards.max_failed_share:
        first = int(np.flatnonzero(failed)[0])
        g = first // shape[1]
        raise ValueError(
            f"{failed.sum()} of {failed.size} rewards failed, over rewards.max_failed_share="
            f"{config.rewards.max_failed_share:g}; first: {examples[g].row.source} "
            f"({examples[g].row.problem_type}): {scores[first].detail}"
        )
    r = config.rewards
    parts = {
        "accuracy": (r.accuracy_weight, [s.accuracy for s in scores]),
        "format": (r.format_weight, [s.format for s in scores]),
    }
    parts |= {name: (w, [dict(s.terms).get(name, 0.0) for s in scores]) for name, w in r.terms}
    outcomes = Outcomes(
        rewards,
        ~failed,
        rollouts.lengths,
        {name: Part(w, np.array(x, np.float32).reshape(shape)) for name, (w, x) in parts.items()},
        [e.row.problem_type for e in examples],
    )
    metrics = _reward_metrics(examples, scores, failed)
    metrics["group/no_signal_share"] = 1 - float(has_signal(rewards, ~failed).mean())
    metrics["completion/length"] = float(rollouts.lengths.mean())
    metrics["completion/length_max"] = float(rollouts.lengths.max())
    metrics["completion/truncated_share"] = 1 - float(rollouts.finished.mean())
    return outcomes, metrics


def _start(
    config: Config, policy: Policy, data: Data, checkpoints: Checkpoints
) -> tuple[TrainState, AlgorithmState, int]:
    """The states to go on from, and how many steps are behind them."""
    state = policy.init_state(policy.load(config.model))
    memory = AlgorithmState(config.algorithm.kl_coef)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    restored = checkpoints.restore(abstract)
    if restored is None:
        return state, memory, 0
    if restored.step > config.num_steps:
        raise ValueError(
            f"num_steps={config.num_steps}, but {checkpoints.directory} is at step "
            f"{restored.step}; raise num_steps or choose another config.workdir"
        )
    data.train.set_state(restored.extra["data"])
    saved = AlgorithmState.from_json(restored.extra["algorithm"])
    if config.algorithm.kl_controller == "fixed":  # then the config may have a new one
        saved = saved._replace(kl_coef=memory.kl_coef)
    return restored.state, saved, restored.step


def _evaluate(
    config: Config,
    policy: Policy,
    data: Data,
    scorer: Judged,
    writer: Writer,
    state: TrainState,
    step: int,
) -> None:
    """Greedy answers to the held-out rows; their metrics and records go to the writer."""
    if not data.heldout_rows:
        return
    with writer.timer("eval"):
        metrics, records = heldout.evaluate(
            policy,
            data,
            state.params,
            scorer.score_batch,
            step=step,
            weight_version=int(state.step),
        )
    writer.metrics(step, metrics | writer.timer.pop())
    writer.rollouts(records)


def _reward_metrics(
    examples: Sequence[Example], scores: Sequence[Score], failed: np.ndarray
) -> dict[str, float]:
    """Means over the completions whose scorer worked, in all and by problem type."""
    n = failed.shape[1]
    kinds = np.array([e.row.problem_type for e in examples for _ in range(n)])
    used = ~failed.reshape(-1)
    parts = {
        "overall": np.array([s.overall for s in scores]),
        "accuracy": np.array([s.accuracy for s in scores]),
        "format": np.array([s.format for s in scores]),
    }
    for name in dict(next((s.terms for s in scores if s.terms), ())):
        parts[f"term/{name}"] = np.array([dict(s.terms).get(name, 0.0) for s in scores])
    metrics = {f"reward/{name}": float(v[used].mean()) for name, v in parts.items()}
    for kind in sorted(set(kinds[used])):
        mine = used & (kinds == kind)
        metrics[f"reward/accuracy/{heldout.slug(kind)}"] = float(parts["accuracy"][mine].mean())
    statuses = [s.status for s in scores]
    for status in Status:
        if status is not Status.OK:
            metrics[f"reward/{status.value}_share"] = statuses.count(status) / len(statuses)
    return metrics


def _stop_if_not_finite(
    metrics: dict[str, float],
    examples: Sequence[Example],
    parts: list[list[GroupBatch]],
    workdir: Path,
    step: int,
    saved: int | None,
) -> None:
    if metrics["optim/is_finite"] == 1:
        return
    path = workdir / f"not_finite_step_{step}.npz"
    leaves = jax.tree_util.tree_leaves_with_path(parts)
    arrays: dict[str, Any] = {jax.tree_util.keystr(k): np.asarray(v) for k, v in leaves}
    arrays["rows"] = np.array([e.row.source for e in examples])  # whose media are not in it
    np.savez(path, **arrays)
    last = "there is no checkpoint yet" if saved is None else f"the last checkpoint: step {saved}"
    raise FloatingPointError(
        f"step {step}: the gradient is not finite; its batch is in {path}, {last}. Lower "
        "optim.learning_rate, or look for the row that does it"
    )


def _describe(config: Config) -> str:
    """The fields that were changed, a line each; what follows from others is among them."""
    head = f"config: all of it is in {Path(config.workdir) / 'config.json'}; not as in base.py:"
    return "\n  ".join([head, *config_lib.changes(config, base.get_config())])


def _reward_pool(config: Config) -> RewardPool:
    r = config.rewards
    return RewardPool(
        workers=r.workers,
        timeout_s=r.timeout_s,
        weights=Weights(r.accuracy_weight, r.format_weight),
        extra=r.extra,
        box_scale=r.box_scale,
    )


def _terms(config: Config) -> compose.Terms:
    r = config.rewards
    settings = compose.Settings(
        max_length=config.rollout.max_completion_tokens,
        overlong_cache=r.overlong_cache_tokens,
        repetition_words=r.repetition_words,
    )
    return compose.find_terms(r.terms, extra.load(r.extra).terms, settings)


def _writer(config: Config, first: int) -> Writer:
    return Writer(
        config.workdir,
        config=config.to_dict(),
        num_steps=config.num_steps,
        start_step=first + 1 if first else 0,
        tensorboard=config.log.tensorboard,
        wandb=config.log.wandb,
        is_primary=jax.process_index() == 0,
    )


def _is_due(every: int, done: int, last: int) -> bool:
    """Every so many steps, and after the last."""
    return done == last or (every > 0 and done % every == 0)

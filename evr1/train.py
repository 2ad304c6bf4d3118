"""The training loop, read top to bottom: data, rollout, score, batch, update, evaluate, save."""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import base
from evr1 import canaries, compile_cache, export, gauges, heldout, learn, report
from evr1 import config as config_lib
from evr1.assess import assess
from evr1.checkpoint import Checkpoints
from evr1.config import Config
from evr1.data.records import Example
from evr1.draw import Drawer
from evr1.groups import stack as stack_groups
from evr1.groups import without_features
from evr1.judge import with_judge
from evr1.models import load_model, peft
from evr1.networks import Networks, init_networks, next_reference
from evr1.rewards import Weights, compose, extra
from evr1.rewards.judge import Judged
from evr1.rewards.pool import RewardPool
from evr1.rl.state import AlgorithmState
from evr1.run import Data, Policy, open_data, open_policy, sole_run
from evr1.step import TrainState
from evr1.types import GroupBatch
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
        scorer = with_judge(config, stack.enter_context(_reward_pool(config)), policy.mesh)
        drawer = Drawer(config, policy, data, scorer, terms)
        networks, memory, first = _start(config, policy, data, drawer, checkpoints)
        writer = stack.enter_context(_writer(config, first))
        compiles.on_change = writer.compiling
        writer.line(told)
        if policy.encoder is not None:
            writer.line(policy.encoder.told())
        evaluate = functools.partial(_evaluate, config, policy, data, scorer, writer)

        if first:
            left = config.num_steps - first
            writer.line(f"resumed from the checkpoint of step {first}; {left} steps to go")
        else:
            writer.line(_describe(config))
            if config.canaries:
                params, score = networks.policy.params, scorer.score_batch
                canaries.check(config, policy, data, params, score, writer.line)
            evaluate(networks.policy, 0)
        for step in range(first, config.num_steps):
            timer = writer.timer
            version = int(networks.policy.step)
            drawn_by = policy.merged(networks.policy.params)
            groups, metrics = drawer.next_batch(drawn_by, version, timer)
            del drawn_by  # where there are adapters it is a second copy of what they change
            examples, rollouts = [g.example for g in groups], stack_groups(groups)
            outcomes, earned = assess(config, groups)
            metrics |= earned
            with timer("logprob"):
                batch, memory, more = learn.make_batch(
                    config, policy, data, examples, rollouts, outcomes, memory, networks
                )
                parts = learn.split(config, policy, data, batch)
            with timer("update"):
                networks, update_metrics = _update(
                    config, policy, data, networks, step, examples, batch, parts
                )
            groups = list(map(without_features, groups))  # no longer needed, and large
            examples = [g.example for g in groups]
            saved = checkpoints.latest_step()
            _stop_if_not_finite(update_metrics, examples, parts, workdir, step + 1, saved)
            metrics |= more | update_metrics
            done = step + 1
            if "policy/kl_ref" in metrics:
                metrics["policy/kl_coef"] = memory.kl_coef
                memory = learn.next_kl_coef(config, memory, metrics["policy/kl_ref"])
            networks = next_reference(config, networks, done)

            writer.rollouts(
                heldout.rollout_records(
                    data,
                    examples,
                    rollouts,
                    [s for g in groups for s in g.scores],
                    batch.advantages[..., 0],
                    done,
                    [g.version for g in groups],
                    "train",
                    [g.origins for g in groups],
                )[: config.log.rollouts_per_step or None]
            )
            metrics |= data.train.metrics() | gauges.readings(compiles)
            metrics["optim/learning_rate"] = np.asarray(policy.schedule(version)).item()
            metrics |= timer.pop()
            metrics |= gauges.speed(
                model, batch, metrics, jax.device_count(), has_tower=policy.encoder is None
            )
            writer.metrics(done, metrics)
            if _is_due(config.eval.every_steps, done, config.num_steps):
                evaluate(networks.policy, done)
            if _is_due(config.checkpoint.every_steps, done, config.num_steps):
                writer.sync()
                extra = {"data": data.train.get_state(), "draw": drawer.get_state()}
                extra["algorithm"] = memory.to_json()
                checkpoints.save(done, networks.saved(config), extra)

        checkpoints.wait()
        if config.checkpoint.export:
            out, dtype = workdir / "export", config.checkpoint.export_dtype
            export.export(policy, networks.policy.params, config.model, out, dtype)
            writer.line(f"exported, reloaded and compared: {out}")
        if config.lora.rank and config.lora.export_adapter:
            out = workdir / "adapter"
            peft.save_adapter(networks.policy.params, policy.model, out, source=config.model)
            writer.line(f"adapters for peft: {out}")
        writer.sync()
        if config.log.report:
            writer.line(f"report: {report.build(workdir, data.frames)}")
        writer.line(heldout.table(*report.read_metrics(workdir / "metrics.jsonl")))


def _start(
    config: Config, policy: Policy, data: Data, drawer: Drawer, checkpoints: Checkpoints
) -> tuple[Networks, AlgorithmState, int]:
    """What to go on from, and how many steps are behind it."""
    networks = init_networks(config, policy)
    memory = AlgorithmState(config.algorithm.kl_coef)
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        networks.saved(config),
    )
    restored = checkpoints.restore(abstract)
    if restored is None:
        return networks, memory, 0
    if restored.step > config.num_steps:
        raise ValueError(
            f"num_steps={config.num_steps}, but {checkpoints.directory} is at step "
            f"{restored.step}; raise num_steps or choose another config.workdir"
        )
    data.train.set_state(restored.extra["data"])
    drawer.set_state(restored.extra["draw"])
    saved = AlgorithmState.from_json(restored.extra["algorithm"])
    if config.algorithm.kl_controller == "fixed":  # then the config may have a new one
        saved = saved._replace(kl_coef=memory.kl_coef)
    return networks.restored(restored.state), saved, restored.step


def _update(
    config: Config,
    policy: Policy,
    data: Data,
    networks: Networks,
    step: int,
    examples: Sequence[Example],
    batch: GroupBatch,
    parts: list[list[GroupBatch]],
) -> tuple[Networks, dict[str, float]]:
    """The updates of a rollout batch: of the critic, if there is one, and then of the policy."""
    metrics: dict[str, float] = {}
    if policy.critic is not None:
        networks, metrics = learn.update_critic(config, policy, data, networks, examples, batch)
        if step < config.critic.warmup_steps:
            return networks, metrics | {"optim/is_finite": metrics["critic/is_finite"]}
    epochs = config.algorithm.epochs_per_rollout
    state, more = learn.update(policy, networks.policy, examples, parts, epochs)
    more["optim/is_finite"] *= metrics.get("critic/is_finite", 1)
    return networks._replace(policy=state), metrics | more


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
            policy.merged(state.params),
            scorer.score_batch,
            step=step,
            weight_version=int(state.step),
        )
    writer.metrics(step, metrics | writer.timer.pop())
    writer.rollouts(records)


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
    is_critic = metrics.get("critic/is_finite", 1) != 1
    of, field = (" of the critic", "critic") if is_critic else ("", "optim")
    raise FloatingPointError(
        f"step {step}: the gradient{of} is not finite; its batch is in {path}, {last}. Lower "
        f"{field}.learning_rate, or look for the row that does it"
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

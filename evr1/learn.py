"""From what the rollouts earned to the update: advantages, log-probabilities, microbatches."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evr1.config import Config
from evr1.critic import Critic
from evr1.data.records import Example
from evr1.features import without_features
from evr1.networks import Networks
from evr1.rl import diagnostics
from evr1.rl.advantages import group_advantages
from evr1.rl.batches import group_batch, microbatches, minibatches, token_advantages
from evr1.rl.gae import explained_variance, gae
from evr1.rl.kl import CONTROLLERS, kl
from evr1.rl.outcomes import Outcomes, update_moments
from evr1.rl.state import AlgorithmState
from evr1.rl.weights import loss_weights
from evr1.run import Data, Policy
from evr1.step import TrainState, Update
from evr1.types import GroupBatch, Params, Prompts, Rollouts


def make_batch(
    config: Config,
    policy: Policy,
    data: Data,
    examples: Sequence[Example],
    rollouts: Rollouts,
    outcomes: Outcomes,
    memory: AlgorithmState,
    networks: Networks,
) -> tuple[GroupBatch, AlgorithmState, dict[str, float]]:
    """The rollout batch with advantages and with the log-probabilities that its loss looks at, all
    under the weights before the first update; what the algorithm carries on; metrics.

    A KL penalty in the reward needs the log-probabilities first. Otherwise the advantages come
    first, so that no pass is spent on groups that move nothing.
    """
    a = config.algorithm
    batch = empty_batch(config, data.collate(examples), rollouts, outcomes, memory.kl_coef)
    params, reference = networks.policy.params, networks.reference_params
    fill = functools.partial(with_logprobs, config, policy, data, examples, params, reference)
    metrics: dict[str, float] = {}
    if policy.critic is not None:
        batch = with_values(config, policy, data, examples, networks, batch)
    if is_kl_in_reward(config):
        batch, metrics = fill(batch)
        estimates = token_kl(a.kl_estimator, batch)
        outcomes = outcomes._replace(penalties=memory.kl_coef * estimates)
        metrics["policy/kl_ref"] = float(estimates.sum() / max(batch.completion_mask.sum(), 1))
    if policy.critic is not None:
        batch = _with_gae(config, batch, outcomes)
        judged = _for_critic(config, batch)
        metrics["critic/explained_variance"] = explained_variance(
            judged.returns, judged.old_values, judged.completion_mask
        )
    else:
        advantages, memory = estimate(config, outcomes, memory)
        batch = with_advantages(batch, advantages)
    if not is_kl_in_reward(config):
        batch, more = fill(batch)
        metrics |= more
    return batch, memory, metrics


def _with_gae(config: Config, batch: GroupBatch, outcomes: Outcomes) -> GroupBatch:
    c = config.critic
    outcomes, imitated = _without_imitated(config, outcomes)
    advantages, returns = gae(outcomes, batch.old_values, discount=c.discount, decay=c.decay)
    advantages = _with_imitated(config, advantages, imitated)
    return with_advantages(batch, advantages)._replace(returns=returns)


def _for_critic(config: Config, batch: GroupBatch) -> GroupBatch:
    """The batch without completions that are imitated: nobody estimated their returns."""
    if config.mix.treatment != "sft" or not batch.is_offline.any():
        return batch
    a, limit = config.algorithm, config.rollout.max_completion_tokens
    mask = batch.completion_mask & ~batch.is_offline[..., None]
    weights = loss_weights(mask, a.aggregation, limit)
    return batch._replace(completion_mask=mask, loss_weights=weights)


def _for_tower(critic: Critic, examples: Sequence[Example]) -> list[Example]:
    """The examples as the critic is to see them: with pixels where its tower is another one."""
    return list(examples if critic.has_policy_tower else map(without_features, examples))


def with_values(
    config: Config,
    policy: Policy,
    data: Data,
    examples: Sequence[Example],
    networks: Networks,
    batch: GroupBatch,
) -> GroupBatch:
    """The batch with the critic's values, under the weights before the first update."""
    critic, state = policy.critic, networks.critic
    assert critic is not None
    assert state is not None
    policy_params = networks.policy.params if critic.is_shared else None
    values, examples = batch.old_values.copy(), _for_tower(critic, examples)
    every = split(config, policy, data, batch, is_complete=True)
    for part in (part for minibatch in every for part in minibatch):
        prompts, completions = policy.place_prompts(part, examples)
        real = part.groups >= 0
        place = (part.groups[real], slice(None), slice(part.completions.shape[2]))
        found = critic.values(state.params, policy_params, prompts, completions)
        values[place] = np.asarray(found)[real]
    return batch._replace(old_values=np.where(batch.completion_mask, values, 0))


def is_kl_in_reward(config: Config) -> bool:
    """Whether a KL penalty is taken off the rewards."""
    return config.algorithm.kl_coef > 0 and config.algorithm.kl_placement == "reward"


def empty_batch(
    config: Config, prompts: Prompts, rollouts: Rollouts, outcomes: Outcomes, kl_coef: float
) -> GroupBatch:
    """The rollouts as a batch whose advantages are all 0."""
    return group_batch(
        prompts,
        rollouts,
        np.zeros(rollouts.lengths.shape, np.float32),
        aggregation=config.algorithm.aggregation,
        max_tokens=config.rollout.max_completion_tokens,
        valid=outcomes.valid,
        is_offline=outcomes.is_offline,
        kl_coef=kl_coef,
    )


def with_advantages(batch: GroupBatch, advantages: np.ndarray) -> GroupBatch:
    """The batch with these, [G, N] or [G, N, R]."""
    return batch._replace(advantages=token_advantages(advantages, batch.completion_mask))


def estimate(
    config: Config, outcomes: Outcomes, memory: AlgorithmState
) -> tuple[np.ndarray, AlgorithmState]:
    """The advantages, and the moments that this batch has moved.

    With mix.treatment=sft offline completions are no part of their groups' statistics; the weight
    of their loss stands in the place of their advantage.
    """
    a = config.algorithm
    outcomes, imitated = _without_imitated(config, outcomes)
    if a.advantage == "ema_grpo":
        moved = update_moments(memory.moments, outcomes, a.ema_decay)
        memory = memory._replace(moments=moved)
    outcomes = outcomes._replace(moments=memory.moments)
    advantages = group_advantages(outcomes, a.advantage)
    return _with_imitated(config, advantages, imitated), memory


def _without_imitated(config: Config, outcomes: Outcomes) -> tuple[Outcomes, np.ndarray | None]:
    """The outcomes of what the advantages are for, and which completions are imitated instead."""
    if config.mix.treatment != "sft" or outcomes.is_offline is None:
        return outcomes, None
    imitated = outcomes.valid & outcomes.is_offline
    return outcomes._replace(valid=outcomes.valid & ~imitated), imitated


def _with_imitated(
    config: Config, advantages: np.ndarray, imitated: np.ndarray | None
) -> np.ndarray:
    if imitated is None:
        return advantages
    where = imitated if advantages.ndim == 2 else imitated[..., None]
    return np.where(where, np.float32(config.mix.sft_coef), advantages)


def token_kl(estimator: str, batch: GroupBatch) -> np.ndarray:
    """float32[G, N, R]: the KL of the old policy to the reference on every token, on the host."""
    return np.asarray(
        kl(
            estimator,
            jnp.asarray(batch.old_logprobs),
            jnp.asarray(batch.ref_logprobs),
            jnp.asarray(batch.completion_mask),
        )
    )


def next_kl_coef(config: Config, memory: AlgorithmState, observed: float) -> AlgorithmState:
    """What the algorithm carries on after a step with this mean KL of a token."""
    a = config.algorithm
    share = config.rollout.prompts * config.rollout.n / a.kl_horizon
    coef = CONTROLLERS[a.kl_controller](memory.kl_coef, observed, a.kl_target, share)
    return memory._replace(kl_coef=coef)


def with_logprobs(
    config: Config,
    policy: Policy,
    data: Data,
    examples: Sequence[Example],
    params: Params,
    reference: Params | None,
    batch: GroupBatch,
) -> tuple[GroupBatch, dict[str, float]]:
    """The batch with the log-probabilities that are to be computed, and how far the sampler's are
    from them.

    It is cut as for the update: the same shapes round in the same way. Groups that the update
    leaves out keep what they had.
    """
    is_recomputed = config.algorithm.old_logprobs == "recompute"
    if not is_recomputed and reference is None:
        return batch, {}
    old, ref = batch.old_logprobs.copy(), batch.ref_logprobs.copy()
    gaps: list[diagnostics.Sums] = []
    for part in (part for minibatch in split(config, policy, data, batch) for part in minibatch):
        prompts, completions = policy.place_prompts(part, examples)
        real = part.groups >= 0
        place = (part.groups[real], slice(None), slice(part.completions.shape[2]))
        if is_recomputed:
            new = policy.logprobs(params, prompts, completions)
            sampled = part.completion_mask & ~part.is_offline[..., None]
            gaps.append(diagnostics.sampler_sums(new, part.behavior_logprobs, sampled))
            old[place] = np.asarray(new)[real]
        if reference is not None:
            # Features of the policy's tower serve it too: they are there only if that tower never
            # moves, and the reference started from the policy's weights or follows them.
            ref[place] = np.asarray(policy.logprobs(reference, prompts, completions))[real]
    metrics = diagnostics.means(functools.reduce(diagnostics.add, gaps)) if gaps else {}
    mask = batch.completion_mask
    filled = batch._replace(
        old_logprobs=np.where(mask, old, 0), ref_logprobs=np.where(mask, ref, 0)
    )
    return filled, metrics


def split(
    config: Config, policy: Policy, data: Data, batch: GroupBatch, *, is_complete: bool = False
) -> list[list[GroupBatch]]:
    """The batch as minibatches (one optimizer update each) of microbatches (what fits at a time).

    Groups whose advantages are all 0 are left out where nothing but advantages has a gradient,
    unless it is to be complete.
    """
    a = config.algorithm
    whole = (
        [batch]
        if a.updates_per_rollout == 1
        else minibatches(
            batch,
            a.updates_per_rollout,
            aggregation=a.aggregation,
            max_tokens=config.rollout.max_completion_tokens,
        )
    )
    return [
        microbatches(
            minibatch,
            config.train.microbatch_tokens,
            shapes=data.shapes,
            group_multiple=policy.group_multiple,
            drop_silent=not (a.kl_coef or a.entropy_coef or a.balance_coef or is_complete),
        )
        for minibatch in whole
    ]


def update(
    policy: Policy,
    state: TrainState,
    examples: Sequence[Example],
    parts: Sequence[Sequence[GroupBatch]],
    epochs: int = 1,
) -> tuple[TrainState, dict[str, float]]:
    """One optimizer update per minibatch and epoch; the gradients of its microbatches are added."""
    return _update(policy.update, policy, state, examples, [*parts] * epochs, ())


def update_critic(
    config: Config,
    policy: Policy,
    data: Data,
    networks: Networks,
    examples: Sequence[Example],
    batch: GroupBatch,
) -> tuple[Networks, dict[str, float]]:
    """As many updates of the critic, on all groups; the policy must not have moved yet."""
    critic, state = policy.critic, networks.critic
    assert critic is not None
    assert state is not None
    parts = split(config, policy, data, _for_critic(config, batch), is_complete=True)
    parts = parts * config.algorithm.epochs_per_rollout
    shared = networks.policy.params if critic.is_shared else None
    examples = _for_tower(critic, examples)
    state, metrics = _update(critic.update, policy, state, examples, parts, (shared,))
    metrics = {name.replace("optim/", "critic/"): value for name, value in metrics.items()}
    return networks._replace(critic=state), metrics


def _update(
    compiled: Update,
    policy: Policy,
    state: TrainState,
    examples: Sequence[Example],
    parts: Sequence[Sequence[GroupBatch]],
    inputs: Sequence[Any],
) -> tuple[TrainState, dict[str, float]]:
    sums: diagnostics.Sums = {}
    applied: list[dict[str, jax.Array]] = []
    for number, minibatch in enumerate(parts, int(state.step)):
        grads = compiled.zeros(state.params)
        for part in minibatch:
            part = part._replace(update=np.full_like(part.groups, number))
            part = policy.place(policy.with_vision(part, examples))
            grads, more = compiled.accumulate(state.params, grads, *inputs, part)
            sums = diagnostics.add(sums, more) if sums else more
        state, metrics = compiled.apply(state, grads)
        applied.append(metrics)
    means = {name: float(np.mean([float(m[name]) for m in applied])) for name in applied[0]}
    return state, diagnostics.means(sums) | means

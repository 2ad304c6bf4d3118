"""The loss of a microbatch in the group layout, and the log-probabilities that it is made of."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evr1.config.learner import LearnerSettings
from evr1.models import Model
from evr1.models.nn.experts import router_metrics
from evr1.parallel.sharding import context_size
from evr1.rl.diagnostics import Sums, masked, policy_sums, sampler_sums
from evr1.rl.losses import LossConfig, TokenInputs, token_loss
from evr1.types import GroupBatch, Params

LOGITS_BYTES = 2**28  # float32 logits of one group that exist at a time on a device


def loss_config(settings: LearnerSettings) -> LossConfig:
    """Returns the loss of a run."""
    algorithm, mix = settings.algorithm, settings.mix
    derived = {
        "has_offline": settings.has_offline,
        "offline": mix.treatment,
        "offline_clip": mix.importance_clip,
        "luffy_gamma": mix.luffy_gamma,
        "has_kl": algorithm.kl_coef > 0 and algorithm.kl_placement == "loss",
        "temperature": settings.rollout.temperature,
        "on_policy": algorithm.old_logprobs == "on_policy",
    }
    names = [field.name for field in dataclasses.fields(LossConfig) if field.name not in derived]
    return LossConfig(**{name: getattr(algorithm, name) for name in names}, **derived)


@jax.named_scope("loss")
def batch_loss(
    model: Model,
    params: Params,
    hidden: Float[Array, "g n r d"],
    batch: GroupBatch,
    loss: LossConfig,
) -> tuple[Float[Array, ""], Sums]:
    """Returns sum(loss_weights * per-token loss), and the diagnostics.

    `policy/loss` is the weighted mean of the per-token loss.
    """
    mask = batch.completion_mask
    logprobs, entropy = token_logprobs(
        model,
        params,
        hidden,
        batch.completions,
        loss.temperature,
        has_entropy_gradient=loss.has_entropy,
    )
    old = jax.lax.stop_gradient(logprobs) if loss.on_policy else batch.old_logprobs
    inputs = TokenInputs(
        logprobs=logprobs,
        entropy=entropy,
        old_logprobs=old,
        behavior_logprobs=batch.behavior_logprobs,
        ref_logprobs=batch.ref_logprobs,
        advantages=batch.advantages,
        mask=mask,
        is_offline=batch.is_offline[:, :, None],
        kl_coef=batch.kl_coef[:, None, None],
        policy_weights=batch.policy_weights,
        kl_old_coef=batch.kl_old_coef,
        entropy_coef=None if batch.entropy_coef is None else batch.entropy_coef[:, None, None],
    )
    per_token, sums = token_loss(inputs, loss)
    weighted = jnp.where(mask, batch.loss_weights * per_token, 0)
    sampled = mask & ~batch.is_offline[:, :, None]
    sums |= policy_sums(logprobs, old, entropy, sampled)
    if loss.on_policy:
        sums |= sampler_sums(logprobs, batch.behavior_logprobs, sampled)
    sums["policy/loss"] = (masked(weighted, mask)[0], masked(batch.loss_weights, mask)[0])
    return jnp.sum(weighted), sums


def balance_term(
    router: Float[Array, "l g t e"], per_token: int, batch: GroupBatch
) -> tuple[Float[Array, ""], Sums]:
    """Returns the balance loss of a microbatch times its share of the loss weights, and metrics.

    Balance is no mean over tokens: that of a minibatch is the weighted mean of its microbatches'.
    """
    g, p = batch.prompts.tokens.shape
    in_prompt = jnp.arange(p)[None] < batch.prompts.lengths[:, None]
    mask = jnp.concatenate([in_prompt, batch.completion_mask.reshape(g, -1)], axis=1)
    metrics = router_metrics(router, per_token, mask)
    tokens = jnp.sum(mask, dtype=jnp.float32)
    sums = {
        "router/balance": (jax.lax.stop_gradient(metrics.balance_loss) * tokens, tokens),
        "router/entropy": (jax.lax.stop_gradient(metrics.entropy) * tokens, tokens),
        "router/load_max": (jax.lax.stop_gradient(metrics.max_load), jnp.ones(())),
    }
    share = jnp.sum(jnp.where(batch.completion_mask, batch.loss_weights, 0))
    return metrics.balance_loss * share, sums


def token_logprobs(
    model: Model,
    params: Params,
    hidden: Float[Array, "g n r d"],
    tokens: Int[Array, "g n r"],
    temperature: float = 1.0,
    *,
    has_entropy_gradient: bool = False,
) -> tuple[Float[Array, "g n r"], Float[Array, "g n r"]]:
    """Returns the log-probability of every token and the entropy of its distribution (nats; no
    gradient flows through it unless asked for).

    Logits exist only for some token positions of every completion at a time, in the backward pass
    too: at most LOGITS_BYTES for each group, on each of the devices that share it. Axis 0 is left
    alone, so that groups stay spread over the devices.
    """
    g, n, r, d = hidden.shape

    def chunk(hidden, tokens):
        logits = model.logits(params, hidden)
        logits = logits if temperature == 1 else logits / temperature
        shifted = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
        weights = jnp.exp(shifted)
        total = weights.sum(axis=-1)
        # Compare instead of gather: its gradient is no scatter, and the vocabulary may be sharded.
        is_token = tokens[..., None] == jax.lax.broadcasted_iota(jnp.int32, logits.shape, 3)
        chosen = jnp.where(is_token, shifted, 0).sum(axis=-1)
        log_total = jnp.log(total)
        entropy = log_total - (weights * shifted).sum(axis=-1) / total
        if not has_entropy_gradient:
            entropy = jax.lax.stop_gradient(entropy)
        return chosen - log_total, entropy

    vocab = model.config.vocab_size
    chunks = math.ceil(n * r * vocab * 4 / (LOGITS_BYTES * context_size()))
    if chunks <= 1:
        return chunk(hidden, tokens)
    width = math.ceil(r / min(chunks, r))
    chunks = math.ceil(r / width)
    pad = chunks * width - r
    hidden = jnp.pad(hidden, ((0, 0), (0, 0), (0, pad), (0, 0))).reshape(g, n, chunks, width, d)
    tokens = jnp.pad(tokens, ((0, 0), (0, 0), (0, pad))).reshape(g, n, chunks, width)

    xs = (jnp.moveaxis(hidden, 2, 0), jnp.moveaxis(tokens, 2, 0))
    _, out = jax.lax.scan(jax.checkpoint(lambda _, x: (None, chunk(*x))), None, xs)
    logprobs, entropy = (jnp.moveaxis(x, 0, 2).reshape(g, n, -1)[..., :r] for x in out)
    return logprobs, entropy

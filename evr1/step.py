"""The update: log-probabilities, gradients, the optimizer step, all in the group layout.

A rollout batch is one or more minibatches (an optimizer update each), a minibatch is microbatches
that fit the memory (`evr1.rl.batches`). Gradients of microbatches are added: the loss weights
already hold the denominators of the whole minibatch. `evr1.learn.update` is the loop over both.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from evr1.models import Model
from evr1.models.experts import router_metrics
from evr1.optim import state_shardings, trainable
from evr1.parallel import sharding
from evr1.rl.diagnostics import Sums, masked, policy_sums, sampler_sums
from evr1.rl.losses import LossConfig, TokenInputs, token_loss
from evr1.types import GroupBatch, Params, Prompts

LOGITS_BYTES = 2**28  # float32 logits of one group that exist at a time


class TrainState(NamedTuple):
    """What an update changes."""

    step: jax.Array  # int32[], optimizer updates done
    params: Params
    opt_state: optax.OptState


class Update(NamedTuple):
    """The jitted parts of an update. `accumulate` donates `grads`, `apply` donates `state`."""

    zeros: Callable[[Params], Params]  # gradients of nothing, to start from
    accumulate: Callable[..., tuple[Params, Sums]]  # (params, grads, *inputs of the loss)
    apply: Callable[[TrainState, Params], tuple[TrainState, dict[str, jax.Array]]]


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh | None = None,
    layout: Any = None,
) -> TrainState:
    """The state before the first update; moments are laid out as their parameters.

    Args:
        params: already in their place when there is a mesh. The state holds these very arrays, and
            `apply` gives them away: copy them first where a reference policy is needed.
        optimizer: of `evr1.optim`.
        mesh: where the parameters lie; None: one device.
        layout: sharding of each parameter, where it is not that of `evr1.parallel.sharding`.
    """

    if mesh is None:
        return TrainState(jnp.zeros((), jnp.int32), params, jax.jit(optimizer.init)(params))
    shardings = train_state_shardings(params, optimizer, mesh, layout)
    step = jax.device_put(jnp.zeros((), jnp.int32), shardings.step)
    init = jax.jit(optimizer.init, out_shardings=shardings.opt_state)
    return TrainState(step, params, init(params))


def make_logprobs(
    model: Model, *, temperature: float = 1.0, mesh: jax.sharding.Mesh | None = None
) -> Callable[[Params, Prompts, Int[Array, "g n r"]], Float[Array, "g n r"]]:
    """A jitted function: log p(completions[g, n, t] | prompt g, completions[g, n, :t]), float32[G,
    N, R].

    Args:
        model: whose parameters the function takes.
        temperature: what the logits are divided by.
        mesh: where parameters and batches lie; None: one device.
    """

    def logprobs(params, prompts, completions):
        hidden = model.group_hidden(params, prompts, completions)
        return token_logprobs(model, params, hidden, completions, temperature)[0]

    if mesh is None:
        return jax.jit(logprobs)
    batch = sharding.batch_sharding(mesh)
    params = sharding.param_shardings(mesh, model.abstract_params())
    logprobs = on_mesh(logprobs, mesh)
    return jax.jit(logprobs, in_shardings=(params, batch, batch), out_shardings=batch)


def make_update(
    model: Model,
    optimizer: optax.GradientTransformation,
    loss: LossConfig,
    *,
    freeze: Sequence[str] = (),
    mesh: jax.sharding.Mesh | None = None,
) -> Update:
    """The functions of an update.

    `accumulate(params, grads, microbatch)` adds the microbatch's gradient to `grads` and returns
    its (sum, count) diagnostics. `apply(state, grads)` clips, steps, and reports `optim/grad_norm`
    (before clipping) and `optim/is_finite`; where the gradient is not finite the state comes back
    unchanged, so that the caller can stop, name the step and still save.

    Args:
        model: what is trained.
        optimizer: made with the same `freeze`.
        loss: the loss, its temperature included.
        freeze: see `evr1.optim.trainable`; no gradient is worked out for these parameters.
        mesh: where parameters and batches lie; None: one device.
    """

    def objective(params, batch):
        noisy = model.with_dropout(params, batch.update, batch.groups)
        hidden, kept = model.group_forward(
            noisy, batch.prompts, batch.completions, keep_router=bool(loss.balance_coef)
        )
        value, sums = batch_loss(model, params, hidden, batch, loss)
        if kept.router is None:
            return value, sums
        balance, router = balance_term(kept.router, model.config.experts_per_token, batch)
        return value + loss.balance_coef * balance, sums | router

    abstract = model.abstract_params()
    inputs = () if mesh is None else (sharding.batch_sharding(mesh),)
    return compile_update(objective, optimizer, abstract, freeze=freeze, mesh=mesh, inputs=inputs)


def compile_update(
    objective: Callable[..., tuple[jax.Array, Sums]],
    optimizer: optax.GradientTransformation,
    abstract_params: Params,
    *,
    freeze: Sequence[str] = (),
    mesh: jax.sharding.Mesh | None = None,
    layout: Any = None,
    inputs: Sequence[Any] = (),
) -> Update:
    """The functions of an update for any loss.

    The gradient has the structure of the parameters, and a scalar 0 for each that is frozen.

    Args:
        objective: (params, *inputs) -> loss to be minimised, and its diagnostics.
        optimizer: of the parameters.
        abstract_params: their shapes.
        freeze: see `evr1.optim.trainable`; no gradient is worked out for these parameters.
        mesh: where everything lies; None: one device.
        layout: sharding of each parameter; None: that of `evr1.parallel.sharding`.
        inputs: sharding of each input of the objective, on a mesh.
    """

    is_on = trainable(abstract_params, freeze)

    def hollow(params):
        """The parameters with a scalar in the place of each that is frozen."""
        return jax.tree.map(lambda x, on: x if on else jnp.zeros((), x.dtype), params, is_on)

    def filled(trained, params):
        return jax.tree.map(lambda new, old, on: new if on else old, trained, params, is_on)

    def accumulate(params, grads, *inputs):
        def loss(trained):
            return objective(filled(trained, params), *inputs)

        new, sums = jax.grad(loss, has_aux=True)(hollow(params))
        return jax.tree.map(jnp.add, grads, new), sums

    def apply(state, grads):
        norm = optax.global_norm(grads)
        is_finite = jnp.isfinite(norm)
        old = state._replace(params=hollow(state.params))
        updates, opt_state = optimizer.update(grads, old.opt_state, old.params)
        new = TrainState(old.step + 1, optax.apply_updates(old.params, updates), opt_state)
        new = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), new, old)
        state = new._replace(params=filled(new.params, state.params))
        return state, {"optim/grad_norm": norm, "optim/is_finite": is_finite}

    def zeros(params):
        return jax.tree.map(jnp.zeros_like, hollow(params))

    if mesh is None:
        return Update(
            jax.jit(zeros),
            jax.jit(accumulate, donate_argnums=1),
            jax.jit(apply, donate_argnums=0),
        )
    state = train_state_shardings(abstract_params, optimizer, mesh, layout)
    everywhere = sharding.replicated(mesh)
    grads = jax.tree.map(lambda place, on: place if on else everywhere, state.params, is_on)
    return Update(
        jax.jit(zeros, out_shardings=grads),
        jax.jit(
            on_mesh(accumulate, mesh),
            in_shardings=(state.params, grads, *inputs),
            out_shardings=(grads, everywhere),
            donate_argnums=1,
        ),
        jax.jit(
            apply,
            in_shardings=(state, grads),
            out_shardings=(state, everywhere),
            donate_argnums=0,
        ),
    )


def batch_loss(
    model: Model,
    params: Params,
    hidden: Float[Array, "g n r d"],
    batch: GroupBatch,
    loss: LossConfig,
) -> tuple[Float[Array, ""], Sums]:
    """sum(loss_weights * per-token loss), and the diagnostics.

    `policy/loss` is the weighted mean of the per-token loss.
    """
    mask = batch.completion_mask
    logprobs, entropy = token_logprobs(
        model,
        params,
        hidden,
        batch.completions,
        loss.temperature,
        has_entropy_gradient=bool(loss.entropy_coef),
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
    """The load-balancing loss of a microbatch times its share of the loss weights, and metrics.

    Balance is no mean over tokens: that of a minibatch is the weighted mean of its microbatches'.
    """
    g, p = batch.prompts.tokens.shape
    in_prompt = jnp.arange(p)[None] < batch.prompts.lengths[:, None]
    mask = jnp.concatenate([in_prompt, batch.completion_mask.reshape(g, -1)], axis=1)
    found = router_metrics(router, per_token, mask)
    tokens = jnp.sum(mask, dtype=jnp.float32)
    sums = {
        "router/balance": (jax.lax.stop_gradient(found.balance_loss) * tokens, tokens),
        "router/entropy": (jax.lax.stop_gradient(found.entropy) * tokens, tokens),
        "router/load_max": (jax.lax.stop_gradient(found.max_load), jnp.ones(())),
    }
    share = jnp.sum(jnp.where(batch.completion_mask, batch.loss_weights, 0))
    return found.balance_loss * share, sums


def token_logprobs(
    model: Model,
    params: Params,
    hidden: Float[Array, "g n r d"],
    tokens: Int[Array, "g n r"],
    temperature: float = 1.0,
    *,
    has_entropy_gradient: bool = False,
) -> tuple[Float[Array, "g n r"], Float[Array, "g n r"]]:
    """Log-probability of every token and the entropy of its distribution (nats; no gradient flows
    through it unless asked for).

    Logits exist only for some token positions of every completion at a time, in the backward pass
    too: at most LOGITS_BYTES for each group. Axis 0 is left alone, so that groups stay spread over
    the devices.
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
    chunks = math.ceil(n * r * vocab * 4 / LOGITS_BYTES)
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


def on_mesh(function: Callable, mesh: jax.sharding.Mesh) -> Callable:
    """The function traced with the mesh in view, so that the model can constrain activations."""

    @functools.wraps(function)
    def traced(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def train_state_shardings(
    params: Params,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    layout: Any = None,
) -> Any:
    """The sharding of every leaf of a TrainState, as a TrainState; `layout` is of the parameters,
    by default that of `evr1.parallel.sharding`.
    """
    layout = sharding.param_shardings(mesh, params) if layout is None else layout
    everywhere = sharding.replicated(mesh)
    placed = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, layout
    )
    opt_state = jax.eval_shape(optimizer.init, params)
    moments: Any = state_shardings(opt_state, placed, everywhere)
    step: Any = everywhere
    return TrainState(step, layout, moments)

"""Updates: gradients of microbatches are added, then the optimizer moves the parameters.

A rollout batch is one or more minibatches (an update each), a minibatch is microbatches that fit
the memory (`evr1.batch.cut`). The loss weights already hold the denominators of the whole
minibatch, so gradients are added and never averaged. `evr1.learner.learner` loops over both.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from evr1.learner.loss import balance_term, batch_loss, token_logprobs
from evr1.learner.optimizer import abstract_state, moved, state_shardings, trainable
from evr1.models import Model
from evr1.parallel import sharding
from evr1.rl.diagnostics import Sums
from evr1.rl.losses import LossConfig
from evr1.types import Params, Prompts


class TrainState(NamedTuple):
    """What an update changes."""

    updates: jax.Array  # int32[], optimizer updates done
    params: Params
    opt_state: optax.OptState


class Placement(NamedTuple):
    """Where the arrays of an update lie on a mesh."""

    mesh: jax.sharding.Mesh
    params: Any  # sharding of each parameter
    inputs: tuple[Any, ...] = ()  # sharding of each further input of the objective


class Update(NamedTuple):
    """The jitted parts of an update. `accumulate` donates `grads`, `apply` donates `state`.

    A minibatch of one part needs no sum: `accumulate(params, None, part)` takes one gradient less
    of memory than a sum that starts at `zeros`.
    """

    zeros: Callable[[Params], Params]  # zero gradients (scalar zeros for frozen parameters)
    accumulate: Callable[..., tuple[Params, Sums]]  # (params, grads or None, *inputs of the loss)
    apply: Callable[[TrainState, Params], tuple[TrainState, dict[str, jax.Array]]]


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh | None = None,
    layout: Any = None,
) -> TrainState:
    """Returns the state before the first update; moments are laid out as their parameters.

    Args:
        params: already in their place when there is a mesh. The state holds these very arrays, and
            `apply` gives them away: copy them first where a reference policy is needed.
        optimizer: of `evr1.learner.optimizer`.
        mesh: where the parameters lie; None: one device.
        layout: sharding of each parameter; None: the one that it has.
    """
    if mesh is None:
        # Everything is committed to the device, as it is after `apply`: for inputs that are not,
        # the second update would be compiled anew. Kept arguments pass that on to what is made.
        params = jax.device_put(params, jax.local_devices()[0])
        init = jax.jit(lambda p: (jnp.zeros((), jnp.int32), optimizer.init(p)), keep_unused=True)
        updates, opt_state = init(params)
        return TrainState(updates, params, opt_state)
    shardings = train_state_shardings(params, optimizer, mesh, layout)
    updates = jax.device_put(np.zeros((), np.int32), shardings.updates)
    init = jax.jit(optimizer.init, out_shardings=shardings.opt_state)
    return TrainState(updates, params, init(params))


def make_logprobs(
    model: Model,
    *,
    temperature: float = 1.0,
    mesh: jax.sharding.Mesh | None = None,
    has_entropy: bool = False,
) -> Callable[[Params, Prompts, Int[Array, "g n r"]], Any]:
    """Returns the jitted log p(completions[g, n, t] | prompt g, completions[g, n, :t]).

    It gives float32[G, N, R]; with `has_entropy` a pair of these and of the entropies.

    Args:
        model: whose parameters the function takes.
        temperature: what the logits are divided by.
        mesh: where parameters and batches lie; None: one device.
        has_entropy: also return the entropy of each token's distribution, in nats.
    """

    def logprobs(params, prompts, completions):
        hidden = model.group_hidden(params, prompts, completions)
        both = token_logprobs(model, params, hidden, completions, temperature)
        return both if has_entropy else both[0]

    if mesh is None:
        return jax.jit(logprobs)
    batch = sharding.batch_sharding(mesh)
    params = model.shardings(mesh)
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
    """Returns the functions of an update of the policy.

    `accumulate(params, grads, microbatch)` adds the microbatch's gradient to `grads` (None: to
    nothing) and returns its (sum, count) diagnostics. `apply(state, grads)` clips, updates, and
    reports `optim/grad_norm` (before clipping) and `optim/is_finite`; where the gradient is not
    finite the state comes back unchanged, so that the caller can stop, name the step and still
    save.

    Args:
        model: what is trained.
        optimizer: made with the same `freeze`.
        loss: the loss, its temperature included.
        freeze: see `evr1.learner.optimizer.trainable`; these parameters get no gradient.
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

    abstract, placement = model.abstract_params(), None
    if mesh is not None:
        placement = Placement(mesh, model.shardings(mesh), (sharding.batch_sharding(mesh),))
    return compile_update(objective, optimizer, abstract, freeze=freeze, placement=placement)


def compile_update(
    objective: Callable[..., tuple[jax.Array, Sums]],
    optimizer: optax.GradientTransformation,
    abstract_params: Params,
    *,
    freeze: Sequence[str] = (),
    placement: Placement | None = None,
) -> Update:
    """Returns the functions of an update for any loss.

    The gradient has the structure of the parameters, and a scalar 0 for each that is frozen.

    Args:
        objective: (params, *inputs) -> loss to be minimised, and its diagnostics.
        optimizer: of the parameters.
        abstract_params: their shapes.
        freeze: see `evr1.learner.optimizer.trainable`; these parameters get no gradient.
        placement: where everything lies on a mesh; None: one device.
    """

    is_on = trainable(abstract_params, freeze)

    def hollow(params):
        """Returns the parameters with a scalar in the place of each that is frozen."""
        return jax.tree.map(lambda x, on: x if on else jnp.zeros((), x.dtype), params, is_on)

    def filled(trained, params):
        return jax.tree.map(lambda new, old, on: new if on else old, trained, params, is_on)

    def accumulate(params, grads, *inputs):
        def loss(trained):
            return objective(filled(trained, params), *inputs)

        new, sums = jax.grad(loss, has_aux=True)(hollow(params))
        return new if grads is None else jax.tree.map(jnp.add, grads, new), sums

    def apply(state, grads):
        norm = optax.tree.norm(grads)
        is_finite = jnp.isfinite(norm)
        old = state._replace(params=hollow(state.params), opt_state=moved(state.opt_state))
        updates, opt_state = optimizer.update(grads, old.opt_state, old.params)
        new = TrainState(old.updates + 1, optax.apply_updates(old.params, updates), opt_state)
        new = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), new, old)
        opt_state = moved(new.opt_state, state.opt_state)
        state = new._replace(params=filled(new.params, state.params), opt_state=opt_state)
        return state, {"optim/grad_norm": norm, "optim/is_finite": is_finite}

    def zeros(params):
        return jax.tree.map(jnp.zeros_like, hollow(params))

    functions = Update(zeros, accumulate, apply)
    if placement is None:
        return Update(
            jax.jit(zeros, keep_unused=True),  # see init_state
            jax.jit(accumulate, donate_argnums=1),
            jax.jit(apply, donate_argnums=0),
        )
    state = train_state_shardings(abstract_params, optimizer, placement.mesh, placement.params)
    return _placed_update(functions, state, is_on, placement)


def _placed_update(functions: Update, state: Any, is_on: Params, placement: Placement) -> Update:
    """Returns the functions jitted for a mesh.

    Args:
        functions: of the update.
        state: sharding of every leaf of the TrainState.
        is_on: which parameters are trained.
        placement: of everything else.
    """
    mesh, everywhere = placement.mesh, sharding.replicated(placement.mesh)
    grads = jax.tree.map(lambda place, on: place if on else everywhere, state.params, is_on)
    accumulate = functools.partial(
        jax.jit,
        on_mesh(functions.accumulate, mesh),
        out_shardings=(grads, everywhere),
        donate_argnums=1,
    )
    return Update(
        jax.jit(functions.zeros, out_shardings=grads),
        _Accumulate(
            accumulate(in_shardings=(state.params, None, *placement.inputs)),
            accumulate(in_shardings=(state.params, grads, *placement.inputs)),
        ),
        jax.jit(
            functions.apply,
            in_shardings=(state, grads),
            out_shardings=(state, everywhere),
            donate_argnums=0,
        ),
    )


class _Accumulate(NamedTuple):
    """`accumulate` jitted twice: what is not there has no place on a mesh."""

    only: Any  # of None
    further: Any  # of a sum

    def __call__(self, params: Params, grads: Params | None, *inputs: Any) -> tuple[Params, Sums]:
        return self._of(grads)(params, grads, *inputs)

    def trace(self, params: Params, grads: Params | None, *inputs: Any) -> Any:
        """Returns the program for these arguments, traced."""
        return self._of(grads).trace(params, grads, *inputs)

    def lower(self, params: Params, grads: Params | None, *inputs: Any) -> Any:
        """Returns the program for these arguments, lowered."""
        return self._of(grads).lower(params, grads, *inputs)

    def eval_shape(self, params: Params, grads: Params | None, *inputs: Any) -> Any:
        """Returns the shapes of the results."""
        return self._of(grads).eval_shape(params, grads, *inputs)

    def _of(self, grads: Params | None) -> Any:
        return self.only if grads is None else self.further


def on_mesh(function: Callable, mesh: jax.sharding.Mesh) -> Callable:
    """Returns the function traced with the mesh in view: the model can constrain activations."""

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
    """Returns the sharding of every leaf of a TrainState, as a TrainState.

    Args:
        params: arrays or their shapes.
        optimizer: of the parameters.
        mesh: of the devices.
        layout: sharding of each parameter; None: the one that it has.
    """
    layout = jax.tree.map(lambda x: x.sharding, params) if layout is None else layout
    everywhere = sharding.replicated(mesh)
    placed = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, layout
    )
    opt_state, is_host = abstract_state(optimizer, params)
    moments: Any = state_shardings(opt_state, placed, everywhere)
    moments = jax.tree.map(
        lambda s, host: s.with_memory_kind("pinned_host") if host else s, moments, is_host
    )
    updates: Any = everywhere
    return TrainState(updates, layout, moments)

"""The critic: what a state is worth, for `algorithm.advantage=gae`.

A linear head on the hidden state that predicts a token gives the value of the state before it. The
hidden states are those of a network of its own, or the policy's.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from evr1.config import CriticSettings
from evr1.learner.update import (
    Placement,
    TrainState,
    Update,
    compile_update,
    init_state,
    on_mesh,
)
from evr1.models import Model
from evr1.parallel import sharding
from evr1.rl.diagnostics import Sums
from evr1.rl.value_loss import value_loss
from evr1.types import GroupBatch, Params


@dataclasses.dataclass(frozen=True)
class Critic:
    """The compiled parts of a critic.

    Attributes:
        is_shared: it reads the policy's hidden states, and its gradient ends there: the policy's
            loss alone shapes the trunk. Its parameters are the head's.
        has_policy_tower: features of the policy's vision tower are those of its own.
        values: (params, policy_params, prompts, completions) -> float32[G, N, R], the value of the
            state before each token.
        update: `accumulate` takes (params, grads, policy_params, microbatch). Loss weights are the
            batch's own, so values and policy count a token alike.
        init: state of the start, from the parameters of its trunk (given away; None if shared).
        optimizer: of its parameters.

    `policy_params` are None where the trunk is its own.
    """

    is_shared: bool
    has_policy_tower: bool
    values: Callable
    update: Update
    init: Callable[[Params | None], TrainState]
    optimizer: optax.GradientTransformation


def make_critic(
    model: Model,
    optimizer: optax.GradientTransformation,
    settings: CriticSettings,
    *,
    has_policy_tower: bool = False,
    freeze: Sequence[str] = (),
    mesh: jax.sharding.Mesh | None = None,
) -> Critic:
    """Returns a critic of this model's shape; nothing is compiled yet.

    Args:
        model: of the policy.
        optimizer: made for the parameters {"trunk", "head"}, with the same `freeze`.
        settings: give the trunk and the clip of the value loss.
        has_policy_tower: see `Critic`.
        freeze: patterns of the critic's parameters, see `frozen`; no gradient is worked out for
            what they match.
        mesh: where parameters and batches lie; None: one device.
    """

    is_shared, clip = settings.trunk == "shared", settings.clip

    def values_of(params, policy_params, prompts, completions):
        trunk = jax.lax.stop_gradient(policy_params) if is_shared else params["trunk"]
        hidden = model.group_hidden(trunk, prompts, completions).astype(jnp.float32)
        head = params["head"]
        return jnp.einsum("gnrd,d->gnr", hidden, head["kernel"]) + head["bias"]

    def objective(params, policy_params, batch: GroupBatch) -> tuple[jax.Array, Sums]:
        values = values_of(params, policy_params, batch.prompts, batch.completions)
        mask = batch.completion_mask
        loss, sums = value_loss(values, batch.old_values, batch.returns, mask, clip)
        return jnp.sum(jnp.where(mask, batch.loss_weights * loss, 0)), sums

    placement, values = None, jax.jit(values_of)
    if mesh is not None:
        layout = param_layout(model, mesh, is_shared=is_shared)
        batch = sharding.batch_sharding(mesh)
        policy = model.shardings(mesh) if is_shared else None
        placement = Placement(mesh, layout, (policy, batch))
        values = jax.jit(
            on_mesh(values_of, mesh),
            in_shardings=(layout, policy, batch, batch),
            out_shardings=batch,
        )
    update = compile_update(
        objective,
        optimizer,
        abstract_params(model, is_shared=is_shared),
        freeze=freeze,
        placement=placement,
    )

    def init(trunk: Params | None) -> TrainState:
        params = first_params(model, trunk)
        if placement is None:
            return init_state(params, optimizer)
        params = jax.device_put(params, placement.params)
        return init_state(params, optimizer, placement.mesh, placement.params)

    return Critic(is_shared, has_policy_tower, values, update, init, optimizer)


def first_params(model: Model, trunk: Params | None) -> Params:
    """Returns the trunk, and a head whose values are all 0."""
    shapes = abstract_params(model, is_shared=True)["head"]
    # On the host: an array put from one device on those of several hosts has no shards.
    head = {name: np.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    return {"head": head} if trunk is None else {"trunk": trunk, "head": head}


def abstract_params(model: Model, *, is_shared: bool) -> Params:
    """Returns the shapes of the critic's parameters."""
    width = model.config.width
    head = {
        "kernel": jax.ShapeDtypeStruct((width,), jnp.float32),
        "bias": jax.ShapeDtypeStruct((), jnp.float32),
    }
    return {"head": head} if is_shared else {"trunk": model.abstract_params(), "head": head}


def param_layout(model: Model, mesh: jax.sharding.Mesh, *, is_shared: bool) -> Any:
    """Returns each parameter's sharding: the trunk's as the policy's, the head on every device."""
    everywhere = sharding.replicated(mesh)
    layout: dict[str, Any] = {"head": {"kernel": everywhere, "bias": everywhere}}
    if not is_shared:
        layout["trunk"] = model.shardings(mesh)
    return layout


def frozen(freeze: Sequence[str]) -> tuple[str, ...]:
    """Returns the patterns of `optim.freeze` for a critic's own trunk."""
    return tuple(f"trunk/(?:{pattern})" for pattern in freeze)

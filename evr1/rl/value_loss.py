"""The loss of a critic on every token."""

import jax
import jax.numpy as jnp

from evr1.rl.diagnostics import Sums, masked


def value_loss(
    values: jax.Array, old_values: jax.Array, returns: jax.Array, mask: jax.Array, clip: float
) -> tuple[jax.Array, Sums]:
    """Returns max((v - R)**2, (clipped v - R)**2) / 2 on the mask, 0 elsewhere.

    v is clipped to old_values +- clip.

    v = 1, old 0, R = 2, clip .2: the clipped value .2 is further off, so 1.62, and no gradient.

    Args:
        values: float32[G, N, R], of the critic that is trained.
        old_values: of the critic before the first update of the rollout batch.
        returns: what they should be.
        mask: trained tokens.
        clip: 0: not clipped.

    Source: 1707.06347 as in its code; verl and EasyR1 likewise.
    """
    values = jnp.where(mask, values, 0)
    error = jnp.square(values - returns)
    sums = {"critic/value": masked(values, mask), "critic/return": masked(returns, mask)}
    loss = error
    if clip:
        near = jnp.square(jnp.clip(values, old_values - clip, old_values + clip) - returns)
        loss = jnp.maximum(error, near)
        sums["critic/clip_share"] = masked(near > error, mask)
    loss = jnp.where(mask, loss / 2, 0)
    return loss, sums | {"critic/loss": masked(loss, mask)}

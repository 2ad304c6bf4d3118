"""The two ends of a text model: tokens and visual tokens in, logits out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evr1.models.nn import layers
from evr1.parallel import sharding
from evr1.types import Params, Visual


def place(
    features: Float[Array, "g v d"], index: Int[Array, "g p"], dtype: jnp.dtype
) -> Float[Array, "g p d"]:
    """Returns features[g, index[g, p]], and 0 where the index is -1.

    Where devices share a group, each has some of its features: they come together to be picked.
    """

    def pick(features, index):
        picked = jax.vmap(lambda f, i: f[jnp.maximum(i, 0)])(features, index).astype(dtype)
        return jnp.where((index >= 0)[..., None], picked, jnp.zeros((), dtype))

    if sharding.context_size() == 1:
        return pick(features, index)
    mesh = jax.sharding.get_abstract_mesh()
    held, wanted = (sharding.spec(mesh, ("batch", "tokens"), x.shape) for x in (features, index))

    def gathered(features, index):
        if held[1] is not None:
            features = jax.lax.all_gather(features, held[1], axis=1, tiled=True)
        return pick(features, index)

    places = (held, wanted)
    return jax.shard_map(gathered, mesh=mesh, in_specs=places, out_specs=wanted)(features, index)


def embed(
    params: Params,
    tokens: Int[Array, "g p"],
    visual: Visual,
    visual_index: Int[Array, "g p"],
    dtype: jnp.dtype,
) -> Float[Array, "g p d"]:
    """Returns token embeddings with the visual tokens in their places."""
    x = params["embed"][tokens].astype(dtype)
    if sharding.context_size() > 1:
        # From channels to tokens and then to groups: each is an exchange, both at once are none.
        x = sharding.constrain(x, "copies", "tokens", "embed")
        x = sharding.constrain(x, "batch", "tokens")
    if visual.embeds.shape[1] == 0:
        return x
    is_visual = (visual_index >= 0)[..., None]
    return jnp.where(is_visual, place(visual.embeds, visual_index, dtype), x)


def logits(params: Params, hidden: Float[Array, "... d"], *, tied: bool) -> Float[Array, "... v"]:
    """Returns float32 logits; the product accumulates in float32 whatever the computation's dtype.

    Args:
        params: of the text model.
        hidden: after the final norm.
        tied: the embeddings are the head.
    """
    kernel = params["embed"].T if tied else params["head"]
    return layers.matmul(hidden, kernel, accumulate=jnp.float32)

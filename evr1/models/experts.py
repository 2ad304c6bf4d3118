"""The mixture-of-experts feed-forward: every token goes to its experts, whatever their load.

Source: Qwen3VLMoeTextSparseMoeBlock and load_balancing_loss_func, transformers 5.23.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from evr1.models import layers
from evr1.parallel import sharding

SLAB = 8192  # tokens of a device that its experts work on at the same time


class Experts(nnx.Module):
    """A router and E SwiGLU experts, stacked."""

    def __init__(
        self,
        width: int,
        mlp_width: int,
        count: int,
        per_token: int,
        scale: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.router = layers.Linear(width, count, scale=scale, bias=False, rngs=rngs)
        self.gate_up = _kernel(rngs, scale, count, width, 2 * mlp_width)
        self.down = _kernel(rngs, scale, count, mlp_width, width)
        self.per_token = per_token

    def __call__(
        self, x: Float[Array, "b t d"]
    ) -> tuple[Float[Array, "b t d"], Float[Array, "b t e"]]:
        """The output, and the router's logits."""
        logits = self.router(x)
        chosen, weights = route(logits, self.per_token)
        gate_up, down = self.gate_up.get_value(), self.down.get_value()
        return dispatch(x, chosen, weights, gate_up, down), logits


def _kernel(rngs: nnx.Rngs, scale: float, *shape: int) -> nnx.Param:
    return nnx.Param(scale * jax.random.normal(rngs.params(), shape, jnp.float32))


def route(
    logits: Float[Array, "b t e"], per_token: int
) -> tuple[Int[Array, "b t k"], Float[Array, "b t k"]]:
    """The experts of each token, the best first, and their float32 weights, which sum to 1."""
    weights, chosen = jax.lax.top_k(jax.nn.softmax(logits.astype(jnp.float32), axis=-1), per_token)
    return chosen, weights / weights.sum(axis=-1, keepdims=True)


def dispatch(
    x: Float[Array, "b t d"],
    chosen: Int[Array, "b t k"],
    weights: Float[Array, "b t k"],
    gate_up: layers.Matrix,
    down: layers.Matrix,
) -> Float[Array, "b t d"]:
    """The weighted sum of each token's experts, gate_up being [E, D, F] and down [E, H, D].

    On a mesh a device holds some experts and all tokens of its batch rows: it works out what its
    own experts add, and one sum over the devices of a row puts that together.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _own_share(x, chosen, weights, gate_up, down, 0)
    axes = sharding.LOGICAL["expert"]
    ways = math.prod(mesh.shape[name] for name in axes)
    count = len(jax.tree.leaves(gate_up)[0])
    is_split = ways > 1 and count % ways == 0
    share = count // ways if is_split else 0

    def local(x, chosen, weights, gate_up, down):
        first = jax.lax.axis_index(axes) * share if is_split else 0
        out = _own_share(x, chosen, weights, gate_up, down, first)
        return jax.lax.psum(out, axes) if is_split else out

    rows = sharding.spec(mesh, ("batch",), x.shape)
    held = PartitionSpec(axes) if is_split else PartitionSpec()
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(rows, rows, rows, held, held),
        out_specs=rows,
        check_vma=False,  # the grouped product has no rule for it
    )(x, chosen, weights, gate_up, down)


def _own_share(x, chosen, weights, gate_up, down, first) -> jax.Array:
    """What the experts first, first + 1, ... add to every token, a slab of tokens at a time.

    Of a slab the backward pass keeps what a product gave; the rows of its experts are taken anew.
    """
    size = x.shape[:2]
    x, chosen, weights = (y.reshape(-1, y.shape[-1]) for y in (x, chosen - first, weights))
    count = len(x)
    if count <= SLAB:
        return _slab(x, chosen, weights, gate_up, down).reshape(*size, -1)

    def split(y: jax.Array, fill: int) -> jax.Array:
        y = jnp.pad(y, ((0, -count % SLAB), (0, 0)), constant_values=fill)
        return y.reshape(-1, SLAB, y.shape[-1])

    def one(slab: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return _slab(*slab, gate_up, down)

    keep = jax.checkpoint_policies.save_only_these_names("product")
    slabs = split(x, 0), split(chosen, -1), split(weights, 0)  # what is added has no expert
    out = jax.lax.map(jax.checkpoint(one, policy=keep), slabs)
    return out.reshape(-1, out.shape[-1])[:count].reshape(*size, -1)


def _slab(
    x: Float[Array, "t d"],
    chosen: Int[Array, "t k"],
    weights: Float[Array, "t k"],
    gate_up: layers.Matrix,
    down: layers.Matrix,
) -> Float[Array, "t d"]:
    """What the experts 0, 1, ... of these kernels add to every token; other numbers add nothing.

    Assignments are sorted by expert, so each expert's tokens are one run of rows. With experts 0
    and 1 here and chosen = [[1, 2], [0, 1]]: experts [1, 2, 0, 1] sort to rows 2, 0, 3 and the
    foreign 1 last; the runs are 1 and 2 rows long.
    """
    k, count = chosen.shape[-1], len(jax.tree.leaves(gate_up)[0])
    expert = chosen.reshape(-1)
    expert = jnp.where((expert >= 0) & (expert < count), expert, count)
    order = jnp.argsort(expert, stable=True)
    sizes = jnp.bincount(expert, length=count + 1)[:count].astype(jnp.int32)
    is_own = (jnp.arange(len(order)) < sizes.sum())[:, None]
    rows = jnp.where(is_own, x[order // k], 0)

    def product(rows, kernels):
        if isinstance(kernels, layers.Adapted):
            change = product(product(rows, kernels.a), kernels.b)
            return product(rows, kernels.kernel) + change
        kernels = kernels.astype(x.dtype)
        out = jax.lax.ragged_dot(rows, kernels, sizes, precision=layers.precision(x.dtype))
        return checkpoint_name(out, "product")

    gate, up = jnp.split(product(rows, gate_up), 2, axis=-1)
    # Rows past the last run are not defined on every machine.
    out = jnp.where(is_own, product(layers.silu(gate) * up, down), 0)
    out = out[jnp.argsort(order)].reshape(*chosen.shape, -1).astype(jnp.float32)
    return (out * weights[..., None]).sum(axis=1).astype(x.dtype)


class RouterMetrics(NamedTuple):
    """How the tokens are spread over the experts.

    Attributes:
        load: float32[E], share of the assignments; they sum to 1.
        max_load: the largest share times E: 1 when even.
        entropy: of a token's distribution over the experts, mean, in nats.
        balance_loss: see `balance_loss`.
    """

    load: jax.Array
    max_load: jax.Array
    entropy: jax.Array
    balance_loss: jax.Array


def balance_loss(
    logits: Float[Array, "l b t e"], per_token: int, mask: Bool[Array, "b t"]
) -> Float[Array, ""]:
    """The auxiliary load-balancing loss of all layers together; `per_token` when even.

    E * sum over experts of (assignments a token) * (mean probability), both over layers and masked
    tokens. The counts have no gradient.

    Source: Switch Transformers, arXiv 2101.03961, equations 4 to 6, as transformers computes it.
    """
    counts, chances = _spread(logits, per_token, mask)
    return logits.shape[-1] * jnp.sum(counts * chances)


def router_metrics(
    logits: Float[Array, "l b t e"], per_token: int, mask: Bool[Array, "b t"]
) -> RouterMetrics:
    """The spread of masked tokens over the experts, all layers together."""
    counts, _ = _spread(logits, per_token, mask)
    load = counts / per_token
    logprobs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    entropy = -(jnp.exp(logprobs) * logprobs).sum(axis=-1)
    total = jnp.maximum(mask.sum() * len(logits), 1)
    return RouterMetrics(
        load=load,
        max_load=load.max() * logits.shape[-1],
        entropy=jnp.where(mask[None], entropy, 0).sum() / total,
        balance_loss=balance_loss(logits, per_token, mask),
    )


def _spread(logits, per_token, mask) -> tuple[jax.Array, jax.Array]:
    """Assignments and probability of each expert, mean over layers and masked tokens."""
    chances = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    _, chosen = jax.lax.top_k(chances, per_token)
    share = mask.astype(jnp.float32)[None] / jnp.maximum(mask.sum() * len(logits), 1)
    share = jnp.broadcast_to(share, logits.shape[:3])
    counts = jnp.zeros(logits.shape[-1]).at[chosen].add(share[..., None])
    return counts, (chances * share[..., None]).sum(axis=(0, 1, 2))

"""The mixture-of-experts feed-forward: every token goes to its experts, whatever their load.

Source: Qwen3VLMoeTextSparseMoeBlock, Qwen3_5MoeSparseMoeBlock and load_balancing_loss_func,
    transformers 5.24.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from evr1.models.nn import layers
from evr1.parallel import sharding

SLAB = 8192  # tokens of a device that its experts work on at the same time


@dataclasses.dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of experts.

    Attributes:
        per_token: experts that work on a token.
        mlp_width: of each expert.
        shared_width: of the expert that works on every token; 0: there is none.
        is_joined: gate and up of an expert are one kernel.
    """

    count: int
    per_token: int
    mlp_width: int
    shared_width: int = 0
    is_joined: bool = False


class Experts(nnx.Module):
    """A router and E SwiGLU experts, stacked; with or without a shared expert and its gate."""

    def __init__(self, width: int, c: ExpertsConfig, scale: float, *, rngs: nnx.Rngs):
        def stack(*shape: int) -> nnx.Param:
            return nnx.Param(scale * jax.random.normal(rngs.params(), shape, jnp.float32))

        opts = {"scale": scale, "bias": False, "rngs": rngs}
        self.router = layers.Linear(width, c.count, **opts)
        self.gate_up = stack(c.count, width, 2 * c.mlp_width) if c.is_joined else None
        self.gate = None if c.is_joined else stack(c.count, width, c.mlp_width)
        self.up = None if c.is_joined else stack(c.count, width, c.mlp_width)
        self.down = stack(c.count, c.mlp_width, width)
        has_shared = c.shared_width > 0
        self.shared = layers.Mlp(width, c.shared_width, scale, rngs=rngs) if has_shared else None
        self.shared_gate = layers.Linear(width, 1, **opts) if has_shared else None
        self.per_token = c.per_token

    @jax.named_scope("feed_forward")
    def __call__(
        self, x: Float[Array, "b t d"]
    ) -> tuple[Float[Array, "b t d"], Float[Array, "b t e"]]:
        """Returns the output, and the router's logits."""
        logits = self.router(x)
        chosen, weights = route(logits, self.per_token)
        routed = dispatch(x, chosen, weights, self._gate_up(x.dtype), self.down.get_value())
        if self.shared is None or self.shared_gate is None:
            return routed, logits
        return routed + jax.nn.sigmoid(self.shared_gate(x)) * self.shared(x), logits

    def _gate_up(self, dtype: jnp.dtype) -> layers.Matrix:
        if self.gate is None or self.up is None:
            assert self.gate_up is not None
            return self.gate_up.get_value()
        return layers.beside([self.gate.get_value(), self.up.get_value()], dtype)


def route(
    logits: Float[Array, "b t e"], per_token: int
) -> tuple[Int[Array, "b t k"], Float[Array, "b t k"]]:
    """Returns each token's experts, the best first, and their float32 weights, which sum to 1."""
    chances = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    _, chosen = jax.lax.top_k(jax.lax.stop_gradient(chances), per_token)
    # Compare instead of gather: its gradient is no scatter, which libtpu does not compile in a
    # loop that keeps its layers' inputs in the host's memory.
    is_chosen = chosen[..., None] == jnp.arange(chances.shape[-1])[(None,) * chosen.ndim]
    weights = jnp.where(is_chosen, chances[..., None, :], 0).sum(axis=-1)
    return chosen, weights / weights.sum(axis=-1, keepdims=True)


def dispatch(
    x: Float[Array, "b t d"],
    chosen: Int[Array, "b t k"],
    weights: Float[Array, "b t k"],
    gate_up: layers.Matrix,
    down: layers.Matrix,
) -> Float[Array, "b t d"]:
    """Returns the weighted sum of each token's experts; gate_up is [E, D, F], down [E, H, D].

    On a mesh a device holds some experts and all tokens of its batch rows: it works out what its
    own experts add, and one sum over the devices of a row puts that together. Where devices share
    the tokens of a row these come together before, and a device keeps the sum of its own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _own_share(x, chosen, weights, gate_up, down, 0)
    axes = sharding.LOGICAL["expert"]
    ways = math.prod(mesh.shape[name] for name in axes)
    count = len(jax.tree.leaves(gate_up)[0])
    is_split = ways > 1 and count % ways == 0
    share = count // ways if is_split else 0
    rows = sharding.spec(mesh, ("batch", "tokens"), x.shape)
    is_cut = is_split and rows[1] is not None and mesh.shape["context"] > 1
    summed = tuple(name for name in axes if not (is_cut and name == "context"))

    def local(x, chosen, weights, gate_up, down):
        first = jax.lax.axis_index(axes) * share if is_split else 0
        if is_cut:
            x, chosen, weights = (
                jax.lax.all_gather(y, "context", axis=1, tiled=True) for y in (x, chosen, weights)
            )
        out = _own_share(x, chosen, weights, gate_up, down, first)
        out = jax.lax.psum(out, summed) if is_split else out
        if is_cut:
            out = jax.lax.psum_scatter(out, "context", scatter_dimension=1, tiled=True)
        return out

    held = PartitionSpec(axes) if is_split else PartitionSpec()
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(rows, rows, rows, held, held),
        out_specs=rows,
        check_vma=False,  # the grouped product has no rule for it
    )(x, chosen, weights, gate_up, down)


def _own_share(x, chosen, weights, gate_up, down, first) -> jax.Array:
    """Returns what the experts first, first + 1, ... add to every token, slab after slab.

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
    slabs = split(x, 0), split(chosen, -1), split(weights, 0)  # padding has no expert
    out = jax.lax.map(jax.checkpoint(one, policy=keep), slabs)
    return out.reshape(-1, out.shape[-1])[:count].reshape(*size, -1)


def _slab(
    x: Float[Array, "t d"],
    chosen: Int[Array, "t k"],
    weights: Float[Array, "t k"],
    gate_up: layers.Matrix,
    down: layers.Matrix,
) -> Float[Array, "t d"]:
    """Returns what the experts 0, 1, ... of these kernels add to every token.

    Other numbers add nothing.

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
    """Returns the auxiliary load-balancing loss of all layers together; `per_token` when even.

    E * sum over experts of (assignments a token) * (mean probability), both over layers and masked
    tokens. The counts have no gradient.

    Source: Switch Transformers, arXiv 2101.03961, equations 4 to 6, as transformers computes it.
    """
    counts, chances = _spread(logits, per_token, mask)
    return logits.shape[-1] * jnp.sum(counts * chances)


def router_metrics(
    logits: Float[Array, "l b t e"], per_token: int, mask: Bool[Array, "b t"]
) -> RouterMetrics:
    """Returns the spread of masked tokens over the experts, all layers together."""
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
    """Returns assignments and probability of each expert, mean over layers and masked tokens."""
    chances = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    _, chosen = jax.lax.top_k(chances, per_token)
    share = mask.astype(jnp.float32)[None] / jnp.maximum(mask.sum() * len(logits), 1)
    share = jnp.broadcast_to(share, logits.shape[:3])
    counts = jnp.zeros(logits.shape[-1]).at[chosen].add(share[..., None])
    return counts, (chances * share[..., None]).sum(axis=(0, 1, 2))

"""A group whose tokens are shared by devices of the mesh axis `context`, in the order of
`evr1.models.nn.layout.order`.

A completion sees its prompt and itself, and it lies whole on one device: so all that travels in
attention are keys and values of the prompt. They come together layer by layer.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from evr1.models.nn.layout import Layout, Rule, order
from evr1.parallel import sharding

AXIS = "context"

# (q, k, v, which of its keys a query sees) -> attention output, of one device.
Dense = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def check(prompt: int, completions: int, devices: int) -> None:
    """Checks that a group can be shared.

    Raises:
        ValueError: the devices do not divide the completions, or their pieces the prompt.
    """
    if devices == 1:
        return
    if completions % devices:
        raise ValueError(
            f"mesh.context={devices} does not divide rollout.n={completions}: every device takes"
            " whole completions; change one of the two"
        )
    if prompt % (2 * devices):
        raise ValueError(
            f"mesh.context={devices} cuts a prompt into {2 * devices} pieces, which do not divide"
            f" {prompt} tokens; give shapes.prompt_tokens that are multiples of {2 * devices}"
        )


def share(
    prompt: Array, own: Array, devices: int, axis: int = 1
) -> Array:  # [..., P, ...], [..., N * R, ...] -> [..., T, ...]
    """Returns the tokens of a group in the order of the devices."""
    whole = jnp.concatenate([prompt, own], axis)
    places = order(prompt.shape[axis], whole.shape[axis], devices)
    return jnp.take(whole, jnp.asarray(places), axis)


def plain(x: Array, prompt: int, devices: int, axis: int) -> Array:
    """Returns the tokens of a group in the plain order: what undoes `share`."""
    back = np.argsort(order(prompt, x.shape[axis], devices))
    return jnp.take(x, jnp.asarray(back), axis)


def completions(
    hidden: Float[Array, "g t d"], prompt: int, n: int, devices: int
) -> Float[Array, "g n r d"]:
    """Returns the states of the completions; all stay where they are."""
    g, t, d = hidden.shape
    parts = hidden.reshape(g, devices, t // devices, d)[:, :, prompt // devices :]
    return sharding.constrain(parts.reshape(g, n, -1, d), "batch", "tokens")


def last(
    hidden: Float[Array, "g t d"], lengths: Int[Array, " g"], prompt: int, devices: int
) -> Float[Array, "g d"]:
    """Returns the states of the prompts' last tokens.

    A sum in which all others are 0: picked by its place, a state would bring all others along.
    """
    place = jnp.asarray(order(prompt, hidden.shape[1], devices))[None]
    is_last = (place == lengths[:, None] - 1)[..., None]
    return jnp.where(is_last, hidden, jnp.zeros((), hidden.dtype)).sum(axis=1)


def whole(x: Array, prompt: int, devices: int) -> Array:
    """Returns [G, P + own, ...] of a device's [G, T / devices, ...]: the prompt comes together.

    In the plain order, and the device's own completions behind it. For `shard_map`.
    """
    x, own = x[:, : prompt // devices], x[:, prompt // devices :]
    pieces = jax.lax.all_gather(x, AXIS, axis=1)
    pieces = pieces.reshape(x.shape[0], devices, 2, -1, *x.shape[2:])
    first, second = pieces[:, :, 0], jnp.flip(pieces[:, :, 1], axis=1)
    parts = [y.reshape(x.shape[0], -1, *x.shape[2:]) for y in (first, second)]
    return jnp.concatenate([*parts, own], axis=1)


def queries(rule: Rule, tokens: int) -> np.ndarray:
    """Returns int[C, T / C]: the places of each device's tokens among its own keys.

    These are [prompt | its own completions], whichever completions these are.

    >>> queries(Rule(True, prompt=8, completion=2, devices=2), 12).tolist()
    [[0, 1, 6, 7, 8, 9], [2, 3, 4, 5, 8, 9]]
    """
    places = order(rule.prompt, tokens, rule.devices).reshape(rule.devices, -1)
    own = places.shape[1] - rule.prompt // rule.devices
    places[:, places.shape[1] - own :] = rule.prompt + np.arange(own)
    return places


def attention(
    q: Float[Array, "b t h a"],
    k: Float[Array, "b t k a"],
    v: Float[Array, "b t k a"],
    layout: Layout,
    dense: Dense,
    block: int,
) -> Float[Array, "b t h a"]:
    """Returns attention under the layout of a shared group, in plain XLA.

    Args:
        q: queries, rotated.
        k: keys, rotated.
        v: values.
        layout: of a group that the devices of the mesh share.
        dense: the attention of some queries of a device to all of its keys.
        block: queries of a device that are worked on at a time.
    """
    rule, mesh = layout.rule, jax.sharding.get_abstract_mesh()
    heads = sharding.spec(mesh, ("batch", "tokens", "heads"), k.shape)
    rows = PartitionSpec(*heads[:2])
    places = jnp.asarray(queries(rule, q.shape[1]))
    local = Rule(rule.causal, rule.prompt, rule.completion)

    def run(q, k, v, ids, places):
        keys, values, key_ids = (whole(x, rule.prompt, rule.devices) for x in (k, v, ids))
        at = jnp.arange(keys.shape[1])[None]

        def part(some):
            q, ids, place = some
            seen = local.sees(place[:, None], at)[None] & (ids[:, :, None] == key_ids[:, None])
            return dense(q, keys, values, seen)

        return _by_blocks(part, (q, ids), places[0], block)

    return jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(heads, heads, heads, rows, PartitionSpec(AXIS)),
        out_specs=heads,
    )(q, k, v, layout.ids, places)


def _by_blocks(part: Callable, rows: tuple[Any, ...], places: jax.Array, block: int) -> jax.Array:
    """Returns part((*rows, places)) of so many tokens at a time; scores are worked out anew for
    the backward pass."""
    count = len(places)
    if count <= block:
        return part((*rows, places))

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 1, 0)
        x = jnp.pad(x, [(0, -count % block)] + [(0, 0)] * (x.ndim - 1), mode="edge")
        return jnp.moveaxis(x.reshape(-1, block, *x.shape[1:]), 2, 1)

    blocks = (*map(cut, rows), cut(places[None])[:, 0])
    out = jax.lax.map(jax.checkpoint(part), blocks)
    return jnp.moveaxis(out, 0, 1).reshape(out.shape[1], -1, *out.shape[3:])[:, :count]

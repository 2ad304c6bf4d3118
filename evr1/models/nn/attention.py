"""The attention of every model, behind one entry.

A `Layout` says who sees whom. Softmax is float32 everywhere. Keys and values are never repeated for
grouped queries.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from evr1.models.nn import blocked, context
from evr1.models.nn.layers import precision
from evr1.models.nn.layout import Layout, Rule, mask

IMPLEMENTATIONS = ("auto", "reference", "dense", "blocked", "splash", "splash_interpret")
# What a layer does with its (queries, keys, values, extra): training, prefill and decoding differ.
Attend = Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]

NEG = -1e30  # finite, so that a fully masked row gives numbers and not NaN

# Above this many bytes of scores on a device, `auto` works block by block.
DENSE_BYTES = 2**28
# On CPUs above this many tokens: blocks of scores that stay in the cache are 5 to 14 times faster
# than whole ones from 512 tokens on, forward and backward.
CPU_TOKENS, CPU_BYTES = 256, 2**18
CPU_KEYS = 2048  # at a time, where every query sees them all


@jax.named_scope("attention")
def attention(
    q: Float[Array, "b q h a"],
    k: Float[Array, "b t k a"],
    v: Float[Array, "b t k a"],
    layout: Layout,
    implementation: str = "auto",
) -> Float[Array, "b q h a"]:
    """Returns scaled dot-product attention under a layout; H is a multiple of K.

    Args:
        q: queries, rotated; of all T tokens, or of those that `layout.read` leaves.
        k: keys, rotated.
        v: values.
        layout: who sees whom.
        implementation: one of `IMPLEMENTATIONS`. auto: splash on TPU, else dense while the scores
            (on CPUs: the tokens) are few, else blocked. To compile for a TPU on another host, ask
            for splash.

    Raises:
        ValueError: no such implementation.
    """
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(IMPLEMENTATIONS)
        raise ValueError(f"attention implementation {implementation!r} is unknown; use {known}")
    if implementation == "auto":
        implementation = _choose(q.shape, k.shape[1], layout.rule)
    if implementation == "reference":
        return reference(q, k, v, layout)
    if implementation.startswith("splash"):
        # Imported where it is used: that takes longer than all other imports.
        from evr1.models.nn import splash

        return splash.attention(q, k, v, layout, interpret=implementation == "splash_interpret")
    if layout.rule.devices > 1:
        tokens = q.shape[1] if implementation == "dense" else _queries(q.shape, layout.rule)
        return context.attention(q, k, v, layout, _dense, tokens)
    if implementation == "blocked":
        shape = (k.shape[0], k.shape[1], q.shape[2])
        return blocked.attention(q, k, v, layout, _blocks(shape, k.shape[2], layout.rule))
    if layout.rule.completion:
        return _dense_group(q, k, v, layout)
    return _dense(q, k, v, mask(layout, q.shape[1]))


def reference(q: jax.Array, k: jax.Array, v: jax.Array, layout: Layout) -> jax.Array:
    """Returns attention by definition, in float32: what the others are tested against."""
    f32 = jnp.float32
    allowed = mask(layout, q.shape[1])
    return _dense(q.astype(f32), k.astype(f32), v.astype(f32), allowed).astype(q.dtype)


def _choose(shape: tuple[int, ...], keys: int, rule: Rule) -> str:
    if jax.default_backend() == "tpu":
        return "splash"
    b, queries, h, _ = shape
    if jax.default_backend() == "cpu" and queries > CPU_TOKENS:
        return "blocked"
    p, r = rule.prompt, rule.completion
    own = keys - p if r else 0  # queries of completions
    pairs = (queries - own) * (p if r else keys) + own * (p + r)
    return "dense" if 4 * b * h * pairs // _devices() <= DENSE_BYTES else "blocked"


def _blocks(shape: tuple[int, int, int], kv_heads: int, rule: Rule) -> blocked.Blocks:
    """Returns the largest blocks, 128 to 1024, whose scores fit the budget, or those for CPUs."""
    b, t, h = shape
    if jax.default_backend() == "cpu" and _devices() == 1:
        return _cpu_blocks(b * kv_heads, h // kv_heads, t, rule)
    if jax.default_backend() == "cpu":
        return blocked.Blocks(128 if 4 * b * h * 128**2 <= 8 * CPU_BYTES else 64)
    block = 1024
    while block > 128 and (4 * b * h * block**2 // _devices() > DENSE_BYTES or block >= 2 * t):
        block //= 2
    return blocked.Blocks(block)


def _queries(shape: tuple[int, ...], rule: Rule) -> int:
    """Returns how many queries of a device meet all of its keys at a time, 16 to 1024."""
    b, t, h, _ = shape
    keys = rule.prompt + (t - rule.prompt) // rule.devices
    row = 4 * b * h * keys * rule.devices // _devices()
    return min(1024, max(16, DENSE_BYTES // row // 16 * 16))


def _cpu_blocks(heads: int, shared: int, tokens: int, rule: Rule) -> blocked.Blocks:
    """Returns blocks of few heads, which stay in the cache; without a rule of long rows of keys.

    Args:
        heads: key heads of all prompts.
        shared: query heads to each.
        tokens: T.
        rule: of the layout.
    """
    queries, span = 128, 1
    if not rule.causal:  # as little padding as there may be
        count = -(-tokens // 128)
        queries = 8 * -(-tokens // (8 * count))
        span = -(-count // -(-tokens // CPU_KEYS))
    most = max(1, CPU_BYTES // (4 * shared * queries**2 * span))
    few = max(n for n in range(1, heads + 1) if heads % n == 0 and n <= most)
    return blocked.Blocks(queries, span, few)


def _devices() -> int:
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def _scores(spec: str, q: jax.Array, k: jax.Array) -> jax.Array:
    """Returns scaled float32 scores."""
    s = jnp.einsum(spec, q, k, precision=precision(q.dtype), preferred_element_type=jnp.float32)
    return s * q.shape[-1] ** -0.5


def _dense(q: jax.Array, k: jax.Array, v: jax.Array, allowed: jax.Array) -> jax.Array:
    b, t, h, a = q.shape
    q = q.reshape(b, t, k.shape[2], -1, a)
    scores = jnp.where(allowed[:, None, None], _scores("btkha,bska->bkhts", q, k), NEG)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("bkhts,bska->btkha", weights, v, precision=precision(q.dtype))
    return out.reshape(b, t, h, a)


def _dense_group(q: jax.Array, k: jax.Array, v: jax.Array, layout: Layout) -> jax.Array:
    """Returns the attention of a group.

    The prompt sees itself; every completion sees the prompt and itself, and not the others.
    """
    p, r = layout.rule.prompt, layout.rule.completion
    b, queries, h, a = q.shape
    n, kv = (k.shape[1] - p) // r, k.shape[2]
    read = queries - n * r  # tokens of the prompt that are queries
    prompt_ids = layout.ids[:, :p]
    seen = mask(Layout(Rule(True), prompt_ids), read)
    prompt = _dense(q[:, :read], k[:, :p], v[:, :p], seen)
    q = q[:, read:].reshape(b, n, r, kv, h // kv, a)
    own_k, own_v = (x[:, p:].reshape(b, n, r, kv, a) for x in (k, v))
    real = (prompt_ids != 0)[:, None, None, None, None]
    causal = np.tril(np.ones((r, r), bool))[None, None, None, None]
    far = jnp.where(real, _scores("bnrkha,bpka->bkhnrp", q, k[:, :p]), NEG)
    near = jnp.where(causal, _scores("bnrkha,bnska->bkhnrs", q, own_k), NEG)
    weights = jax.nn.softmax(jnp.concatenate([far, near], axis=-1), axis=-1).astype(v.dtype)
    prec = precision(q.dtype)
    out = jnp.einsum("bkhnrp,bpka->bnrkha", weights[..., :p], v[:, :p], precision=prec)
    out += jnp.einsum("bkhnrs,bnska->bnrkha", weights[..., p:], own_v, precision=prec)
    return jnp.concatenate([prompt, out.reshape(b, n * r, h, a)], axis=1)

"""The gated delta net: linear attention whose memory is a matrix that every token corrects.

A token first lets the memory S of its head fade, then corrects what S says about its key, then
reads with its query, all in float32:

    S = exp(log_decay) S;    S = S + k (beta (v - k S));    out = q S

Queries, keys and values first pass a short causal convolution. Both the memory and the convolution
begin anew where a segment starts, and padding touches neither, so a prompt's state can be computed
once and handed to all of its completions.

Source: Gated Delta Networks, arXiv 2412.06464; Qwen3_5GatedDeltaNet, transformers 5.23.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

NEG = -1e30  # finite, so that no gradient is NaN
CHUNK = 64
_EPS = 1e-6  # of the norm of queries and keys; not a config field
_PRECISION = jax.lax.Precision.HIGHEST


class Inputs(NamedTuple):
    """What the net takes from T tokens; C = 2 K A + H E for K key heads and H value heads."""

    qkv: jax.Array  # [B, T, C], queries, keys and values before the convolution
    log_decay: jax.Array  # float32[B, T, H], at most 0
    beta: jax.Array  # float32[B, T, H], from 0 to 1


class State(NamedTuple):
    """What the net keeps of the tokens so far."""

    tail: jax.Array  # [B, W - 1, C], the last inputs of a convolution of width W
    memory: jax.Array  # float32[B, H, A, E]


class Tokens(NamedTuple):
    """What the rule takes from T tokens; float32, queries and keys normed, H heads of each."""

    q: jax.Array  # [B, T, H, A], scaled
    k: jax.Array  # [B, T, H, A]
    v: jax.Array  # [B, T, H, E]
    log_decay: jax.Array  # [B, T, H]
    beta: jax.Array  # [B, T, H]


def empty(
    batch: tuple[int, ...],
    *,
    heads: int,
    key_dim: int,
    value_dim: int,
    channels: int,
    width: int,
    dtype: jnp.dtype,
) -> State:
    """The state before the first token; `batch` are the leading axes."""
    return State(
        jnp.zeros((*batch, width - 1, channels), dtype),
        jnp.zeros((*batch, heads, key_dim, value_dim), jnp.float32),
    )


def run(
    x: Inputs,
    kernel: Float[Array, "w c"],
    state: State,
    ids: Int[Array, "b t"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Array, "b t h e"], State]:
    """Output of every token and the state after the last one that is no padding.

    Args:
        x: of B rows.
        kernel: of the convolution; the last row weighs the token itself.
        state: before the first token, whose segment continues it.
        ids: segment of every token, 0 = padding; None: one segment, no padding.
        chunk: tokens that are worked on at the same time.
    """
    ids = jnp.ones(x.beta.shape[:2], jnp.int32) if ids is None else ids
    qkv, tail = convolve(x.qkv, kernel, state.tail, ids)
    out, memory = chunked(_tokens(qkv, x, state.memory), state.memory, ids, chunk)
    return out.astype(x.qkv.dtype), State(tail, memory)


def run_group(
    x: Inputs,
    kernel: Float[Array, "w c"],
    state: State,
    lengths: Int[Array, " g"],
    prompt: int,
    completion: int,
    chunk: int = CHUNK,
) -> tuple[Float[Array, "g t h e"], State]:
    """`run` on [prompt | completion 0 | completion 1 | ...], and the state after the prompts.

    The prompt goes through the net once. Every completion goes on from its state, and the gradients
    of all of them flow back into it.

    Args:
        x: of G groups.
        kernel: see `run`.
        state: before the prompts.
        lengths: tokens of each prompt; what stands behind them is padding.
        prompt: P, places of a prompt.
        completion: R, places of a completion.
        chunk: see `run`.
    """
    ids = (jnp.arange(prompt)[None] < lengths[:, None]).astype(jnp.int32)
    out, state = run(Inputs(*(y[:, :prompt] for y in x)), kernel, state, ids, chunk)
    g, t = x.beta.shape[:2]
    n = (t - prompt) // completion if completion else 0
    if not n:
        return out, state
    own = Inputs(*(y[:, prompt:].reshape(g * n, completion, *y.shape[2:]) for y in x))
    forked = State(*(jnp.repeat(y, n, axis=0) for y in state))
    after, _ = run(own, kernel, forked, chunk=chunk)
    return jnp.concatenate([out, after.reshape(g, t - prompt, *out.shape[2:])], axis=1), state


def step(
    x: Inputs, kernel: Float[Array, "w c"], state: State
) -> tuple[Float[Array, "b 1 h e"], State]:
    """`run` for one token a row."""
    ids = jnp.ones(x.beta.shape[:2], jnp.int32)
    qkv, tail = convolve(x.qkv, kernel, state.tail, ids)
    out, memory = recurrent(_tokens(qkv, x, state.memory), state.memory, ids)
    return out.astype(x.qkv.dtype), State(tail, memory)


def convolve(
    x: Float[Array, "b t c"],
    kernel: Float[Array, "w c"],
    tail: Float[Array, "b v c"],
    ids: Int[Array, "b t"],
) -> tuple[Float[Array, "b t c"], Float[Array, "b v c"]]:
    """SiLU of the causal convolution of every channel by itself, and the tail for what follows.

    A tap that reaches into another segment counts as 0.
    """
    width, length = len(kernel), x.shape[1]
    x = jnp.concatenate([tail.astype(x.dtype), x], axis=1)
    before = jnp.broadcast_to(ids[:, :1], (len(ids), width - 1))
    ids = jnp.concatenate([before, ids], axis=1)
    total = jnp.zeros((x.shape[0], length, x.shape[2]), jnp.float32)
    for i in range(width):
        same = (ids[:, i : i + length] == ids[:, width - 1 :])[..., None]
        tap = x[:, i : i + length].astype(jnp.float32) * kernel[i].astype(jnp.float32)[None, None]
        total += jnp.where(same, tap, 0.0)
    place = jnp.arange(1, length + 1)[None]
    end = jnp.max(jnp.where(ids[:, width - 1 :] != 0, place, 0), axis=1)

    def last(x: jax.Array, ids: jax.Array, end: jax.Array) -> jax.Array:
        x = jax.lax.dynamic_slice_in_dim(x, end, width - 1)
        ids = jax.lax.dynamic_slice_in_dim(ids, end, width - 1)
        return jnp.where((ids == ids[-1:])[:, None], x, jnp.zeros((), x.dtype))

    tail = jax.vmap(last)(x, ids, end) if width > 1 else tail
    return jax.nn.silu(total).astype(x.dtype), tail


def recurrent(
    tokens: Tokens, memory: Float[Array, "b h a e"], ids: Int[Array, "b t"]
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h a e"]]:
    """The rule as it is written, token after token: what `chunked` is tested against."""
    starts, tokens = _marks(tokens, ids)

    def body(s, token):
        q, k, v, log_decay, beta, start = token
        s = jnp.where(start[:, None, None, None], 0.0, s) * jnp.exp(log_decay)[..., None, None]
        wrong = v - jnp.einsum("bha,bhae->bhe", k, s, precision=_PRECISION)
        s = s + k[..., None] * (beta[..., None] * wrong)[:, :, None]
        return s, jnp.einsum("bha,bhae->bhe", q, s, precision=_PRECISION)

    every = jax.tree.map(lambda y: jnp.moveaxis(y, 1, 0), (*tokens, starts))
    memory, out = jax.lax.scan(body, memory, every)
    return jnp.moveaxis(out, 0, 1), memory


def chunked(
    tokens: Tokens, memory: Float[Array, "b h a e"], ids: Int[Array, "b t"], chunk: int = CHUNK
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h a e"]]:
    """`recurrent` with one step a chunk, as matrix products.

    Within a chunk the corrections u solve a triangular system: u_i = beta_i (v_i - what S and the
    corrections before i say about k_i). Of the chunk before it only S matters.

    Source: arXiv 2412.06464, section 3.3.
    """
    starts, tokens = _marks(tokens, ids)
    length = starts.shape[1]
    chunk = min(chunk, length)

    def split(y: jax.Array) -> jax.Array:
        """[B, T, H, ...] as [n, B, H, chunk, ...]; added places do nothing."""
        y = jnp.pad(y, [(0, 0), (0, -length % chunk)] + [(0, 0)] * (y.ndim - 2))
        y = y.reshape(y.shape[0], -1, chunk, *y.shape[2:])
        return jnp.moveaxis(jnp.moveaxis(y, 1, 0), 2, min(3, y.ndim - 1))

    q, k, v, log_decay, beta = (split(y) for y in tokens)
    # The segment within the chunk: 0 goes on from the chunk before.
    segment = jnp.cumsum(split(starts[..., None].astype(jnp.int32)), axis=-1)
    decay = jnp.cumsum(log_decay, axis=-1)
    last, end = decay[..., -1:], segment[..., -1:]
    lower = jnp.tril(jnp.ones((chunk, chunk), bool))[None, None, None]
    sees = lower & (segment[..., :, None] == segment[..., None, :])
    # Of the tokens after j up to i, summed by themselves: sums from the chunk's start reach
    # hundreds, and what their difference rounds off is a relative error of every decay.
    steps = jnp.where(jnp.tril(lower, -1), log_decay[..., :, None], 0.0)
    spans = _matmul(lower.astype(jnp.float32), steps)
    between = jnp.exp(jnp.where(sees, spans, NEG))
    before = jnp.exp(jnp.where(segment == 0, decay, NEG))[..., None]
    after = jnp.exp(jnp.where(segment == end, spans[..., -1, :], NEG))[..., None]
    kept = jnp.exp(jnp.where(end == 0, last, NEG))[..., None]

    def product(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(spec, a, b, precision=_PRECISION)

    scores = product("nbhia,nbhja->nbhij", q, k) * between
    system = product("nbhia,nbhja->nbhij", k * beta[..., None], k) * between
    right = jnp.concatenate([v, k * before], axis=-1) * beta[..., None]
    solved = product("nbhij,nbhje->nbhie", inverse(jnp.tril(system, -1)), right)
    own, said = solved[..., : v.shape[-1]], solved[..., v.shape[-1] :]

    def body(s, part):
        q, k, kept, scores, own, said = part
        u = own - product("bhia,bhae->bhie", said, s)
        out = product("bhia,bhae->bhie", q, s) + product("bhij,bhje->bhie", scores, u)
        return s * kept + product("bhia,bhie->bhae", k, u), out

    memory, out = jax.lax.scan(body, memory, (q * before, k * after, kept, scores, own, said))
    out = jnp.moveaxis(jnp.moveaxis(out, 3, 2), 0, 1)  # [B, n, chunk, H, E]
    return out.reshape(out.shape[0], -1, *out.shape[3:])[:, :length], memory


@jax.custom_jvp
def inverse(a: Float[Array, "*batch c c"]) -> Float[Array, "*batch c c"]:
    """(I + a)**-1 of strictly lower triangular matrices, as matrix products.

    Blocks on the diagonal are inverted two by two, from size 1 upwards:
    [[A, 0], [C, B]]**-1 = [[A**-1, 0], [-B**-1 C A**-1, B**-1]]. Unlike powers of `a`, whose
    entries grow binomially where keys repeat, no term is larger than the inverses themselves.
    """
    size, batch = a.shape[-1], a.shape[:-2]
    whole = 1 << (size - 1).bit_length()
    a = jnp.pad(a, [(0, 0)] * len(batch) + [(0, whole - size)] * 2)
    out = jnp.ones((*batch, whole, 1, 1), a.dtype)
    half = 1
    while half < whole:
        count = whole // (2 * half)
        pairs = jnp.diagonal(
            a.reshape(*batch, count, 2 * half, count, 2 * half), axis1=-4, axis2=-2
        )
        low = jnp.moveaxis(pairs, -1, -3)[..., half:, :half]
        top, bottom = out[..., ::2, :, :], out[..., 1::2, :, :]
        corner = -_matmul(_matmul(bottom, low), top)
        above = jnp.concatenate([top, jnp.zeros_like(top)], axis=-1)
        out = jnp.concatenate([above, jnp.concatenate([corner, bottom], axis=-1)], axis=-2)
        half *= 2
    return out[..., 0, :size, :size]


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    out = inverse(*primals)
    return out, -_matmul(_matmul(out, *tangents), out)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=_PRECISION)


def _marks(tokens: Tokens, ids: Int[Array, "b t"]) -> tuple[Bool[Array, "b t"], Tokens]:
    """Where a segment starts, and the tokens with padding made idle: no decay, no correction."""
    previous = jnp.concatenate([ids[:, :1], ids[:, :-1]], axis=1)
    real = (ids != 0)[..., None]
    idle = tokens._replace(
        log_decay=jnp.where(real, tokens.log_decay, 0.0), beta=jnp.where(real, tokens.beta, 0.0)
    )
    return (ids != previous) & (ids != 0), idle


def _tokens(qkv: Float[Array, "b t c"], x: Inputs, memory: Float[Array, "b h a e"]) -> Tokens:
    """Splits the channels; a key head serves H // K neighbouring value heads."""
    _, heads, key_dim, value_dim = memory.shape
    b, t, channels = qkv.shape
    qkv = qkv.astype(jnp.float32)
    keys = (channels - heads * value_dim) // 2
    q, k, v = jnp.split(qkv, [keys, 2 * keys], axis=-1)

    def spread(y: jax.Array) -> jax.Array:
        y = _unit(y.reshape(b, t, -1, key_dim))
        return jnp.repeat(y, heads // y.shape[2], axis=2)

    v = v.reshape(b, t, heads, value_dim)
    f32 = jnp.float32
    return Tokens(
        spread(q) * key_dim**-0.5, spread(k), v, x.log_decay.astype(f32), x.beta.astype(f32)
    )


def _unit(x: Float[Array, "... a"]) -> Float[Array, "... a"]:
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + _EPS)

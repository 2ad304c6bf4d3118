"""The gated delta net: linear attention whose memory is a matrix that every token corrects.

A token first lets the memory S of its head fade, then corrects what S says about its key, then
reads with its query, all in float32:

    S = exp(log_decay) S;    S = S + k (beta (v - k S));    out = q S

Queries, keys and values first pass a short causal convolution. Both the memory and the convolution
begin anew where a segment starts, and padding touches neither, so a prompt's state can be computed
once and handed to all of its completions.

Source: Gated Delta Networks, arXiv 2412.06464; Qwen3_5GatedDeltaNet, transformers 5.24.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

NEG = -1e30  # finite, so that no gradient is NaN
CHUNK = 64
SLAB = 4096  # tokens of a row, or of the completions of a group, that are in memory at once
_MASKED = 32  # size of the blocks in which `inverse` begins
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


class Chunks(NamedTuple):
    """What n chunks of C tokens do to a memory, whatever is in it; float32."""

    q: jax.Array  # [B, n, H, C, A], faded since the chunk's start
    k: jax.Array  # [B, n, H, C, A], faded until the chunk's end
    kept: jax.Array  # [B, n, H, 1, 1], what is left of the memory at the end
    scores: jax.Array  # [B, n, H, C, C], of a query and the corrections up to its token
    own: jax.Array  # [B, n, H, C, E], corrections of an empty memory
    said: jax.Array  # [B, n, H, C, A], corrected by what the memory says about these keys


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
    """Returns the state before the first token; `batch` are the leading axes."""
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
    slab: int = SLAB,
) -> tuple[Float[Array, "b t h e"], State]:
    """Returns the output of every token and the state after the last one that is no padding.

    Args:
        x: of B rows.
        kernel: of the convolution; the last row weighs the token itself.
        state: before the first token, whose segment continues it.
        ids: segment of every token, 0 = padding; None: one segment, no padding.
        chunk: tokens that are worked on at the same time.
        slab: tokens of which everything is in memory at the same time, whole chunks. Longer rows
            are run slab after slab, and in the backward pass once more.
    """
    ids = jnp.ones(x.beta.shape[:2], jnp.int32) if ids is None else ids
    slab = max(slab // chunk, 1) * chunk
    if ids.shape[1] > slab:
        return _in_slabs(x, kernel, state, ids, chunk, slab)
    qkv, tail = convolve(x.qkv, kernel, state.tail, ids)
    out, memory = chunked(x._replace(qkv=qkv), state.memory, ids, chunk)
    return out.astype(x.qkv.dtype), State(tail, memory)


def _in_slabs(
    x: Inputs, kernel: jax.Array, state: State, ids: jax.Array, chunk: int, slab: int
) -> tuple[jax.Array, State]:
    """Does what `run` does, keeping only the states between slabs for the backward pass."""

    def one(carry: tuple[State, jax.Array], part: tuple[Inputs, jax.Array]):
        state, previous = carry
        x, ids = part
        # `run` takes a row's first token as going on: it cannot see that a segment starts there.
        is_new = (ids[:, 0] != previous) & (ids[:, 0] != 0)
        state = jax.tree.map(
            lambda y: jnp.where(is_new.reshape(-1, *[1] * (y.ndim - 1)), jnp.zeros((), y.dtype), y),
            state,
        )
        out, state = run(x, kernel, state, ids, chunk, slab)
        return (state, ids[:, -1]), out

    state = state._replace(tail=state.tail.astype(x.qkv.dtype))
    parts = jax.tree.map(lambda y: jnp.moveaxis(y, 1, 0), _split((x, ids), slab))
    (state, _), out = jax.lax.scan(jax.checkpoint(one), (state, ids[:, 0]), parts)
    out = jnp.moveaxis(out, 0, 1)
    return out.reshape(out.shape[0], -1, *out.shape[3:])[:, : ids.shape[1]], state


def run_group(
    x: Inputs,
    kernel: Float[Array, "w c"],
    state: State,
    lengths: Int[Array, " g"],
    prompt: int,
    completion: int,
    chunk: int = CHUNK,
    slab: int = SLAB,
    own_lengths: Int[Array, "g n"] | None = None,
) -> tuple[Float[Array, "g t h e"], State]:
    """Runs the net on [prompt | completion 0 | completion 1 | ...]; the state is the prompts'.

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
        slab: see `run`; of the completions of a group, all together.
        own_lengths: tokens of each completion; with them the state is that after each completion,
            [G, N, ...].
    """
    ids = (jnp.arange(prompt)[None] < lengths[:, None]).astype(jnp.int32)
    out, state = run(Inputs(*(y[:, :prompt] for y in x)), kernel, state, ids, chunk, slab)
    g, t = x.beta.shape[:2]
    n = (t - prompt) // completion if completion else 0
    if not n:
        return out, state
    own = Inputs(*(y[:, prompt:].reshape(g * n, completion, *y.shape[2:]) for y in x))
    forked = State(*(jnp.repeat(y, n, axis=0) for y in state))
    own_ids = None
    if own_lengths is not None:
        place = jnp.arange(completion)[None]
        own_ids = (place < own_lengths.reshape(-1, 1)).astype(jnp.int32)
    after, own_state = run(own, kernel, forked, own_ids, chunk, slab // n)
    if own_lengths is not None:
        state = State(*(y.reshape(g, n, *y.shape[1:]) for y in own_state))
    return jnp.concatenate([out, after.reshape(g, t - prompt, *out.shape[2:])], axis=1), state


def decode(
    x: Inputs, kernel: Float[Array, "w c"], state: State
) -> tuple[Float[Array, "b 1 h e"], State]:
    """Does what `run` does, for one token a row."""
    ids = jnp.ones(x.beta.shape[:2], jnp.int32)
    qkv, tail = convolve(x.qkv, kernel, state.tail, ids)
    out, memory = recurrent(x._replace(qkv=qkv), state.memory, ids)
    return out.astype(x.qkv.dtype), State(tail, memory)


def convolve(
    x: Float[Array, "b t c"],
    kernel: Float[Array, "w c"],
    tail: Float[Array, "b v c"],
    ids: Int[Array, "b t"],
) -> tuple[Float[Array, "b t c"], Float[Array, "b v c"]]:
    """Returns the SiLU of each channel's own causal convolution, and the tail for what follows.

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
    x: Inputs, memory: Float[Array, "b h a e"], ids: Int[Array, "b t"]
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h a e"]]:
    """Applies the rule as it is written, token after token: `chunked` is tested against it.

    Args:
        x: after the convolution.
        memory: before the first token.
        ids: see `run`.
    """
    tokens = _tokens(_idle(x, ids), memory)

    def body(s, token):
        q, k, v, log_decay, beta, start = token
        s = jnp.where(start[:, None, None, None], 0.0, s) * jnp.exp(log_decay)[..., None, None]
        wrong = v - jnp.einsum("bha,bhae->bhe", k, s, precision=_PRECISION)
        s = s + k[..., None] * (beta[..., None] * wrong)[:, :, None]
        return s, jnp.einsum("bha,bhae->bhe", q, s, precision=_PRECISION)

    by_token = jax.tree.map(lambda y: jnp.moveaxis(y, 1, 0), (*tokens, _starts(ids)))
    memory, out = jax.lax.scan(body, memory, by_token)
    return jnp.moveaxis(out, 0, 1), memory


def chunked(
    x: Inputs, memory: Float[Array, "b h a e"], ids: Int[Array, "b t"], chunk: int = CHUNK
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h a e"]]:
    """Does what `recurrent` does with one turn a chunk, as matrix products."""
    chunk = min(chunk, ids.shape[1])
    tokens = _tokens(_split(_idle(x, ids), chunk), memory)
    out, memory = _fold(_prepare(tokens, _split(_starts(ids), chunk)), memory)
    return out[:, : ids.shape[1]], memory


def _prepare(tokens: Tokens, starts: Bool[Array, "b n c"]) -> Chunks:
    """Returns all of a chunk's work that does not need the memory left by the chunks before it.

    The corrections u of a chunk solve a triangular system: u_i = beta_i (v_i - what the memory and
    the corrections before i say about k_i).

    Args:
        tokens: [B, n, C, ...].
        starts: true where a segment starts.

    Source: arXiv 2412.06464, section 3.3.
    """
    q, k, v, log_decay, beta = (jnp.moveaxis(y, 3, 2) for y in tokens)  # [B, n, H, C, ...]
    chunk = starts.shape[2]
    # The segment within the chunk: 0 goes on from the chunk before.
    segment = jnp.cumsum(starts.astype(jnp.int32), axis=-1)[:, :, None]
    decay = jnp.cumsum(log_decay, axis=-1)
    last, end = decay[..., -1:], segment[..., -1:]
    lower = jnp.tril(jnp.ones((chunk, chunk), bool))[None, None, None]
    sees = lower & (segment[..., :, None] == segment[..., None, :])
    # Of the tokens after j up to i, summed by themselves: sums from the chunk's start reach
    # hundreds, and what their difference rounds off is a relative error of every decay.
    decays = jnp.where(jnp.tril(lower, -1), log_decay[..., :, None], 0.0)
    spans = _matmul(lower.astype(jnp.float32), decays)
    between = jnp.exp(jnp.where(sees, spans, NEG))
    before = jnp.exp(jnp.where(segment == 0, decay, NEG))[..., None]
    after = jnp.exp(jnp.where(segment == end, spans[..., -1, :], NEG))[..., None]
    kept = jnp.exp(jnp.where(end == 0, last, NEG))[..., None]

    scores = _product("bnhia,bnhja->bnhij", q, k) * between
    system = _product("bnhia,bnhja->bnhij", k * beta[..., None], k) * between
    right = jnp.concatenate([v, k * before], axis=-1) * beta[..., None]
    solved = _product("bnhij,bnhje->bnhie", inverse(jnp.tril(system, -1)), right)
    own, said = jnp.split(solved, [v.shape[-1]], axis=-1)
    return Chunks(q * before, k * after, kept, scores, own, said)


def _fold(
    chunks: Chunks, memory: Float[Array, "b h a e"]
) -> tuple[Float[Array, "b t h e"], Float[Array, "b h a e"]]:
    """Returns the outputs of all tokens, chunk after chunk, and the memory after the last one."""

    def body(s, part):
        u = part.own - _product("bhia,bhae->bhie", part.said, s)
        out = _product("bhia,bhae->bhie", part.q, s) + _product("bhij,bhje->bhie", part.scores, u)
        return s * part.kept + _product("bhia,bhie->bhae", part.k, u), out

    memory, out = jax.lax.scan(body, memory, jax.tree.map(lambda y: jnp.moveaxis(y, 1, 0), chunks))
    out = jnp.moveaxis(jnp.moveaxis(out, 3, 2), 0, 1)  # [B, n, C, H, E]
    return out.reshape(out.shape[0], -1, *out.shape[3:]), memory


@jax.custom_jvp
def inverse(a: Float[Array, "*batch c c"]) -> Float[Array, "*batch c c"]:
    """Returns (I + a)**-1 of strictly lower triangular matrices, as matrix products.

    Blocks on the diagonal are inverted two by two, from size 1 upwards:
    [[A, 0], [C, B]]**-1 = [[A**-1, 0], [-B**-1 C A**-1, B**-1]]. Unlike powers of `a`, whose
    entries grow binomially where keys repeat, no term is larger than the inverses themselves.
    Small blocks are inverted inside of larger ones, x - x C x with all else masked: a matrix unit
    does not work faster on less.
    """
    size, batch = a.shape[-1], a.shape[:-2]
    whole = 1 << (size - 1).bit_length()
    a = jnp.pad(a, [(0, 0)] * len(batch) + [(0, whole - size)] * 2)

    def blocks(width: int) -> jax.Array:
        split = a.reshape(*batch, whole // width, width, whole // width, width)
        return jnp.moveaxis(jnp.diagonal(split, axis1=-4, axis2=-2), -1, -3)

    width = min(whole, _MASKED)
    block, row = blocks(width), jnp.arange(width)

    def corner(k: jax.Array | int) -> jax.Array:
        """Returns C of each pair of blocks of size 2**k."""
        half, pair = row >> k, row >> (k + 1)
        is_corner = (pair[:, None] == pair[None]) & (half[:, None] != half[None])
        return jnp.where(jnp.broadcast_to(is_corner, block.shape), block, 0.0)

    def join(k: jax.Array, x: jax.Array) -> jax.Array:
        return x - _matmul(_matmul(x, corner(k)), x)

    out = jnp.broadcast_to(jnp.eye(width, dtype=a.dtype), block.shape) - corner(0)
    out = jax.lax.fori_loop(1, width.bit_length() - 1, join, out)
    while width < whole:
        top, bottom = out[..., ::2, :, :], out[..., 1::2, :, :]
        low = -_matmul(_matmul(bottom, blocks(2 * width)[..., width:, :width]), top)
        above = jnp.concatenate([top, jnp.zeros_like(top)], axis=-1)
        out = jnp.concatenate([above, jnp.concatenate([low, bottom], axis=-1)], axis=-2)
        width *= 2
    return out[..., 0, :size, :size]


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    out = inverse(*primals)
    return out, -_matmul(_matmul(out, *tangents), out)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=_PRECISION)


def _product(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, precision=_PRECISION)


def _split(parts: Any, chunk: int) -> Any:
    """Returns [B, T, ...] as [B, n, chunk, ...]; zeros are added, which change nothing."""

    def split(y: jax.Array) -> jax.Array:
        y = jnp.pad(y, [(0, 0), (0, -y.shape[1] % chunk)] + [(0, 0)] * (y.ndim - 2))
        return y.reshape(y.shape[0], -1, chunk, *y.shape[2:])

    return jax.tree.map(split, parts)


def _idle(x: Inputs, ids: Int[Array, "b t"]) -> Inputs:
    """Returns the inputs with padding that neither fades the memory nor corrects it."""
    real = (ids != 0)[..., None]
    return x._replace(
        log_decay=jnp.where(real, x.log_decay, 0.0), beta=jnp.where(real, x.beta, 0.0)
    )


def _starts(ids: Int[Array, "b t"]) -> Bool[Array, "b t"]:
    """Returns where a segment starts; the first token of a row continues what came before."""
    previous = jnp.concatenate([ids[:, :1], ids[:, :-1]], axis=1)
    return (ids != previous) & (ids != 0)


def _tokens(x: Inputs, memory: Float[Array, "b h a e"]) -> Tokens:
    """Splits the convolved channels; a key head serves H // K neighbouring value heads."""
    _, heads, key_dim, value_dim = memory.shape
    *batch, channels = x.qkv.shape
    keys = (channels - heads * value_dim) // 2
    q, k, v = jnp.split(x.qkv.astype(jnp.float32), [keys, 2 * keys], axis=-1)

    def spread(y: jax.Array) -> jax.Array:
        y = _unit(y.reshape(*batch, -1, key_dim))
        return jnp.repeat(y, heads // y.shape[-2], axis=-2)

    v = v.reshape(*batch, heads, value_dim)
    f32 = jnp.float32
    return Tokens(
        spread(q) * key_dim**-0.5, spread(k), v, x.log_decay.astype(f32), x.beta.astype(f32)
    )


def _unit(x: Float[Array, "... a"]) -> Float[Array, "... a"]:
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + _EPS)

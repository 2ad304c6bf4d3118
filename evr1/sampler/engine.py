"""The sampler's device programs, in the shape of JetStream's Engine API: prefill, insert, generate.

A slot is a group: one prompt, whose cache is stored once, and its n rows. Unlike JetStream's
engines this one prefills and inserts several prompts at once, draws the first token in `prefill`
(as JetStream's main branch does) and makes `window` decode steps per `generate`.
`sampler.jetstream` fits it to JetStream's own classes.

The rows of a slot draw for one prompt, or each for a question of its own behind it: several
questions on one video share all that stands before them.

G slots (g prompts in a prefill), N rows a slot, W decode steps a window, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from evr1.models import Model
from evr1.models.nn import cache as caches
from evr1.parallel import sharding
from evr1.sampler.sampling import Draws, RowIds, Sampling, make_draws, row_keys, sample
from evr1.types import Array, Params, Prompts, Questions

LEAST_READ = 128  # tokens of a row: reading fewer spares nothing that counts


class Prefix(NamedTuple):
    """g prefilled prompts and the first token of each of their rows."""

    cache: Any  # keys and values of the prompts, g at axis 1
    lengths: jax.Array  # int32[g], prompt tokens
    next_positions: jax.Array  # int32[g], position of the first token behind the prompt
    steps: jax.Array  # int32[g, N], tokens of the questions, or those drawn before; 0 without
    drawn: jax.Array  # int32[g, N], tokens of the completions so far, the next one included
    keys: jax.Array  # uint32[g, N, 2], random state of the rows
    tokens: jax.Array  # int32[g, N], the first tokens
    done: jax.Array  # bool[g, N], the first token is the last one
    data: jax.Array  # int32[g * N, ...], the first tokens as `ResultTokens` of a window of 1


class DecodeState(NamedTuple):
    """The arrays that live on the device between two windows. It is donated: use it once."""

    cache: Any  # prompts [L, G, K, P, A], their lengths, suffixes [L, G, N, K, R, A]
    tokens: jax.Array  # int32[G, N], the last token drawn, not yet in the cache
    done: jax.Array  # bool[G, N], also true in empty slots
    lengths: jax.Array  # int32[G, N], tokens drawn
    steps: jax.Array  # int32[G, N], the index of `tokens` in the suffix; stands still once done
    next_positions: jax.Array  # int32[G]
    keys: jax.Array  # uint32[G, N, 2]


class SlotData(NamedTuple):
    """The result of one window for the rows of one slot."""

    tokens: np.ndarray  # int32[N, W]
    valid: np.ndarray  # int32[N, W], 1 where a token was drawn
    logprobs: np.ndarray  # float32[N, W]
    lengths: np.ndarray  # int32[N], tokens drawn so far
    done: np.ndarray  # int32[N]


@dataclasses.dataclass(frozen=True)
class ResultTokens:
    """The result of a window in one array, because one transfer is faster than five.

    Attributes:
        data: int32[G * N, 3 W + 2], the columns tokens, valid, logprobs (the bits of a float32),
            length, done.
        samples_per_slot: N.
    """

    data: jax.Array | np.ndarray
    samples_per_slot: int

    @property
    def window(self) -> int:
        """The number of decode steps, W."""
        return (self.data.shape[1] - 2) // 3

    @property
    def tokens_idx(self) -> tuple[int, int]:
        """Columns of the tokens, start and stop."""
        return 0, self.window

    @property
    def valid_idx(self) -> tuple[int, int]:
        """Columns that say which tokens count."""
        return self.window, 2 * self.window

    @property
    def logprobs_idx(self) -> tuple[int, int]:
        """Columns of the log-probabilities."""
        return 2 * self.window, 3 * self.window

    @property
    def length_idx(self) -> tuple[int, int]:
        """Column of the number of tokens drawn so far."""
        return 3 * self.window, 3 * self.window + 1

    def copy_to_host_async(self) -> None:
        """Starts the transfer to the host."""
        if not isinstance(self.data, np.ndarray):
            self.data.copy_to_host_async()

    def convert_to_numpy(self) -> "ResultTokens":
        """Waits for the window and returns its result on the host."""
        return dataclasses.replace(self, data=np.asarray(self.data))

    def get_result_at_slot(self, slot: int) -> SlotData:
        """Returns the rows of one slot; of a result on the host."""
        return SlotData(*(part[slot] for part in self.by_slot()))

    def by_slot(self) -> SlotData:
        """Returns all slots at once, each array with G in front; of a result on the host."""
        data = np.asarray(self.data).reshape(-1, self.samples_per_slot, self.data.shape[1])
        w = self.window
        return SlotData(
            tokens=data[..., :w],
            valid=data[..., w : 2 * w],
            logprobs=np.ascontiguousarray(data[..., 2 * w : 3 * w]).view(np.float32),
            lengths=data[..., 3 * w],
            done=data[..., 3 * w + 1],
        )


def run(program: Callable[..., Any], *args: Any, **statics: Any) -> Any:
    """Calls a program."""
    return program(*args, **statics)


@dataclasses.dataclass(frozen=True, eq=False)
class Engine:
    """Prefill, insert and generate for one model, one set of shapes and one way to draw.

    Cheap to make: the compiled programs are shared by all engines of the same model and shapes,
    whatever the temperature, seed, limit or banned ids.

    Attributes:
        model: the model.
        sampling: how tokens are drawn.
        n: rows of a slot.
        slots: groups that decode at the same time.
        prompt_tokens: room for a prompt in the cache.
        completion_tokens: room for a completion in the cache.
        question_tokens: room for a row's question before it.
        window: decode steps of one `generate`.
        devices: mesh to spread the slots over; None: the default device.
        stop_early: leave a window once no row is active. Off on GPUs, where XLA would then ask the
            host at every decode step.
        call: runs a program; see `evr1.parallel.ahead` for one that compiles it alone.
    """

    model: Model
    sampling: Sampling
    n: int
    slots: int
    prompt_tokens: int
    completion_tokens: int
    window: int
    question_tokens: int = 0
    devices: Mesh | None = None
    stop_early: bool = True
    call: Callable[..., Any] = run

    def __post_init__(self):
        if self.sampling.max_tokens > self.completion_tokens:
            raise ValueError(
                f"max_tokens={self.sampling.max_tokens} exceeds the room for completions,"
                f" {self.completion_tokens} tokens; raise shapes.completion_tokens"
            )
        if self.sampling.greedy_rows > self.n:
            raise ValueError(
                f"greedy_rows={self.sampling.greedy_rows} exceeds n={self.n}, the rows of a group;"
                " lower it or raise n"
            )
        shards = sharding.batch_shards(self.devices)
        if self.slots % shards:
            raise ValueError(
                f"{self.slots} slots do not divide over {shards} devices (mesh axes data x fsdp);"
                f" give a multiple of {shards}"
            )

    @property
    def max_concurrent_decodes(self) -> int:
        """Number of slots."""
        return self.slots

    @property
    def samples_per_slot(self) -> int:
        """Rows of a slot."""
        return self.n

    @property
    def max_prefill_length(self) -> int:
        """Longest prompt, in tokens."""
        return self.prompt_tokens

    @property
    def mesh(self) -> Mesh | None:
        """Mesh which the engine runs on."""
        return self.devices

    @functools.cached_property
    def draws(self) -> Draws:
        """`sampling` as arrays on the devices."""
        draws = make_draws(self.sampling, self.model.config.vocab_size)
        return jax.device_put(draws, sharding.replicated(self.devices) if self.devices else None)

    def init_decode_state(self, params: Params = None) -> DecodeState:
        """Returns empty slots, on the device of the parameters, where these are given."""
        room = self.question_tokens + self.completion_tokens
        sizes = (self.slots, self.n, self.prompt_tokens, room)
        like = jax.tree.leaves(params)[:1]
        return self.call(init_slots, self.model, *sizes, self.devices, like)

    def prefill(
        self,
        *,
        params: Params,
        prompts: Prompts,
        ids: RowIds,
        questions: Questions | None = None,
        is_open: Array | None = None,
    ) -> Prefix:
        """Runs g prompts through the model and draws the first token of each of their rows.

        Args:
            params: of the model.
            prompts: g prompts, padded to a bucket of at most `prompt_tokens`.
            ids: of the rows.
            questions: what each row asks behind its prompt, padded to at most `question_tokens`;
                None: all rows draw for the prompt.
            is_open: bool[g, N]: `questions` are what the rows have drawn before, and these go on;
                None: nothing was drawn.
        """
        logits, cache = self.call(read_prompts, self.model, params, prompts, questions)
        steps = jnp.zeros(ids.requests.shape, jnp.int32) if questions is None else questions.lengths
        is_row = None if questions is None else questions.lengths > 0
        before = None
        if is_open is not None:
            is_row, before = is_open, steps
        drawn, keys, tokens, done, data = self.call(
            draw_first, logits, ids, is_row, self.draws, before, mode=self.sampling.mode
        )
        return Prefix(
            cache, prompts.lengths, prompts.next_positions, steps, drawn, keys, tokens, done, data
        )

    def insert(self, prefix: Prefix, decode_state: DecodeState, slots: Array) -> DecodeState:
        """Returns the state with the prompts of `prefix` in `slots` int32[g].

        A slot outside the range drops its prompt.
        """
        return self.call(insert_prompts, self.model, decode_state, prefix, slots, mesh=self.devices)

    def clear(self, decode_state: DecodeState, slots: Array) -> DecodeState:
        """Returns the state without the keys and values of `slots` int32[g], see `cache.clear`."""
        return self.call(clear_slots, decode_state, slots, mesh=self.devices)

    def generate(
        self, params: Params, decode_state: DecodeState, tokens: int | None = None
    ) -> tuple[DecodeState, ResultTokens]:
        """Makes `window` decode steps in every slot.

        Rows stop at an end token or at the limit, on the device, and where their logits are not
        finite: the last log-probability is not, then, and says so.

        Args:
            params: of the model.
            decode_state: donated.
            tokens: no row in use has drawn more before; None: nobody knows.
        """
        state, data = self.call(
            decode_window,
            self.model,
            params,
            decode_state,
            self.draws,
            window=self.window,
            mode=self.sampling.mode,
            mesh=self.devices,
            stop_early=self.stop_early,
            room=self.room(tokens),
        )
        return state, ResultTokens(data, self.n)

    def room(self, tokens: int | None) -> int:
        """Returns how much of every row `generate` reads; see there for `tokens`."""
        room = self.question_tokens + self.completion_tokens
        if tokens is None:
            return room
        return room_to_read(room, self.question_tokens + tokens + self.window)


def room_to_read(room: int, tokens: int) -> int:
    """Returns the room for completions, its half, quarter or eighth: the least that holds these.

    A decode step reads so much of every row, and none of what lies behind. Each is a program.

    >>> [room_to_read(4096, tokens) for tokens in (16, 512, 513, 4096)], room_to_read(200, 16)
    ([512, 512, 1024, 4096], 200)
    """
    rooms = [room // k for k in (8, 4, 2) if room % k == 0 and room // k >= LEAST_READ]
    return next((each for each in rooms if tokens <= each), room)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5), keep_unused=True)
def init_slots(model, slots, n, prompt_tokens, completion_tokens, mesh, like=()) -> DecodeState:
    del like  # it says on which device; nowhere in particular would be a program of its own later
    state = DecodeState(
        cache=model.init_cache(slots, n, prompt_tokens, completion_tokens),
        tokens=jnp.zeros((slots, n), jnp.int32),
        done=jnp.ones((slots, n), bool),
        lengths=jnp.zeros((slots, n), jnp.int32),
        steps=jnp.zeros((slots, n), jnp.int32),
        next_positions=jnp.zeros(slots, jnp.int32),
        keys=jnp.zeros((slots, n, 2), jnp.uint32),
    )
    return _spread(state, mesh)


@functools.partial(jax.jit, static_argnums=0)
def read_prompts(model, params, prompts, questions=None):
    """Returns the logits after each prompt, or after each question, and the cache.

    Apart from `draw_first`, because this program takes long to compile and is the same for training
    and evaluation.
    """
    hidden, cache = model.prefill(params, prompts, questions)
    return model.logits(params, hidden), cache


@functools.partial(jax.jit, static_argnames="mode")
def draw_first(logits, ids, is_row, draws, before=None, *, mode):
    """Makes the random states of rows and draws their first tokens, or their next ones.

    Args:
        logits: float32[g, V], or [g, N, V] where each row has its own.
        ids: RowIds of g groups.
        is_row: bool[g, N], false where there is no row; None: all are there.
        draws: what to draw.
        before: int32[g, N], tokens that each row has drawn; None: none yet.
        mode: `Sampling.mode`.

    Returns (drawn, keys, tokens, done, data).
    """
    groups, n = ids.requests.shape
    keys = row_keys(draws.seed, ids)
    positions = jnp.zeros((groups, n), jnp.int32) if before is None else before
    if logits.ndim == 2:
        logits = jnp.repeat(logits, n, axis=0)
    tokens, logprobs = _draw(logits.reshape(groups * n, -1), keys, positions, draws, mode)
    is_drawn = jnp.ones((groups, n), bool) if is_row is None else is_row
    done = _ends(tokens, draws) | (draws.limit <= positions + 1) | ~is_drawn
    done |= ~jnp.isfinite(logprobs)
    lengths = positions + is_drawn
    data = _pack(tokens[..., None], is_drawn[..., None], logprobs[..., None], lengths, done)
    # Without a row nothing decodes, whatever the length of nothing is.
    drawn = jnp.ones_like(tokens) if before is None else lengths
    return drawn, keys, tokens, done, data


@functools.partial(jax.jit, static_argnums=0, static_argnames="mesh", donate_argnums=1)
def insert_prompts(model, state, prefix, slots, *, mesh) -> DecodeState:
    def put(old, new):
        return old.at[slots].set(new, mode="drop")

    state = DecodeState(
        cache=model.insert(state.cache, prefix.cache, prefix.lengths, slots),
        tokens=put(state.tokens, prefix.tokens),
        done=put(state.done, prefix.done),
        lengths=put(state.lengths, prefix.drawn),
        steps=put(state.steps, prefix.steps),
        next_positions=put(state.next_positions, prefix.next_positions),
        keys=put(state.keys, prefix.keys),
    )
    return _spread(state, mesh)


@functools.partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def clear_slots(state, slots, *, mesh) -> DecodeState:
    return _spread(state._replace(cache=caches.clear(state.cache, slots)), mesh)


@functools.partial(
    jax.jit,
    static_argnums=0,
    static_argnames=("window", "mode", "mesh", "stop_early", "room", "top"),
    donate_argnums=2,
)
def decode_window(model, params, state, draws, *, window, mode, mesh, stop_early, room=None, top=0):
    """Returns the state and the data of `ResultTokens`; with `top`, `likeliest` [G, N, W, top]."""
    groups, n = state.tokens.shape
    kinds = [jnp.int32, bool, jnp.float32]
    out = tuple(jnp.zeros((window, groups, n), kind) for kind in kinds)
    if top:
        out += tuple(jnp.zeros((window, groups, n, top), kind) for kind in kinds[::2])

    def unfinished(carry):
        i, state, _ = carry
        # Without stop_early the number of decode steps is known beforehand and the devices run on
        # without asking the host.
        return (i < window) & (jnp.any(~state.done) if stop_early else True)

    def decode_step(carry):
        i, state, out = carry
        state, *drawn = _decode_step(model, params, state, draws, mode, room, top)
        return i + 1, state, tuple(o.at[i].set(d) for o, d in zip(out, drawn, strict=True))

    _, state, out = jax.lax.while_loop(unfinished, decode_step, (jnp.int32(0), state, out))
    tokens, valid, logprobs, *tops = (jnp.moveaxis(o, 0, 2) for o in out)
    data = _pack(tokens, valid, logprobs, state.lengths, state.done)
    return _spread(state, mesh), (data, *tops) if top else data


def _decode_step(model, params, state, draws, mode, room=None, top=0):
    """Puts the last tokens into the cache and draws the next.

    Returns (state, tokens, valid, logprobs), [G, N] each, and with `top` what `likeliest` does.
    """
    positions = state.next_positions[:, None] + state.steps
    lengths = state.cache.prefix_lengths
    # What finished rows draw is dropped: where no others are left, nobody reads the prompt.
    cache = state.cache._replace(prefix_lengths=jnp.where(state.done.all(1), 0, lengths))
    hidden, cache = model.decode(params, cache, state.tokens, state.steps, positions, room)
    cache = cache._replace(prefix_lengths=lengths)
    logits = model.logits(params, hidden).reshape(state.tokens.size, -1)
    tokens, logprobs = _draw(logits, state.keys, state.lengths, draws, mode)
    valid = ~state.done
    lengths = jnp.where(valid, state.lengths + 1, state.lengths)
    state = state._replace(
        cache=cache,
        tokens=jnp.where(valid, tokens, 0),
        done=state.done | _ends(tokens, draws) | (lengths >= draws.limit) | ~jnp.isfinite(logprobs),
        lengths=lengths,
        # A finished row stands still, so that it never writes past the end of its cache.
        steps=jnp.where(valid, state.steps + 1, state.steps),
    )
    tops = likeliest(logits, draws, top, valid.shape) if top else ()
    return state, state.tokens, valid, jnp.where(valid, logprobs, 0.0), *tops


def likeliest(logits, draws, top, shape):
    """Returns the `top` likeliest tokens of rows [G, N], int32[G, N, top], and their float32
    log-probabilities at the temperature."""
    scaled = jax.nn.log_softmax(logits / draws.columns().temperature, axis=-1)
    logprobs, tokens = jax.lax.top_k(scaled, top)
    return tokens.reshape(*shape, top).astype(jnp.int32), logprobs.reshape(*shape, top)


def _draw(logits, keys, positions, draws, mode):
    """Draws with `sample` for rows that stand as [G, N]."""
    shape = positions.shape
    is_greedy = None if draws.is_greedy is None else draws.is_greedy.reshape(-1)
    if draws.greedy_rows is not None:
        last = jnp.arange(shape[1]) >= shape[1] - draws.greedy_rows
        is_greedy = jnp.broadcast_to(last, shape).reshape(-1)
    tokens, logprobs = sample(
        logits, keys.reshape(-1, 2), positions.reshape(-1), draws.columns(), mode, is_greedy
    )
    return tokens.reshape(shape), logprobs.reshape(shape)


def _ends(tokens, draws):
    return jnp.any(tokens[..., None] == draws.end_ids[None, None, :], axis=-1)


def _pack(tokens, valid, logprobs, lengths, done) -> jax.Array:
    """Returns the array of `ResultTokens`, from [G, N, W] and [G, N]."""
    columns = [
        tokens,
        valid.astype(jnp.int32),
        jax.lax.bitcast_convert_type(logprobs, jnp.int32),
        lengths[..., None],
        done.astype(jnp.int32)[..., None],
    ]
    data = jnp.concatenate(columns, axis=-1)
    return data.reshape(-1, data.shape[-1])


def _spread(state: DecodeState, mesh: Mesh | None) -> DecodeState:
    """Pins the slots to their devices, so that a state looks the same to the next program.

    No copy, no new compile.
    """
    if mesh is None:
        return state

    rows = sharding.batch_sharding(mesh)
    rest = {k: v for k, v in state._asdict().items() if k != "cache"}
    rest = jax.lax.with_sharding_constraint(rest, rows)
    return DecodeState(cache=caches.spread(state.cache, mesh), **rest)

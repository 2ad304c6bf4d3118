"""Our engine as an Engine of google-jetstream 0.2.2, for servers built on its orchestrator.

Nothing else in evr1 imports this module, and JetStream itself is imported on first use: its
engine_api pulls TensorFlow in through seqio. What 0.2.2 has no place for stays behind: log-probs,
a seed and an id for every request, the end token. Request ids are the order of prefill.
"""

import functools
import importlib
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from evr1.data.records import Geometry
from evr1.parallel import sharding
from evr1.sampler.engine import DecodeState, Engine, Prefix
from evr1.sampler.sampling import RowIds
from evr1.types import Params, Prompts, VisionInput

PREFILL_LENGTHS = tuple(2**i for i in range(4, 16))  # JetStream pads prompts to these
# JetStream puts a begin token in front of every prompt; Qwen has none, so it is marked and removed.
NO_TOKEN = -1


@runtime_checkable
class Text(Protocol):
    """The part of `evr1.data.processor.Processor` that is needed here."""

    pad_id: int
    end_ids: tuple[int, ...]

    def tokenize(self, text: str) -> list[int]:
        """Returns the token ids."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text."""
        ...


class ServedState(NamedTuple):
    """A decode state, and which of its last tokens JetStream has not been given yet.

    The engine draws the first token in prefill, JetStream 0.2.2 takes tokens from generate alone:
    it gets them one late.
    """

    state: DecodeState
    pending: jax.Array  # bool[G, N]


def serve(engine: Engine, params: Params, *, text: Text, geometry: Geometry) -> Any:
    """Returns `engine` as a `jetstream.engine.engine_api.Engine`.

    A request's `padded_tokens` are token ids; a Driver whose `_process_prefill_content` returns a
    `Prompts` record of one prompt serves images and videos. With an engine window over 1, JetStream
    notices a request's own max_tokens only at the end of a window.

    Args:
        engine: what decodes; its prompt_tokens must be a power of two from 16 to 32768.
        params: of the model; `load_params` hands them out.
        text: turns text into tokens and back.
        geometry: how pixels are cut into patches.

    Raises:
        ImportError: google-jetstream is not installed.
        ValueError: JetStream does not know the engine's prompt length.
    """
    if engine.prompt_tokens not in PREFILL_LENGTHS:
        raise ValueError(
            f"prompt_tokens={engine.prompt_tokens}; JetStream wants a power of two from"
            f" {PREFILL_LENGTHS[0]} to {PREFILL_LENGTHS[-1]}"
        )
    return _engine_class()(engine, params, text, geometry)


def text_prompt(tokens: np.ndarray, true_length: int, geometry: Geometry) -> Prompts:
    """Returns one prompt without images or videos.

    Args:
        tokens: int[P], padded on the right; a `NO_TOKEN` in front is dropped.
        true_length: tokens that count. JetStream cuts long prompts but not this number.
        geometry: how pixels would be cut into patches.
    """
    tokens = np.asarray(tokens, np.int32)
    length = min(true_length, len(tokens))
    if tokens[0] == NO_TOKEN:
        tokens, length = np.append(tokens[1:], 0), length - 1
    p, s = len(tokens), geometry.merge_size**2
    channels = 3 * geometry.temporal_patch_size * geometry.patch_size**2
    return Prompts(
        tokens=tokens[None].astype(np.int32),
        positions=np.tile(np.arange(p, dtype=np.int32), (1, 3, 1)),
        lengths=np.array([length], np.int32),
        next_positions=np.array([length], np.int32),
        visual_index=np.full((1, p), -1, np.int32),
        vision=VisionInput(
            patches=np.zeros((1, 0, s, channels), np.uint8),
            segment_ids=np.zeros((1, 0, s), np.int32),
            positions=np.zeros((1, 0, s, 2), np.int32),
            interp_index=np.zeros((1, 0, s, 4), np.int32),
            interp_weight=np.zeros((1, 0, s, 4), np.float32),
            is_image=np.zeros((1, 0, s), bool),
        ),
    )


@functools.partial(jax.jit, static_argnames="window")
def _delayed(tokens, pending, data, *, window):
    """Returns tokens and validity one decode step late, and which last tokens are held back."""
    drawn, valid = data[:, :window], data[:, window : 2 * window]
    held = valid[:, -1:]
    is_shown = jnp.concatenate([pending.reshape(-1, 1).astype(jnp.int32), valid[:, :-1]], axis=1)
    tokens = jnp.concatenate([tokens.reshape(-1, 1), drawn[:, :-1]], axis=1)
    lengths = data[:, 3 * window : 3 * window + 1] - held
    return jnp.concatenate([tokens, is_shown, lengths], axis=1), held.reshape(pending.shape) > 0


class _Served:
    """The part of JetStream's interface that needs nothing of JetStream."""

    def __init__(self, engine: Engine, params: Params, text: Text, geometry: Geometry):
        self._engine = engine
        self._params = params
        self._text = text
        self._geometry = geometry
        self._request_ids = itertools.count()

    def prefill(self, *, params, existing_prefix=None, padded_tokens, true_length) -> Prefix:
        """Prefills one prompt: token ids, or a `Prompts` record of one."""
        if existing_prefix is not None:
            raise ValueError("existing_prefix is not supported; send the whole prompt")
        prompts = padded_tokens
        if not isinstance(prompts, Prompts):
            prompts = text_prompt(np.asarray(prompts), true_length, self._geometry)
        ids = RowIds.of_groups(np.array([next(self._request_ids)]), self._engine.n)
        return self._engine.prefill(params=params, prompts=prompts, ids=ids)

    def insert(self, prefix, decode_state, slot) -> ServedState:
        """Returns the state with the prompt in its slot."""
        slots = np.array([slot], np.int32)
        state = self._engine.insert(prefix, decode_state.state, slots)
        return ServedState(state, decode_state.pending.at[slot].set(True))

    def init_decode_state(self, *args, **kwargs) -> ServedState:
        """Returns empty slots."""
        del args, kwargs
        shape = (self.max_concurrent_decodes, self.samples_per_slot)
        return ServedState(self._engine.init_decode_state(), jnp.zeros(shape, bool))

    def load_params(self, *args, **kwargs) -> Params:
        """Returns the parameters that the engine was made with."""
        del args, kwargs
        return self._params

    def get_prefix_destination_sharding(self):
        """Returns a sharding that gives every device the prefix."""
        if self.mesh is None:
            return jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return sharding.replicated(self.mesh)

    @property
    def max_concurrent_decodes(self):
        """Number of slots."""
        return self._engine.max_concurrent_decodes

    @property
    def samples_per_slot(self):
        """Completions of a prompt."""
        return self._engine.samples_per_slot

    @property
    def max_prefill_length(self):
        """Longest prompt, in tokens."""
        return self._engine.max_prefill_length

    @property
    def mesh(self):
        """Mesh which the engine runs on."""
        return self._engine.mesh

    @property
    def colocated_cpus(self):
        """CPUs beside the devices; none are used."""
        return None


@functools.cache
def _tokenizer_class() -> type:
    """Returns the class; made on first use, because its base class lives in JetStream."""
    api = importlib.import_module("jetstream.engine.tokenizer_api")
    token_utils = importlib.import_module("jetstream.engine.token_utils")

    class Tokenizer(api.Tokenizer):
        """JetStream's view of a `Text`."""

        def __init__(self, text: Text):
            self._text = text

        def encode(self, s, **kwargs):
            """Returns padded token ids and their number."""
            return token_utils.pad_tokens(
                np.asarray(self._text.tokenize(s)),
                self.bos_id,
                self.pad_id,
                is_bos=False,
                max_prefill_length=kwargs.get("max_prefill_length"),
                jax_padding=kwargs.get("jax_padding", True),
            )

        def decode(self, token_ids, **kwargs):
            """Returns the text of token ids."""
            del kwargs
            return self._text.decode(token_ids)

        @property
        def pad_id(self):
            """The token that fills prompts."""
            return self._text.pad_id

        @property
        def eos_id(self):
            """The first of the end ids."""
            return self._text.end_ids[0]

        @property
        def bos_id(self):
            """A mark in place of a begin token; see `text_prompt`."""
            return NO_TOKEN

        @property
        def stop_tokens(self):
            """All end ids. JetStream's own default would be the first one and the padding."""
            return set(self._text.end_ids)

    return Tokenizer


@functools.cache
def _engine_class() -> type:
    """Returns the class; made on first use, because its base class lives in JetStream."""
    api = importlib.import_module("jetstream.engine.engine_api")
    tokenizer_pb2 = importlib.import_module("jetstream.engine.tokenizer_pb2")

    class JetStreamEngine(_Served, api.Engine):
        """`Engine` behind JetStream's interface."""

        def generate(self, params, decode_state):
            """Decodes one window."""
            tokens = jnp.copy(decode_state.state.tokens)  # the state is donated
            state, result = self._engine.generate(params, decode_state.state)
            window = result.window
            data, pending = _delayed(tokens, decode_state.pending, result.data, window=window)
            return ServedState(state, pending), api.ResultTokens(
                data=data,
                tokens_idx=(0, window),
                valid_idx=(window, 2 * window),
                length_idx=(2 * window, 2 * window + 1),
                samples_per_slot=self.samples_per_slot,
            )

        def get_tokenizer(self):
            """Returns empty parameters: `build_tokenizer` has the tokenizer already."""
            return tokenizer_pb2.TokenizerParameters()

        def build_tokenizer(self, metadata):
            """Returns the tokenizer that the engine was made with."""
            del metadata
            return _tokenizer_class()(self._text)

    return JetStreamEngine

"""The Qwen3.5 family: the vision tower of Qwen3-VL without DeepStack, and a text model of its own.

A cache holds keys and values of the layers with full attention, and a state of every other one.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evr1.models import delta
from evr1.models.attention import attention, decode_attention
from evr1.models.cache import KV, Cache, Kept, Prefilled, append
from evr1.models.layout import group
from evr1.models.qwen3_5 import text
from evr1.models.qwen3_5.config import Config
from evr1.models.qwen3_5.weights import weights
from evr1.models.qwen3_vl.model import Shared
from evr1.models.weights import Weight
from evr1.types import Params


@dataclasses.dataclass(frozen=True)
class Qwen35(Shared):
    """Qwen3.5, dense or with experts."""

    config: Config

    def init(self, key: jax.Array) -> Params:
        """See Model."""
        keys = jax.random.split(key)
        return {
            "vision": self.init_vision(keys[0]),
            "text": text.init(self.config, keys[1]),
        }

    def weights(self) -> tuple[Weight, ...]:
        """See Model."""
        return weights(self.config)

    def init_cache(self, groups: int, n: int, prompt_tokens: int, completion_tokens: int) -> Cache:
        """See Model."""
        lengths = jnp.zeros(groups, jnp.int32)
        prefix, suffix = (
            self._no_kv(groups, prompt_tokens),
            self._no_kv(groups, n, completion_tokens),
        )
        return Cache(prefix, lengths, suffix, self._no_states(groups, n))

    def decode(
        self,
        params: Params,
        cache: Cache,
        tokens: Int[Array, "g n"],
        steps: Int[Array, " g"],
        positions: Int[Array, " g"],
    ) -> tuple[Float[Array, "g n d"], Cache]:
        """See Model."""
        g, n = tokens.shape
        prefix_seen = jnp.arange(cache.prefix.k.shape[2])[None] < cache.prefix_lengths[:, None]
        suffix_seen = jnp.arange(cache.suffix.k.shape[3])[None] < steps[:, None]

        def attend(q, k, v, layer):
            prefix, suffix = layer
            return decode_attention(q, KV(k, v), prefix, prefix_seen, suffix, suffix_seen)

        def fold(x, kernel, state):
            rows = delta.Inputs(*(y.reshape(g * n, 1, *y.shape[2:]) for y in x))
            state = delta.State(*(y.reshape(g * n, *y.shape[2:]) for y in state))
            out, state = delta.step(rows, kernel, state)
            state = delta.State(*(y.reshape(g, n, *y.shape[1:]) for y in state))
            return out.reshape(g, n, *out.shape[2:]), state

        hidden, new, _ = text.run(
            self.config,
            params["text"],
            params["text"]["embed"][tokens].astype(self.dtype),
            jnp.broadcast_to(positions[:, None, None], (g, 3, 1)),
            text.Mixing(attend, fold),
            extra=text.Extra((cache.prefix, cache.suffix), cache.states),
            keep_cache=True,
        )
        # A group that has come to the end of its cache keeps its states, as it keeps its keys.
        moves = (steps >= 0) & (steps < cache.suffix.k.shape[3])

        def advance(old, new):
            return jnp.where(moves.reshape(1, g, *[1] * (old.ndim - 2)), new.astype(old.dtype), old)

        if new.delta:
            cache = cache._replace(states=jax.tree.map(advance, cache.states, new.delta))
        return hidden, append(cache, new.full, steps) if new.full else cache

    def _forward(self, params, prompts, completions, *, keep_cache=False, keep_router=False):
        """See Shared."""
        visual = self.encode(params, prompts.vision)
        g, n, r = completions.shape
        p = prompts.tokens.shape[1]
        x, positions = self._embed(params, prompts, completions, visual)
        hidden, new, router = text.run(
            self.config,
            params["text"],
            x,
            positions,
            self.group_mixing(prompts.lengths, p, n, r),
            keep_cache=keep_cache,
            keep_router=keep_router,
            remat=self.remat and not keep_cache,
        )
        cache = Prefilled(new.full or self._no_kv(g, p), new.delta or self._no_states(g))
        return hidden, Kept(cache if keep_cache else None, router)

    def group_mixing(
        self, lengths: Int[Array, " g"], prompt: int, completions: int, completion: int
    ) -> text.Mixing:
        """How tokens meet in [prompt | completion 0 | ...], the prompts padded to `prompt`."""
        layout = group(lengths, prompt, completions, completion)
        start = jax.tree.map(lambda y: y[0], self._no_states(len(lengths), layers=1))

        def fold(x, kernel, _):
            own = completion if completions else 0
            return delta.run_group(x, kernel, start, lengths, prompt, own)

        return text.Mixing(lambda q, k, v, _: attention(q, k, v, layout, self.implementation), fold)

    def _no_kv(self, *batch: int) -> KV:
        c = self.config
        shape = (c.attention_layers, *batch, c.kv_heads, c.head_dim)
        return KV(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))

    def _no_states(self, *batch: int, layers: int | None = None) -> delta.State:
        c, d = self.config, self.config.delta
        layers = c.layers - c.attention_layers if layers is None else layers
        return delta.empty(
            (layers, *batch),
            heads=d.value_heads,
            key_dim=d.key_dim,
            value_dim=d.value_dim,
            channels=d.channels,
            width=d.conv_width,
            dtype=jnp.dtype(self.dtype),
        )

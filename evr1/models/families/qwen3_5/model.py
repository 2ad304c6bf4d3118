"""The Qwen3.5 family: the vision tower of Qwen3-VL without DeepStack, and a text model of its own.

A cache holds keys and values of the layers with full attention, and a state of every other one.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evr1.models.families.qwen3_5 import text
from evr1.models.families.qwen3_5.config import Config
from evr1.models.families.qwen3_5.weights import weights
from evr1.models.nn import delta, shared_delta
from evr1.models.nn.attention import attention
from evr1.models.nn.cache import KV, Cache, Kept, Prefilled, append, empty
from evr1.models.nn.decode import decode_attention, reader
from evr1.models.nn.layout import group
from evr1.models.towers import qwen3
from evr1.models.vision_language import VisionLanguageModel
from evr1.models.weights import Weight
from evr1.types import Params


@dataclasses.dataclass(frozen=True)
class Qwen35(VisionLanguageModel):
    """Qwen3.5, dense or with experts."""

    tower = qwen3
    config: Config

    def init_text(self, key: jax.Array) -> Params:
        """See VisionLanguageModel."""
        return text.init(self.config, key)

    def weights(self) -> tuple[Weight, ...]:
        """See Model."""
        return weights(self.config)

    def layers_apart(self, params: Params) -> tuple[Params, ...]:
        """See Model; a layer is a block here."""
        blocks = params["text"]["blocks"]
        return tuple(jax.tree.map(lambda y, i=i: y[i], blocks) for i in range(self.config.blocks))

    def init_cache(self, groups: int, n: int, prompt_tokens: int, completion_tokens: int) -> Cache:
        """See Model."""
        c = self.config
        shape = (c.attention_layers, c.kv_heads, c.head_dim)
        room = (prompt_tokens, completion_tokens)
        cache = empty(shape, self.dtype, groups, n, *room, prefix_dtype=self.cache_dtype)
        return cache._replace(states=self._no_states(groups, n))

    def decode(
        self,
        params: Params,
        cache: Cache,
        tokens: Int[Array, "g n"],
        steps: Int[Array, "g n"],
        positions: Int[Array, "g n"],
        room: int | None = None,
    ) -> tuple[Float[Array, "g n d"], Cache]:
        """See Model."""
        g, n = tokens.shape
        read = reader(cache, self.implementation)
        # A row that has come to the end of its cache keeps its states, as it keeps its keys.
        moves = (steps >= 0) & (steps < cache.suffix.k.shape[4])

        def attend(q, k, v, layer):
            return decode_attention(q, KV(k, v), cache, layer, steps, read, room)

        def fold(x, kernel, state):
            rows = delta.Inputs(*(y.reshape(g * n, 1, *y.shape[2:]) for y in x))
            before = delta.State(*(y.reshape(g * n, *y.shape[2:]) for y in state))
            out, after = delta.decode(rows, kernel, before)

            def advance(old, new):
                own = moves.reshape(g, n, *[1] * (old.ndim - 2))
                return jnp.where(own, new.reshape(old.shape).astype(old.dtype), old)

            return out.reshape(g, n, *out.shape[2:]), jax.tree.map(advance, state, after)

        hidden, new, _ = text.run(
            self.config,
            self.to_decode(params["text"], "blocks"),
            params["text"]["embed"][tokens].astype(self.dtype),
            jnp.broadcast_to(positions[:, None], (g, 3, n)),
            text.Mixing(attend, fold),
            extra=text.Extra(jnp.arange(self.config.attention_layers), cache.states),
            keep_cache=True,
        )
        cache = cache._replace(states=new.delta)
        return hidden, append(cache, new.full, steps, hidden) if new.full else cache

    def _forward(
        self, params, prompts, completions, *, lengths=None, keep_cache=False, keep_router=False
    ):
        """See VisionLanguageModel."""
        visual = self.encode(params, prompts.vision)
        g, n, r = completions.shape
        p = prompts.tokens.shape[1]
        devices = self._shared(prompts, completions, keep_cache=keep_cache)
        x, positions, _ = self._embed(params, prompts, completions, visual, devices)
        hidden, new, router = text.run(
            self.config,
            params["text"],
            x,
            positions,
            self.group_mixing(prompts.lengths, p, n, r, lengths, devices=devices),
            keep_cache=keep_cache,
            keep_router=keep_router,
            remat="none" if keep_cache else self.remat,
            read=self._reader(prompts, devices),
        )
        kv = new.full or self._no_kv(g, p + n * r)
        states = new.delta or self._no_states(*((g,) if lengths is None else (g, n)))
        cache = Prefilled(kv, states)
        return hidden, Kept(cache if keep_cache else None, router)

    def group_mixing(
        self,
        lengths: Int[Array, " g"],
        prompt: int,
        completions: int,
        completion: int,
        own_lengths: Int[Array, "g n"] | None = None,
        devices: int = 1,
    ) -> text.Mixing:
        """Returns how tokens meet in [prompt | completion 0 | ...], prompts padded to `prompt`.

        States are those after the prompts; with `own_lengths` those after each completion. Where
        several devices share a group the tokens stand in their order.
        """
        layout = group(lengths, prompt, completions, completion, devices)
        start = jax.tree.map(lambda y: y[0], self._no_states(len(lengths), layers=1))

        def fold(x, kernel, _):
            own = completion if completions else 0
            if devices > 1:
                out = shared_delta.run_group(x, kernel, start, lengths, layout.rule)
                return out, start  # nobody keeps a state of a group that devices share
            return delta.run_group(x, kernel, start, lengths, prompt, own, own_lengths=own_lengths)

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

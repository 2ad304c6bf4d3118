"""The Qwen3-VL families: vision tower and text model, dense or not, under the Model contract."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evr1.models.attention import attention, decode_attention
from evr1.models.base import Model
from evr1.models.cache import KV, Cache, Kept, Prefilled, append
from evr1.models.layout import group
from evr1.models.qwen3_vl import text
from evr1.models.qwen3_vl import vision as vision_tower
from evr1.models.qwen3_vl.config import Config
from evr1.models.qwen3_vl.weights import weights
from evr1.models.weights import Weight
from evr1.types import Params, Prompts, VisionInput, Visual


@dataclasses.dataclass(frozen=True)
class Shared(Model):
    """What the families have in common: what surrounds the tower and the layers of the text model.

    Attributes:
        tower: module of the vision tower; Qwen3-VL's, where a family has none of its own.
    """

    tower: ClassVar[Any] = vision_tower

    def init_vision(self, key: jax.Array) -> Params:
        """Random parameters of the vision tower."""
        return self.tower.init(self.config.vision, key)

    def encode_vision(self, params: Params, vision: VisionInput) -> Visual:
        """The vision tower, whatever the batch holds."""
        return self.tower.encode(
            self.config.vision,
            params,
            vision,
            dtype=jnp.dtype(self.dtype),
            remat=self.remat,
            implementation=self.implementation,
        )

    def encode(self, params: Params, vision: VisionInput | Visual) -> Visual:
        """See Model."""
        if isinstance(vision, Visual):
            return vision
        encode = self.encode_vision
        if not vision.segment_ids.size:
            return encode(params["vision"], vision)
        shapes = jax.eval_shape(encode, params["vision"], vision)
        # A batch of text alone has the shapes of any other, and no pass through the tower.
        return jax.lax.cond(
            (vision.segment_ids > 0).any(),
            encode,
            lambda *_: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
            params["vision"],
            vision,
        )

    def group_forward(
        self,
        params: Params,
        prompts: Prompts,
        completions: Int[Array, "g n r"],
        *,
        keep_router: bool = False,
    ) -> tuple[Float[Array, "g n r d"], Kept]:
        """See Model."""
        g, n, r = completions.shape
        p = prompts.tokens.shape[1]
        hidden, kept = self._forward(params, prompts, completions, keep_router=keep_router)
        last = _last(hidden[:, :p], prompts.lengths)
        after = hidden[:, p:].reshape(g, n, r, -1)[:, :, :-1]
        first = jnp.broadcast_to(last[:, None, None], (g, n, 1, last.shape[-1]))
        return jnp.concatenate([first, after], axis=2), kept

    def prefill(
        self, params: Params, prompts: Prompts
    ) -> tuple[Float[Array, "g d"], KV | Prefilled]:
        """See Model."""
        empty = jnp.zeros((prompts.tokens.shape[0], 0, 0), jnp.int32)
        hidden, kept = self._forward(params, prompts, empty, keep_cache=True)
        assert kept.cache is not None
        return _last(hidden, prompts.lengths), kept.cache

    def logits(self, params: Params, hidden: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """See Model."""
        return text.logits(self.config, params["text"], hidden)

    @abc.abstractmethod
    def _forward(
        self,
        params: Params,
        prompts: Prompts,
        completions: Int[Array, "g n r"],
        *,
        keep_cache: bool = False,
        keep_router: bool = False,
    ) -> tuple[Float[Array, "g t d"], Kept]:
        """Hidden states of [prompt | completion 0 | ...], and what is to be kept."""

    def _embed(self, params, prompts, completions, visual):
        """Embeddings and positions of [prompt | completion 0 | ...]."""
        g, n, r = completions.shape
        x = text.embed(
            params["text"], prompts.tokens, visual, prompts.visual_index, jnp.dtype(self.dtype)
        )
        positions = prompts.positions
        if n:
            answers = params["text"]["embed"][completions.reshape(g, n * r)].astype(x.dtype)
            x = jnp.concatenate([x, answers], axis=1)
            after = prompts.next_positions[:, None] + jnp.tile(jnp.arange(r), n)[None]
            after = jnp.broadcast_to(after[:, None], (g, 3, n * r))
            positions = jnp.concatenate([positions, after], axis=2)
        return x, positions


@dataclasses.dataclass(frozen=True)
class Qwen3VL(Shared):
    """Qwen3-VL, dense or with a mixture of experts."""

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
        c = self.config

        def zeros(*middle: int) -> KV:
            shape = (c.layers, groups, *middle, c.kv_heads, c.head_dim)
            return KV(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))

        lengths = jnp.zeros(groups, jnp.int32)
        return Cache(zeros(prompt_tokens), lengths, zeros(n, completion_tokens))

    def decode(
        self,
        params: Params,
        cache: Cache,
        tokens: Int[Array, "g n"],
        steps: Int[Array, " g"],
        positions: Int[Array, " g"],
    ) -> tuple[Float[Array, "g n d"], Cache]:
        """See Model."""
        prefix_seen = jnp.arange(cache.prefix.k.shape[2])[None] < cache.prefix_lengths[:, None]
        suffix_seen = jnp.arange(cache.suffix.k.shape[3])[None] < steps[:, None]

        def attend(q, k, v, layer):
            prefix, suffix = layer
            return decode_attention(q, KV(k, v), prefix, prefix_seen, suffix, suffix_seen)

        x = params["text"]["embed"][tokens].astype(self.dtype)
        hidden, kept = text.run(
            self.config,
            params["text"],
            x,
            jnp.broadcast_to(positions[:, None, None], (len(positions), 3, 1)),
            attend,
            extra=(cache.prefix, cache.suffix),
            keep_cache=True,
        )
        assert isinstance(kept.cache, KV)
        return hidden, append(cache, kept.cache, steps)

    def _forward(self, params, prompts, completions, *, keep_cache=False, keep_router=False):
        """See Shared."""
        visual = self.encode(params, prompts.vision)
        _, n, r = completions.shape
        x, positions = self._embed(params, prompts, completions, visual)
        layout = group(prompts.lengths, prompts.tokens.shape[1], n, r)
        deepstack = None
        if visual.deepstack.size:
            deepstack = text.DeepStack(visual.deepstack, prompts.visual_index)
        return text.run(
            self.config,
            params["text"],
            x,
            positions,
            lambda q, k, v, _: attention(q, k, v, layout, self.implementation),
            deepstack=deepstack,
            keep_cache=keep_cache,
            keep_router=keep_router,
            remat=self.remat and not keep_cache,
        )


def _last(hidden: Float[Array, "g p d"], lengths: Int[Array, " g"]) -> Float[Array, "g d"]:
    return jax.vmap(lambda h, i: h[i - 1])(hidden, lengths)

"""What surrounds the vision tower and the layers of the text model, in every family."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evr1.models.base import Model
from evr1.models.nn import context, embedding
from evr1.models.nn.cache import KV, Kept, Prefilled
from evr1.models.nn.layout import read
from evr1.models.nn.stack import Read, everything
from evr1.parallel import sharding
from evr1.types import Params, Prompts, Questions, VisionInput, Visual


@dataclasses.dataclass(frozen=True)
class VisionLanguageModel(Model):
    """A vision tower before a text model.

    Attributes:
        tower: the module of `towers/` with the vision tower.
    """

    tower: ClassVar[Any]

    def init(self, key: jax.Array) -> Params:
        """See Model."""
        keys = jax.random.split(key)
        return {
            "vision": self.tower.init(self.config.vision, keys[0]),
            "text": self.init_text(keys[1]),
        }

    @abc.abstractmethod
    def init_text(self, key: jax.Array) -> Params:
        """Returns random parameters of the text model."""

    @jax.named_scope("tower")
    def encode_vision(self, params: Params, vision: VisionInput) -> Visual:
        """Returns what the vision tower gives, whatever the batch holds."""
        vision = VisionInput(*map(_fill_up, vision))
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
            return Visual(_fill_up(vision.embeds), _fill_up(vision.deepstack, 2))
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
        devices = sharding.context_size()
        if devices > 1:
            last = context.last(hidden, prompts.lengths, p, devices)
            after = context.completions(hidden, p, n, devices)[:, :, :-1]
            if kept.router is not None:
                kept = kept._replace(router=context.plain(kept.router, p, devices, 2))
        else:
            last, after = hidden[:, 0], hidden[:, 1:].reshape(g, n, r, -1)[:, :, :-1]
        first = jnp.broadcast_to(last[:, None, None], (g, n, 1, last.shape[-1]))
        return jnp.concatenate([first, after], axis=2), kept

    def prefill(
        self, params: Params, prompts: Prompts, questions: Questions | None = None
    ) -> tuple[Float[Array, "g *n d"], KV | Prefilled]:
        """See Model."""
        g, p = prompts.tokens.shape
        if questions is None:
            empty = jnp.zeros((g, 0, 0), jnp.int32)
            hidden, kept = self._forward(params, prompts, empty, keep_cache=True)
            assert kept.cache is not None
            return hidden[:, 0], kept.cache
        _, n, q = questions.tokens.shape
        hidden, kept = self._forward(
            params, prompts, questions.tokens, lengths=questions.lengths, keep_cache=True
        )
        assert kept.cache is not None
        cache = kept.cache if isinstance(kept.cache, Prefilled) else Prefilled(kept.cache)
        asked = KV(*(x[:, :, p:].reshape(-1, g, n, q, *x.shape[3:]) for x in cache.kv))
        cache = cache._replace(kv=KV(*(x[:, :, :p] for x in cache.kv)), questions=asked)
        return last_of(hidden[:, 1:].reshape(g, n, q, -1), questions.lengths), cache

    @jax.named_scope("head")
    def logits(self, params: Params, hidden: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """See Model."""
        return embedding.logits(params["text"], hidden, tied=self.config.tied)

    @abc.abstractmethod
    def _forward(
        self,
        params: Params,
        prompts: Prompts,
        completions: Int[Array, "g n r"],
        *,
        lengths: Int[Array, "g n"] | None = None,
        keep_cache: bool = False,
        keep_router: bool = False,
    ) -> tuple[Float[Array, "g q d"], Kept]:
        """Returns hidden states of [last token of the prompt | completion 0 | ...], and what is to
        be kept.

        Where devices share a group they are those of all tokens, in the devices' order.

        Args:
            params: of this model.
            prompts: G prompts.
            completions: N token rows for each.
            lengths: of the rows, where the states after them are to be kept; None: those after
                the prompts.
            keep_cache: keep keys, values and states.
            keep_router: keep the router's logits.
        """

    @staticmethod
    def to_decode(text: Params, layers: str) -> Params:
        """Returns the parameters of the text model with its layers apart, where they are there."""
        return text | {layers: text["apart"]} if "apart" in text else text

    def _shared(self, prompts: Prompts, completions: jax.Array, *, keep_cache: bool) -> int:
        """Returns how many devices share the tokens of a group.

        Raises:
            ValueError: they cannot.
        """
        devices = 1 if keep_cache else sharding.context_size()
        context.check(prompts.tokens.shape[1], completions.shape[1], devices)
        return devices

    def _reader(self, prompts: Prompts, devices: int) -> Read:
        """Returns what picks the tokens whose hidden states are asked for."""
        if devices > 1:
            return everything
        return lambda x: read(x, prompts.lengths, prompts.tokens.shape[1])

    def _embed(self, params, prompts, completions, visual, devices):
        """Returns embeddings, positions and visual indices of [prompt | completion 0 | ...].

        Indices are those of the prompt, but where devices share a group.
        """
        g, n, r = completions.shape
        after = prompts.next_positions[:, None] + jnp.tile(jnp.arange(r), n)[None]
        after = jnp.broadcast_to(after[:, None], (g, 3, n * r))
        answers, dtype = completions.reshape(g, n * r), jnp.dtype(self.dtype)
        tokens, positions, index = prompts.tokens, prompts.positions, prompts.visual_index
        if devices > 1:
            tokens = context.share(tokens, answers, devices)
            positions = context.share(positions, after, devices, axis=2)
            index = context.share(index, jnp.full_like(answers, -1), devices)
        x = embedding.embed(params["text"], tokens, visual, index, dtype)
        if n and devices == 1:
            answers = params["text"]["embed"][answers].astype(x.dtype)
            x = jnp.concatenate([x, answers], axis=1)
            positions = jnp.concatenate([positions, after], axis=2)
        return x, positions, index


def _fill_up(x: jax.Array, axis: int = 1) -> jax.Array:
    """Returns zeros behind x, so that devices that share a group can have equal parts."""
    missing = -x.shape[axis] % sharding.context_size()
    return jnp.pad(x, [(0, missing * (i == axis)) for i in range(x.ndim)]) if missing else x


def last_of(hidden: Float[Array, "g n q d"], lengths: Int[Array, "g n"]) -> Float[Array, "g n d"]:
    """Returns the hidden state of the last token of each row."""
    return jax.vmap(jax.vmap(lambda own, length: own[length - 1]))(hidden, lengths)

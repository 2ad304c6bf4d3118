"""The decoder under the Model contract: its cache holds keys and values of every layer."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evr1.models.decoder import text
from evr1.models.decoder.config import Config
from evr1.models.decoder.weights import weights
from evr1.models.nn.attention import attention
from evr1.models.nn.cache import KV, Cache, Prefilled, append, empty
from evr1.models.nn.decode import decode_attention, reader
from evr1.models.nn.embedding import place
from evr1.models.nn.layout import group
from evr1.models.vision_language import VisionLanguageModel, last_of
from evr1.models.weights import Weight
from evr1.types import Params, Questions


@dataclasses.dataclass(frozen=True)
class DecoderModel(VisionLanguageModel):
    """A family whose text model is the decoder.

    Attributes:
        text_root: what the HF names of the text model's tensors begin with.
    """

    text_root: ClassVar[str]
    config: Config

    def init_text(self, key: jax.Array) -> Params:
        """See VisionLanguageModel."""
        return text.init(self.config, key)

    def weights(self) -> tuple[Weight, ...]:
        """See Model."""
        return (*self.tower.weights(self.config.vision), *weights(self.config, self.text_root))

    def layers_apart(self, params: Params) -> tuple[Params, ...]:
        """See Model."""
        return text.layers_apart(self.config, params["text"]["layers"])

    def init_cache(self, groups: int, n: int, prompt_tokens: int, completion_tokens: int) -> Cache:
        """See Model."""
        c = self.config
        shape = (c.layers, c.kv_heads, c.head_dim)
        room = (prompt_tokens, completion_tokens)
        return empty(shape, self.dtype, groups, n, *room, prefix_dtype=self.cache_dtype)

    @property
    def can_extend(self) -> bool:
        """See Model."""
        return True

    def extend(
        self,
        params: Params,
        prefix: KV,
        lengths: Int[Array, " g"],
        next_positions: Int[Array, " g"],
        questions: Questions,
    ) -> tuple[Float[Array, "g n d"], Prefilled]:
        """See Model."""
        g, n, q = questions.tokens.shape
        p = prefix.k.shape[2]
        layout = group(lengths, p, n, q)

        # The first query stands for the prompt's last token, as `layout.read` leaves it: nobody
        # reads what becomes of it, nor its key.
        def attend(queries, k, v, kept):
            keys, values = (
                jnp.concatenate([old.astype(new.dtype), new[:, 1:]], axis=1)
                for old, new in zip(kept, (k, v), strict=True)
            )
            return attention(queries, keys, values, layout, self.implementation)

        tokens = jnp.pad(questions.tokens.reshape(g, n * q), ((0, 0), (1, 0)))
        steps = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.tile(jnp.arange(q), n)])
        positions = next_positions[:, None] + steps[None]
        hidden, kept = text.run(
            self.config,
            params["text"],
            params["text"]["embed"][tokens].astype(self.dtype),
            jnp.broadcast_to(positions[:, None], (g, 3, 1 + n * q)),
            attend,
            extra=prefix,
            keep_cache=True,
        )
        assert isinstance(kept.cache, KV)
        asked = KV(*(x[:, :, 1:].reshape(-1, g, n, q, *x.shape[3:]) for x in kept.cache))
        return last_of(hidden[:, 1:].reshape(g, n, q, -1), questions.lengths), Prefilled(
            prefix, questions=asked
        )

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
        read = reader(cache, self.implementation)

        def attend(q, k, v, layer):
            return decode_attention(q, KV(k, v), cache, layer, steps, read, room)

        x = params["text"]["embed"][tokens].astype(self.dtype)
        hidden, kept = text.run(
            self.config,
            self.to_decode(params["text"], "layers"),
            x,
            jnp.broadcast_to(positions[:, None], (len(positions), 3, positions.shape[1])),
            attend,
            extra=jnp.arange(self.config.layers),
            keep_cache=True,
        )
        assert isinstance(kept.cache, KV)
        return hidden, append(cache, kept.cache, steps, hidden)

    def _forward(
        self, params, prompts, completions, *, lengths=None, keep_cache=False, keep_router=False
    ):
        """See VisionLanguageModel."""
        del lengths  # keys and values alone are kept, and of all tokens
        visual = self.encode(params, prompts.vision)
        _, n, r = completions.shape
        devices = self._shared(prompts, completions, keep_cache=keep_cache)
        x, positions, index = self._embed(params, prompts, completions, visual, devices)
        layout = group(prompts.lengths, prompts.tokens.shape[1], n, r, devices)
        deepstack = None
        if visual.deepstack.size:
            # Outside the scan: libtpu does not compile a gather in a branch of a loop that keeps
            # its layers' inputs in the host's memory.
            put = jax.vmap(lambda f: place(f, index, x.dtype), 1, 1)
            deepstack = put(visual.deepstack)
        return text.run(
            self.config,
            params["text"],
            x,
            positions,
            lambda q, k, v, _: attention(q, k, v, layout, self.implementation),
            deepstack=deepstack,
            keep_cache=keep_cache,
            keep_router=keep_router,
            remat="none" if keep_cache else self.remat,
            read=self._reader(prompts, devices),
        )

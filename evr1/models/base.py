"""The contract between the models and everything that uses them."""

import abc
import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float, Int

from evr1.models import cache as caches
from evr1.models.cache import KV, Cache, Kept, Prefilled
from evr1.models.weights import Weight
from evr1.types import Params, Prompts, VisionInput, Visual


@dataclasses.dataclass(frozen=True)
class Model(abc.ABC):
    """A model family with its sizes; hashable, holds no arrays, safe to close over in jit.

    Every hidden state that a method returns is after the final norm, ready for `logits`.

    Attributes:
        config: sizes and token ids.
        dtype: of the computation; parameters stay float32.
        remat: recompute activations in the backward pass, layer by layer.
        implementation: of attention, see evr1.models.attention.
    """

    config: Any
    dtype: str = "float32"
    remat: bool = True
    implementation: str = "auto"

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Params:
        """Random parameters, float32, layers stacked on a leading axis."""

    @abc.abstractmethod
    def weights(self) -> tuple[Weight, ...]:
        """Which HF tensor becomes which parameter."""

    @abc.abstractmethod
    def encode(self, params: Params, vision: VisionInput | Visual) -> Visual:
        """The visual tokens of every prompt. F = 0 rows give T = 0 tokens; features stay as they
        are.
        """

    @abc.abstractmethod
    def group_forward(
        self,
        params: Params,
        prompts: Prompts,
        completions: Int[Array, "g n r"],
        *,
        keep_router: bool = False,
    ) -> tuple[Float[Array, "g n r d"], Kept]:
        """The hidden state that predicts completions[g, n, t], and the router's logits.

        For t = 0 it stands on the prompt's last token, for t > 0 on completion token t - 1. The
        prompt and its images and videos go through the network once for all N completions.

        Args:
            params: of this model.
            prompts: G prompts; their media may be what `encode` returned.
            completions: N token rows for each.
            keep_router: also return the logits of the layers that have experts, of
                [prompt | completion 0 | completion 1 | ...].
        """

    def with_dropout(
        self, params: Params, update: Int[Array, " g"], groups: Int[Array, " g"]
    ) -> Params:
        """The parameters as `group_forward` is to take them in an update, see GroupBatch."""
        del update, groups
        return params

    def group_hidden(
        self,
        params: Params,
        prompts: Prompts,
        completions: Int[Array, "g n r"],
    ) -> Float[Array, "g n r d"]:
        """The hidden states of `group_forward`."""
        return self.group_forward(params, prompts, completions)[0]

    @abc.abstractmethod
    def prefill(
        self, params: Params, prompts: Prompts
    ) -> tuple[Float[Array, "g d"], KV | Prefilled]:
        """The hidden state of each prompt's last token, and what `insert` puts into a cache."""

    @abc.abstractmethod
    def init_cache(self, groups: int, n: int, prompt_tokens: int, completion_tokens: int) -> Cache:
        """An empty cache of `groups` slots with n completions each."""

    def insert(
        self,
        cache: Cache,
        prefix: KV | Prefilled,
        prefix_lengths: Int[Array, " g"],
        slots: Int[Array, " g"],
    ) -> Cache:
        """The cache with the prefixes of g groups in `slots`; a slot out of range is left out."""
        return caches.insert(cache, prefix, prefix_lengths, slots)

    @abc.abstractmethod
    def decode(
        self,
        params: Params,
        cache: Cache,
        tokens: Int[Array, "g n"],
        steps: Int[Array, " g"],
        positions: Int[Array, " g"],
    ) -> tuple[Float[Array, "g n d"], Cache]:
        """One more token of every completion.

        Args:
            params: of this model.
            cache: donate it, it is updated in place.
            tokens: completion token `steps[g]` of each row of group g.
            steps: how many completion tokens the group has behind it; outside [0, R) nothing is
                written.
            positions: rotary position of the token, the same on all axes.
        """

    @abc.abstractmethod
    def logits(self, params: Params, hidden: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """Float32 logits over the vocabulary."""

    def abstract_params(self) -> Params:
        """The parameter tree as ShapeDtypeStructs, without any array."""
        return jax.eval_shape(self.init, jax.random.key(0))

"""The contract between the models and everything that uses them."""

import abc
import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from evr1.models.config import ModelConfig
from evr1.models.nn import cache as caches
from evr1.models.nn.cache import KV, Cache, Kept, Prefilled
from evr1.models.tree import unflatten
from evr1.models.weights import Role, Weight
from evr1.parallel.sharding import param_shardings, undivided
from evr1.types import Params, Prompts, Questions, VisionInput, Visual


@dataclasses.dataclass(frozen=True)
class Model(abc.ABC):
    """A model family with its sizes; hashable, holds no arrays, safe to close over in jit.

    Every hidden state that a method returns is after the final norm, ready for `logits`.

    Attributes:
        config: sizes and token ids.
        dtype: of the computation; parameters stay float32.
        remat: what a layer keeps for its backward pass, see evr1.models.nn.remat.
        implementation: of attention, see evr1.models.nn.attention.
        cache_dtype: of the prompts' keys and values in a sampler's cache, int8 or that of the
            computation where empty.
    """

    config: ModelConfig
    dtype: str = "float32"
    remat: str = "full"
    implementation: str = "auto"
    cache_dtype: str = ""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Params:
        """Returns random parameters, float32, layers stacked on a leading axis."""

    @abc.abstractmethod
    def weights(self) -> tuple[Weight, ...]:
        """Returns which HF tensor becomes which parameter, and what each parameter is."""

    @abc.abstractmethod
    def encode(self, params: Params, vision: VisionInput | Visual) -> Visual:
        """Returns the visual tokens of every prompt.

        F = 0 rows give T = 0 tokens; features stay as they are.
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
        """Returns the hidden state that predicts completions[g, n, t], and the router's logits.

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
        """Returns the parameters as `group_forward` takes them in an update, see GroupBatch."""
        del update, groups
        return params

    def group_hidden(
        self,
        params: Params,
        prompts: Prompts,
        completions: Int[Array, "g n r"],
    ) -> Float[Array, "g n r d"]:
        """Returns the hidden states of `group_forward`."""
        return self.group_forward(params, prompts, completions)[0]

    @abc.abstractmethod
    def prefill(
        self, params: Params, prompts: Prompts, questions: Questions | None = None
    ) -> tuple[Float[Array, "g *n d"], KV | Prefilled]:
        """Returns the hidden state of the last token of each prompt, and what `insert` takes.

        Args:
            params: of this model.
            prompts: G of them.
            questions: what the N rows of each ask behind it; the hidden states are then those of
                the last tokens of the questions, [G, N, D].
        """

    @property
    def can_extend(self) -> bool:
        """Whether questions can be asked behind a prompt whose keys and values are there."""
        return False

    def extend(
        self,
        params: Params,
        prefix: KV,
        lengths: Int[Array, " g"],
        next_positions: Int[Array, " g"],
        questions: Questions,
    ) -> tuple[Float[Array, "g n d"], Prefilled]:
        """Returns what `prefill` with questions does, behind prompts that were prefilled before.

        Args:
            params: of this model.
            prefix: what `prefill` without questions kept of G prompts.
            lengths: of the prompts.
            next_positions: of the first tokens behind them.
            questions: what the N rows of each ask.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps more than keys and values")

    @abc.abstractmethod
    def init_cache(self, groups: int, n: int, prompt_tokens: int, completion_tokens: int) -> Cache:
        """Returns an empty cache of `groups` slots with n rows each.

        Args:
            groups: G.
            n: N.
            prompt_tokens: P.
            completion_tokens: R, with the question of a row where it has one.
        """

    def insert(
        self,
        cache: Cache,
        prefix: KV | Prefilled,
        prefix_lengths: Int[Array, " g"],
        slots: Int[Array, " g"],
    ) -> Cache:
        """Returns the cache with the prefixes of g groups in `slots`.

        A slot out of range is left out.
        """
        return caches.insert(cache, prefix, prefix_lengths, slots)

    @abc.abstractmethod
    def layers_apart(self, params: Params) -> tuple[Params, ...]:
        """Returns the weights of each layer of the text model, sliced out of their stacks.

        `decode` reads them instead of the stacks where they are there as `params["text"]["apart"]`.
        """

    @abc.abstractmethod
    def decode(
        self,
        params: Params,
        cache: Cache,
        tokens: Int[Array, "g n"],
        steps: Int[Array, "g n"],
        positions: Int[Array, "g n"],
        room: int | None = None,
    ) -> tuple[Float[Array, "g n d"], Cache]:
        """Returns the hidden states of one more token of every row, and the cache with it.

        Args:
            params: of this model.
            cache: donate it, it is updated in place.
            tokens: token `steps[g, n]` of each row's suffix.
            steps: how many tokens the suffix has so far; outside [0, R) nothing is written.
            positions: rotary position of the token, the same on all axes.
            room: no suffix has more tokens than this; None: they may fill the cache.
        """

    @abc.abstractmethod
    def logits(self, params: Params, hidden: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """Returns float32 logits over the vocabulary."""

    def axes(self) -> Params:
        """Returns the logical axes of every parameter, in a tree like the parameters."""
        return unflatten({w.path: w.all_axes for w in self.weights()})

    def roles(self) -> dict[str, Role]:
        """Returns what each parameter does, by its path; adapters are not among them."""
        return {w.path: w.role for w in self.weights()}

    def compute_dtypes(self) -> dict[str, str]:
        """Returns the dtype, by path, in which a sampler holds each parameter.

        It is that of the computation for matrices, those of experts too, float32 for all else.
        """
        cast = ("matrix", "router", "experts", "embedding")
        return {p: self.dtype if r in cast else "float32" for p, r in self.roles().items()}

    def shardings(self, mesh: Mesh) -> Any:
        """Returns where each parameter lies on a mesh, in a tree like the parameters."""
        return param_shardings(mesh, self.abstract_params(), self.axes())

    def undivided(self, mesh: Mesh) -> str:
        """Returns a line on parameters whose axes the mesh does not divide; '': there are none."""
        return undivided(mesh, self.abstract_params(), self.axes())

    def abstract_params(self) -> Params:
        """Returns the parameter tree as ShapeDtypeStructs, without any array."""
        return jax.eval_shape(self.init, jax.random.key(0))

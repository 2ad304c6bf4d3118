"""Low-rank adapters on any family: W + (alpha / rank) * A @ B, where only A and B are trained.

`adapt(model, ...)` returns a `Model` whose parameters hold the adapters under "lora", beside those
of the base model. `FROZEN` matches the paths of all parameters that are not adapters.

An update computes x @ W + (x @ A) @ B, for experts too: no array as large as W is made, forward or
backward. A decode step reads all matrices for a few tokens, so there `merged` is cheaper: it adds
the adapters to a second copy of the matrices that have them, and the base model runs alone.

Source: arXiv 2106.09685.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evr1.models.base import Model
from evr1.models.nn.layers import Adapted
from evr1.models.tree import flatten, unflatten
from evr1.models.weights import Weight
from evr1.types import Params

FROZEN = r"(?!lora/).*"  # for `optim.freeze`: all but the adapters
_NOISE = "dropout"  # key of the parameters that holds an update's dropout


@dataclasses.dataclass(frozen=True)
class Lora:
    """Which matrices have adapters, how large they are, and how they are trained."""

    rank: int
    alpha: float
    targets: tuple[str, ...]  # regular expressions of whole parameter paths
    dropout: float = 0.0  # share of an adapter's inputs that an update leaves out
    seed: int = 0  # of the dropout

    @property
    def scale(self) -> float:
        """What A @ B is multiplied by."""
        return self.alpha / self.rank


def adapt(
    model: Model,
    *,
    rank: int,
    alpha: float,
    targets: Sequence[str],
    dropout: float = 0.0,
    seed: int = 0,
) -> "LoraModel":
    """Returns the model with adapters on every matrix that one of the patterns matches.

    Raises:
        ValueError: a pattern matches no matrix, or not only matrices; or there is dropout, and a
            matrix whose inputs it cannot reach.
    """
    lora = Lora(rank, alpha, tuple(targets), dropout, seed)
    kernels = {w.path for w in model.weights() if is_matrix(w)}
    paths = sorted(w.path for w in model.weights())
    for pattern in lora.targets:
        matches = [path for path in paths if re.fullmatch(pattern, path)]
        if not matches or not kernels.issuperset(matches):
            wrong = [path for path in matches if path not in kernels]
            got = f"matches {wrong[0]}, which is no matrix" if matches else "matches no parameter"
            known = [p for p in sorted(kernels) if p.startswith(("text/layers", "text/blocks"))][:3]
            raise ValueError(f"lora.targets: {pattern!r} {got}; paths look like {', '.join(known)}")
    adapted = LoraModel(
        config=model.config,
        dtype=model.dtype,
        remat=model.remat,
        implementation=model.implementation,
        base=model,
        lora=lora,
    )
    for weight in adapted.targets() if dropout else ():
        if weight.role == "experts" or weight.path == "text/head":
            raise ValueError(
                f"lora.dropout={dropout} with adapters on {weight.path}: experts and the head have "
                "no dropout; set it to 0 or take them from lora.targets"
            )
    return adapted


def freeze(model: "LoraModel", patterns: Sequence[str]) -> tuple[str, ...]:
    """Returns the patterns of `optim.freeze` and one that freezes all but the adapters.

    Raises:
        ValueError: a pattern matches a matrix that has adapters: it would move all the same.
    """
    for pattern in patterns:
        for weight in model.targets():
            if re.fullmatch(pattern, weight.path):
                raise ValueError(
                    f"optim.freeze: {pattern!r} matches {weight.path}, which has adapters by "
                    "lora.targets; change one of the two"
                )
    return (*patterns, FROZEN)


def is_matrix(weight: Weight) -> bool:
    """Returns whether a parameter can have adapters."""
    return weight.role in ("matrix", "router", "experts")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraModel(Model):
    """A model with adapters; see Model for what the methods do."""

    base: Model
    lora: Lora

    def init(self, key: jax.Array) -> Params:
        """See Model; B is 0, so that the adapters change nothing yet."""
        return self.attach(self.base.init(key), key)

    def attach(self, params: Params, key: jax.Array) -> Params:
        """Returns the base model's parameters with new adapters."""
        return {**params, "lora": self.init_adapters(key)}

    def init_adapters(self, key: jax.Array) -> Params:
        """Returns new adapters: A uniform within 1 / sqrt(inputs), as peft has it, and B 0."""
        shapes = flatten(self.base.abstract_params())
        adapters, rank = {}, self.lora.rank
        for i, weight in enumerate(self.targets()):
            stack, fan_in, fan_out = split(weight, shapes[weight.path].shape)
            a = jax.random.uniform(jax.random.fold_in(key, i), (*stack, fan_in, rank), minval=-1)
            adapters[weight.path + "/a"] = a * fan_in**-0.5
            adapters[weight.path + "/b"] = jnp.zeros((*stack, rank, fan_out), jnp.float32)
        return unflatten(adapters)

    def targets(self) -> list[Weight]:
        """Returns the matrices that have adapters."""
        patterns = self.lora.targets
        return [w for w in self.weights() if any(re.fullmatch(p, w.path) for p in patterns)]

    def bound(self, params: Params) -> Params:
        """Returns the base model's parameters with `Adapted` in the place of each target."""
        flat, adapters = _parts(params)
        for i, weight in enumerate(self.targets()):
            kernel, dropout = flat[weight.path], None
            if _NOISE in params:
                key, share = params[_NOISE]
                stack = kernel.shape[: int(weight.is_stacked)]
                key = jax.random.split(jax.random.fold_in(key, i), stack)
                dropout = (key, jnp.broadcast_to(share, stack))
            a, b = (adapters[f"{weight.path}/{x}"] for x in "ab")
            flat[weight.path] = Adapted(kernel, a, self.lora.scale * b, dropout)
        return unflatten(flat)

    def with_dropout(self, params, update, groups):
        """See Model; what is left out follows from the seed, the update and the first group."""
        if not self.lora.dropout:
            return params
        key = jax.random.fold_in(jax.random.key(self.lora.seed), update[0])
        share = jnp.where(update[0] < 0, 0, self.lora.dropout)
        return params | {_NOISE: (jax.random.fold_in(key, groups[0]), share)}

    def merge(self, params: Params) -> Params:
        """Returns the base model's parameters, the adapters added to them."""
        flat, adapters = _parts(params)
        for weight in self.targets():
            a, b = (adapters[f"{weight.path}/{x}"] for x in "ab")
            flat[weight.path] = _add(flat[weight.path], a, b, self.lora.scale)
        return unflatten(flat)

    def weights(self) -> tuple[Weight, ...]:
        """See Model; adapters are no part of a HF model."""
        return self.base.weights()

    def axes(self) -> Params:
        """See Model; adapters are whole on every device: they are small, and needed whole."""
        paths = [f"{weight.path}/{x}" for weight in self.targets() for x in "ab"]
        return {**self.base.axes(), "lora": unflatten(dict.fromkeys(paths, ()))}

    def encode(self, params, vision):
        """See Model."""
        return self.base.encode(self.bound(params), vision)

    def group_forward(self, params, prompts, completions, *, keep_router=False):
        """See Model."""
        return self.base.group_forward(
            self.bound(params), prompts, completions, keep_router=keep_router
        )

    def prefill(self, params, prompts, questions=None):
        """See Model."""
        return self.base.prefill(self.bound(params), prompts, questions)

    @property
    def can_extend(self):
        """See Model."""
        return self.base.can_extend

    def extend(self, params, prefix, lengths, next_positions, questions):
        """See Model."""
        return self.base.extend(self.bound(params), prefix, lengths, next_positions, questions)

    def init_cache(self, groups, n, prompt_tokens, completion_tokens):
        """See Model."""
        return self.base.init_cache(groups, n, prompt_tokens, completion_tokens)

    def insert(self, cache, prefix, prefix_lengths, slots):
        """See Model."""
        return self.base.insert(cache, prefix, prefix_lengths, slots)

    def layers_apart(self, params):
        """See Model."""
        return self.base.layers_apart(self.bound(params))

    def decode(self, params, cache, tokens, steps, positions, room=None):
        """See Model."""
        return self.base.decode(self.bound(params), cache, tokens, steps, positions, room)

    def logits(self, params, hidden):
        """See Model."""
        return self.base.logits(self.bound(params), hidden)


def plain(model: Model) -> Model:
    """Returns the model without adapters."""
    return model.base if isinstance(model, LoraModel) else model


def merged(model: Model, params: Params) -> Params:
    """Returns the parameters of `plain(model)` that do the same.

    Matrices without adapters are shared, not copied.
    """
    if not isinstance(model, LoraModel):
        return params
    flat, adapters = _parts(params)
    for weight in model.targets():
        kernel, path = flat[weight.path], weight.path
        flat[path] = _add_placed(
            kernel, adapters[path + "/a"], adapters[path + "/b"], model.lora.scale, kernel.sharding
        )
    return unflatten(flat)


def _parts(params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the parameters of the base model, and the adapters, by path."""
    base = {k: v for k, v in params.items() if k not in ("lora", _NOISE)}
    return flatten(base), flatten(params["lora"])


def _add(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """Returns kernel + scale * a @ b, one matrix of a stack after another.

    So one product is all the memory that it takes beside the result.
    """
    if a.ndim > 2:
        return jax.lax.map(lambda one: _add(one[0], one[1], one[2], scale), (kernel, a, b))
    change = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return kernel + scale * change.reshape(kernel.shape)


@functools.partial(jax.jit, static_argnames=("scale", "place"))
def _add_placed(kernel, a, b, scale: float, place: jax.sharding.Sharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(_add(kernel, a, b, scale), place)


def split(weight: Weight, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """Returns (axes of a stack, inputs, outputs) of a parameter: layers and experts are stacks.

    A vision block's kernel [L, D, 3, D] is L matrices of D inputs and 3 D outputs.
    """
    inputs = len(shape) - 2 if weight.is_either else weight.stacks
    return shape[:inputs], shape[inputs], int(np.prod(shape[inputs + 1 :]))

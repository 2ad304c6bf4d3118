"""The optimizer: AdamW with global-norm clipping, a learning-rate schedule, frozen parameters."""

import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from evr1.types import Params

SHAPES: dict[str, Callable[[jax.Array], jax.Array]] = {  # progress in [0, 1] -> factor
    "constant": jnp.ones_like,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + jnp.cos(math.pi * progress)) / 2,
}


def make_schedule(
    shape: str,
    learning_rate: float,
    total_updates: int,
    *,
    warmup_updates: int = 0,
    min_learning_rate: float = 0.0,
) -> optax.Schedule:
    """Returns the learning rate of update i = 0, 1, ..., total_updates - 1.

    The warm-up is (i + 1) / warmup_updates: its first update already moves the policy and its last
    has the full rate. `linear` and `cosine` then fall from the full rate towards
    `min_learning_rate`, which the update after the last would have: no update has rate 0. With
    rate 1, 5 updates, 2 of them warm-up, `linear`: .5, 1, 1, 2/3, 1/3.

    Raises:
        ValueError: unknown shape, or a warm-up as long as the run.
    """
    if shape not in SHAPES:
        raise ValueError(f"optim.schedule={shape!r} is unknown; use one of {', '.join(SHAPES)}")
    if not 0 <= warmup_updates < max(total_updates, 1):
        raise ValueError(
            f"optim.warmup_steps={warmup_updates} does not fit {total_updates} updates; "
            "lower it or raise num_steps"
        )

    def schedule(count):
        step = jnp.asarray(count, jnp.float32)
        progress = (step - warmup_updates) / max(total_updates - warmup_updates, 1)
        factor = SHAPES[shape](jnp.clip(progress, 0, 1))
        rate = min_learning_rate + (learning_rate - min_learning_rate) * factor
        warmup = learning_rate * (step + 1) / max(warmup_updates, 1)
        return jnp.where(step < warmup_updates, warmup, rate)

    return schedule


class AdamW(NamedTuple):
    """Settings of the optimizer, under the names of `config.optim`.

    Attributes:
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled; like the reference, on every trained parameter.
        max_grad_norm: the gradient of all trained parameters together is scaled down to this norm;
            0: not clipped.
        moments_dtype: in which both moments are kept.
        offload: keep the moments in the host's memory between updates.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    moments_dtype: str = "float32"
    offload: bool = False


def make_optimizer(
    schedule: optax.Schedule, settings: AdamW | None = None, freeze: Sequence[str] = ()
) -> optax.GradientTransformation:
    """Returns AdamW on every parameter that is not frozen.

    Args:
        schedule: update number -> learning rate.
        settings: of AdamW; None: its defaults.
        freeze: see `trainable`. Frozen parameters have no moments.
    """
    o = settings or AdamW()
    adamw = optax.adamw(schedule, b1=o.b1, b2=o.b2, eps=o.eps, weight_decay=o.weight_decay)
    if o.moments_dtype != "float32":
        adamw = _rounded(adamw, jnp.dtype(o.moments_dtype))
    clip = [optax.clip_by_global_norm(o.max_grad_norm)] if o.max_grad_norm else []
    optimizer = optax.chain(*clip, adamw)

    def labels(params: Params) -> Params:
        return jax.tree.map(lambda on: "train" if on else "freeze", trainable(params, freeze))

    if freeze:
        optimizer = optax.partition({"train": optimizer, "freeze": optax.set_to_zero()}, labels)
    return _begun_on_host(optimizer) if o.offload else optimizer


def _rounded(
    optimizer: optax.GradientTransformation, dtype: jnp.dtype
) -> optax.GradientTransformation:
    """Returns the optimizer with its moments kept in bfloat16.

    They are rounded up or down at random, by the update's number, so that their mean is right: the
    nearest bfloat16 of 0.999 v + 0.001 g**2 is v itself until g**2 is several times v.
    """

    def narrow(state: Any, key: jax.Array) -> Any:
        leaves, structure = jax.tree.flatten(state)
        keys = jax.random.split(key, len(leaves))
        wide = [x.dtype == jnp.float32 for x in leaves]
        new = [_round(*x) if w else x[0] for w, *x in zip(wide, leaves, keys, strict=True)]
        return jax.tree.unflatten(structure, new)

    def init(params: Params) -> Any:
        return narrow(optimizer.init(params), jax.random.key(0))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        wide = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == dtype else x, state)
        updates, new = optimizer.update(updates, wide, params)
        return updates, narrow(new, jax.random.key(cast(Any, new)[0].count))

    return optax.GradientTransformation(init, update)


def _round(x: jax.Array, key: jax.Array) -> jax.Array:
    """Returns a float32 array in bfloat16, rounded to either neighbour: x in the mean."""
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise  # bfloat16 is the upper half
    bits = bits & jnp.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(jnp.bfloat16)


def _begun_on_host(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns the optimizer whose moments begin in the host's memory.

    Its `update` takes them on the device, as any other: `evr1.learner.update` moves them.
    """

    def init(params: Params) -> Any:
        def put(x):
            return jax.device_put(x, jax.memory.Space.Host) if x.ndim else x

        return jax.tree.map(put, optimizer.init(params))

    return optax.GradientTransformation(init, optimizer.update)


def moved(tree: Any, like: Any = None) -> Any:
    """Returns traced arrays in the memory in which those of `like` lie; None: on the device."""

    def move(x: jax.Array, y: jax.Array | None = None) -> jax.Array:
        space = jax.memory.Space.Device if y is None else jax.typeof(y).memory_space
        return x if jax.typeof(x).memory_space == space else jax.device_put(x, space)

    return jax.tree.map(move, tree) if like is None else jax.tree.map(move, tree, like)


def abstract_state(optimizer: optax.GradientTransformation, params: Params) -> tuple[Any, Any]:
    """Returns the shapes of the optimizer's state, and a tree of which begin on the host."""
    jaxpr, shapes = jax.make_jaxpr(optimizer.init, return_shape=True)(params)
    is_host = [aval.memory_space == jax.memory.Space.Host for aval in jaxpr.out_avals]
    return shapes, jax.tree.unflatten(jax.tree.structure(shapes), is_host)


def trainable(params: Params, freeze: Sequence[str]) -> Params:
    """Returns a tree of bools: False where a pattern matches the whole path of the parameter.

    Args:
        params: any tree; only its structure counts.
        freeze: regular expressions on paths such as "vision/blocks/attn/qkv/kernel".

    Raises:
        ValueError: a pattern matches no parameter, or all parameters are frozen.
    """
    paths = [path for path, _ in _leaves(params)]
    for pattern in freeze:
        if not any(re.fullmatch(pattern, path) for path in paths):
            near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.3) or paths[:3]
            raise ValueError(
                f"optim.freeze: {pattern!r} matches no parameter; paths look like {', '.join(near)}"
            )
    is_trained = [not any(re.fullmatch(pattern, path) for pattern in freeze) for path in paths]
    if not any(is_trained):
        raise ValueError(
            f"optim.freeze={tuple(freeze)} freezes every parameter; train at least one"
        )
    return jax.tree.unflatten(jax.tree.structure(params), is_trained)


def is_frozen(params: Params, freeze: Sequence[str], part: str) -> bool:
    """Returns whether nothing under this key of the parameters, such as "vision", is trained.

    Raises:
        ValueError: see `trainable`.
    """
    return not any(jax.tree.leaves(trainable(params, freeze)[part]))


def state_shardings(opt_state: optax.OptState, params: Params, replicated: object) -> object:
    """Returns the sharding of an optimizer state: a moment is laid out as its parameter.

    A leaf belongs to a parameter when its path ends with the parameter's path and the shapes agree.

    Args:
        opt_state: the state, or its ShapeDtypeStructs.
        params: ShapeDtypeStructs that carry shardings.
        replicated: the sharding of everything else, such as step counts.
    """
    by_path = {path: leaf for path, leaf in _leaves(params)}

    def sharding(path, leaf):
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        for start in range(len(parts)):
            match = by_path.get("/".join(parts[start:]))
            if match is not None and match.shape == leaf.shape:
                return match.sharding
        return replicated

    return jax.tree.map_with_path(sharding, opt_state)


def _leaves(params: Params) -> list[tuple[str, jax.Array | jax.ShapeDtypeStruct]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree.leaves_with_path(params)
    ]

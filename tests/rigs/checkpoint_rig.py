"""A train state of a few small sharded arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any


OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))


def make_mesh():
    auto = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=auto)


def make_state(seed=0, width=16):
    mesh = make_mesh()
    shard = {"wq": P(None, "fsdp"), "bias": P(), "scale": P("data")}
    shapes = {"wq": (8, width), "bias": (3,), "scale": (4, 5)}
    dtypes = {"wq": "float32", "bias": "float32", "scale": "bfloat16"}
    rng = np.random.default_rng(seed)
    params = {
        "text": {
            k: jax.device_put(
                jnp.asarray(rng.normal(size=s), dtypes[k]), NamedSharding(mesh, shard[k])
            )
            for k, s in shapes.items()
        }
    }
    return State(jnp.int32(seed), params, OPTIMIZER.init(params))

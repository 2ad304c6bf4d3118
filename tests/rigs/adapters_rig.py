"""Random models of every family with adapters on all of their matrices."""

import functools
import re

import families_oracle
import jax
import jax.numpy as jnp
import numpy as np
from families import delta_config as config_3_5
from families import delta_moe_config as moe_config_3_5
from families import moe_config
from models_oracle import config

from evr1.models import FAMILIES, lora

TWO_LAYERS = {"num_hidden_layers": 2, "full_attention_interval": 2}
CONFIGS = {
    "qwen2_vl": functools.partial(families_oracle.config, "qwen2_vl"),
    "qwen2_5_vl": functools.partial(families_oracle.config, "qwen2_5_vl"),
    "qwen3_vl": config,
    "qwen3_vl_moe": functools.partial(moe_config, mlp_only_layers=[1]),
    "qwen3_5": functools.partial(config_3_5, **TWO_LAYERS),
    "qwen3_5_moe": lambda: moe_config_3_5(**TWO_LAYERS),
}


def stir_adapters(params):
    """With adapters that are not 0, and change matrices by about what these are."""
    rng = np.random.default_rng(0)
    stir = lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), jnp.float32)  # noqa: E731
    return params | {"lora": jax.tree.map(stir, params["lora"])}


def family_model(name, *, has_tower):
    """A random model with adapters of rank 2 on each of its matrices, and its parameters."""
    base = FAMILIES[name](
        CONFIGS[name](), dtype="float32", remat="full" if name == "qwen3_vl" else "none"
    )
    kernels = [w.path for w in base.weights() if lora.is_matrix(w)]
    kernels = [path for path in kernels if has_tower or path.startswith("text/")]
    model = lora.adapt(base, rank=2, alpha=4.0, targets=[re.escape(path) for path in kernels])
    assert {w.path for w in model.targets()} == set(kernels)
    rng = np.random.default_rng(1)

    def draw(x):
        scale = 1 if len(x.shape) < 3 else x.shape[-2] ** -0.5
        return jnp.asarray(scale * rng.normal(size=x.shape), jnp.float32)

    return model, stir_adapters(jax.tree.map(draw, model.abstract_params()))

"""The HF directory at the end of a run, read back before it is called done."""

from pathlib import Path

import jax
import jax.numpy as jnp

from evr1.models import hf, lora
from evr1.run import Policy
from evr1.types import Params


def export(policy: Policy, params: Params, source: str, out: Path, dtype: str) -> None:
    """Writes a HF directory that transformers loads, reloads it and compares every tensor.

    Adapters are merged into it.

    Args:
        policy: whose model it is.
        params: to write.
        source: HF or Orbax directory that gives config, tokenizer, chat template and processor
            files.
        out: directory; appears only when complete.
        dtype: of the tensors.

    Raises:
        ValueError: what was read back differs; names the tensor.
    """
    model, params = lora.plain(policy.model), policy.merged(params)
    hf.save_params(params, model, out, source_dir=source, dtype=dtype)
    reloaded = hf.flatten(policy.load(out))
    for name, x in hf.flatten(params).items():
        expected = x.astype(dtype).astype(x.dtype)
        if not bool(_equal(expected, reloaded[name])):
            raise ValueError(f"{out}: {name} differs from the trained one; is the disk full?")


@jax.jit
def _equal(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.all(a == b)

"""The HF directory at the end of a run, read back before it is called done."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

from evr1.learner.learner import Learner
from evr1.models import lora
from evr1.models.io import hf
from evr1.models.tree import flatten
from evr1.types import Count, Params, no_count


def export(
    learner: Learner,
    params: Params,
    out: Path,
    dtype: str,
    files: Mapping[str, str] | None = None,
    count: Count = no_count,
) -> None:
    """Writes a HF directory that transformers loads, reloads it and compares every tensor.

    Adapters are merged into it. Config, tokenizer, chat template and processor files are those of
    the directory that the run started from, but for `files`.

    Args:
        learner: whose model it is.
        params: to write.
        out: directory; appears only when complete.
        dtype: of the tensors.
        files: name -> text, of those that take the place of the source's.
        count: takes how many tensors were compared.

    Raises:
        ValueError: what was read back differs; names the tensor.
    """
    model, params = lora.plain(learner.model), lora.merged(learner.model, params)
    source = learner.settings.model
    hf.save_params(params, model, out, source_dir=source, dtype=dtype, files=files)
    reloaded = flatten(learner.load(str(out)))
    tensors = flatten(params)
    for i, (name, x) in enumerate(tensors.items()):
        count(i, len(tensors), "tensors read back")
        expected = x.astype(dtype).astype(x.dtype)
        if not bool(_equal(expected, reloaded[name])):
            raise ValueError(f"{out}: {name} differs from the trained one; is the disk full?")


@jax.jit
def _equal(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.all(a == b)

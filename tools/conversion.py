"""What convert_checkpoint.py does, once its flags are read; not a command of its own."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from evr1.data.shards import file_identity
from evr1.models import fused, hf, load_model, orbax_dir


def hf_to_orbax(source: Path, out: Path, dtype: str | None) -> str:
    """Writes the Orbax directory; returns what was done, in a line.

    Raises:
        ValueError: the source does not hold a model that evr1 knows, or `out` something else.
    """
    model = load_model(str(source))
    found = fused.cut(hf.entries(source), model.weights())
    kinds = {name: dtype or str(e.dtype) for name, e in found.items()}
    digest = _digest(source)
    if out.exists():
        is_same = orbax_dir.is_orbax(out) and orbax_dir.record(out) == kinds
        if is_same and orbax_dir.origin(out) == digest:
            return f"{out}: already there, with the same tensors; nothing to do"
        raise ValueError(f"{out}: exists and holds something else; choose another or remove it")
    params, total = {}, len(model.weights())
    for path, value in tqdm(hf.iter_params(source, model, dtype=dtype), "read", total):
        params[path] = value
    _check_tied(source, params, kinds)
    print(f"writing {sum(x.nbytes for x in params.values()) / 1e9:.2f} GB to {out}", flush=True)
    orbax_dir.save(hf.unflatten(params), kinds, hf.side_files(source), out, digest)
    return f"{out}: {len(kinds)} tensors"


def _digest(source: Path) -> str:
    """Of the weight files' names and sampled contents: retrained weights differ everywhere."""
    files = sorted(source.glob("*.safetensors"))
    text = json.dumps([[file.name, file_identity(file)] for file in files])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def orbax_to_hf(source: Path, out: Path, dtype: str | None, max_shard_bytes: int) -> str:
    """Writes the HF directory; returns what was done, in a line.

    Raises:
        ValueError: the source was not written by this tool, or does not fit its config.
    """
    if not orbax_dir.is_orbax(source):
        raise ValueError(f"{source}: no {orbax_dir.RECORD}; give a directory that --to_orbax made")
    model = load_model(str(source))
    kinds = orbax_dir.record(source)
    print(f"reading {source}", flush=True)
    flat = hf.flatten(hf.load_params(source, model, dtype=None))
    tensors, where = [], []
    for weight in model.weights():
        shape = flat[weight.path].shape
        for i, name in enumerate(hf.hf_names(weight, shape)):
            one = weight.hf_shape(shape[weight.stacks :])
            tensors.append((name, one, np.dtype(dtype or kinds[name])))
            where.append((weight, i))
    extra = kinds.keys() - {t[0] for t in tensors}
    for name in sorted(extra):  # the tied head, stored once more
        embed = next(i for i, t in enumerate(tensors) if t[0].endswith("embed_tokens.weight"))
        tensors.append((name, tensors[embed][1], np.dtype(dtype or kinds[name])))
        where.append(where[embed])

    def values() -> Iterator[np.ndarray]:
        for weight, i in tqdm(where, "write"):
            x = flat[weight.path]
            at = np.unravel_index(i, x.shape[: weight.stacks]) if weight.is_stacked else ()
            yield weight.to_hf(np.asarray(x[at]))

    hf.write_dir(out, tensors, values(), source, max_shard_bytes)
    return f"{out}: {len(tensors)} tensors"


def _check_tied(source: Path, params: dict[str, jax.Array], kinds: dict[str, str]) -> None:
    if "lm_head.weight" not in kinds or "text/head" in params:
        return
    head = hf.entries(source)["lm_head.weight"].open()
    embed = np.asarray(params["text/embed"])
    if not np.array_equal(head.astype(embed.dtype), embed):
        raise ValueError(
            f"{source}: tie_word_embeddings is true, but lm_head.weight differs from the"
            " embeddings; set tie_word_embeddings to false in config.json"
        )

"""Converts a model between a HF directory and an Orbax directory, both ways.

python tools/convert_checkpoint.py --from_hf D --to_orbax D2
python tools/convert_checkpoint.py --from_orbax D2 --to_hf D3

The Orbax directory keeps the tokenizer and the other side files, so evr1 takes it wherever it takes
a HF directory. Without --dtype every tensor comes back as it was, byte for byte. A conversion that
was interrupted starts over; a finished one is not repeated.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a conversion needs no accelerator

import jax
import numpy as np
from tqdm import tqdm

from evr1.data.shards import file_identity
from evr1.models import hf, load_model, orbax_dir

DTYPES = ("float32", "bfloat16", "float16")


def hf_to_orbax(source: Path, out: Path, dtype: str | None) -> str:
    """Writes the Orbax directory; returns what was done, in a line.

    Raises:
        ValueError: the source does not hold a model that evr1 knows, or `out` something else.
    """
    model = load_model(str(source))
    kinds = {name: dtype or str(e.dtype) for name, e in hf.entries(source).items()}
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
            one = shape[1:] if weight.is_stacked else shape
            tensors.append((name, weight.hf_shape(one), np.dtype(dtype or kinds[name])))
            where.append((weight, i))
    extra = kinds.keys() - {t[0] for t in tensors}
    for name in sorted(extra):  # the tied head, stored once more
        embed = next(i for i, t in enumerate(tensors) if t[0].endswith("embed_tokens.weight"))
        tensors.append((name, tensors[embed][1], np.dtype(dtype or kinds[name])))
        where.append(where[embed])

    def values() -> Iterator[np.ndarray]:
        for weight, i in tqdm(where, "write"):
            x = flat[weight.path]
            yield weight.to_hf(np.asarray(x[i] if weight.is_stacked else x))

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


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; 0 on success."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from_hf", metavar="DIR", type=Path)
    parser.add_argument("--to_orbax", metavar="DIR", type=Path)
    parser.add_argument("--from_orbax", metavar="DIR", type=Path)
    parser.add_argument("--to_hf", metavar="DIR", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, help="of every tensor; default: unchanged")
    parser.add_argument(
        "--max_shard_bytes", type=int, default=hf.MAX_SHARD_BYTES, help="of a safetensors file"
    )
    flags = parser.parse_args(argv)
    given = {k for k in ("from_hf", "to_orbax", "from_orbax", "to_hf") if vars(flags)[k]}
    try:
        if flags.max_shard_bytes < 1:
            raise ValueError(f"--max_shard_bytes={flags.max_shard_bytes}; give a positive number")
        if given == {"from_hf", "to_orbax"}:
            done = hf_to_orbax(flags.from_hf, flags.to_orbax, flags.dtype)
        elif given == {"from_orbax", "to_hf"}:
            done = orbax_to_hf(flags.from_orbax, flags.to_hf, flags.dtype, flags.max_shard_bytes)
        else:
            raise ValueError("give --from_hf and --to_orbax, or --from_orbax and --to_hf")
    except (ValueError, OSError) as e:
        print(f"convert_checkpoint: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("convert_checkpoint: interrupted; the same command starts over", file=sys.stderr)
        return 130
    print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A model as an Orbax directory: params/ (one checkpoint), hf/ (the side files), tensors.json and
origin.txt, a digest of the weights it was made from.

tensors.json is the record of the HF tensors it was made from, {name: dtype}; it is written last but
for the rename, so a directory under its own name is complete.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

PARAMS, SIDE, RECORD, ORIGIN = "params", "hf", "tensors.json", "origin.txt"


def is_orbax(path: str | Path) -> bool:
    """Whether `save` wrote this directory."""
    return (Path(path) / RECORD).is_file()


def record(path: str | Path) -> dict[str, str]:
    """The dtype of every HF tensor that the directory was made from."""
    return json.loads((Path(path) / RECORD).read_text())


def origin(path: str | Path) -> str:
    """The digest of the weights that the directory was made from; empty: not known."""
    file = Path(path) / ORIGIN
    return file.read_text().strip() if file.is_file() else ""


def save(
    params: Any,
    dtypes: dict[str, str],
    side_files: list[Path],
    out_dir: str | Path,
    made_from: str = "",
) -> None:
    """Writes the directory; it appears under its name only when complete.

    Args:
        params: pytree of arrays.
        dtypes: HF tensor name -> dtype.
        side_files: config, tokenizer and so on, copied to hf/.
        out_dir: must not exist.
        made_from: digest of the weights.
    """
    out = Path(out_dir).absolute()
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / SIDE).mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(partial / PARAMS, params)
    for file in side_files:
        shutil.copyfile(file, partial / SIDE / file.name)
    (partial / ORIGIN).write_text(made_from + "\n")
    (partial / RECORD).write_text(json.dumps(dtypes, indent=1) + "\n")
    os.rename(partial, out)


def load(path: str | Path, abstract: dict[str, Any], shardings: Any, dtype: str | None) -> Any:
    """The parameters, each device reading what it holds.

    Args:
        path: directory that `save` wrote.
        abstract: tree of ShapeDtypeStructs that the model expects.
        shardings: tree of shardings.
        dtype: of the parameters; None: as stored.

    Raises:
        ValueError: a missing, extra or mis-shaped parameter, or unreadable data.
    """
    where = Path(path).absolute() / PARAMS
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            stored = checkpointer.metadata(where).item_metadata.tree
        except (FileNotFoundError, ValueError, AttributeError) as e:
            raise ValueError(f"{where}: not an Orbax checkpoint ({e}); convert it again") from None
        _check(_shapes(abstract), _shapes(stored), str(where))
        target = jax.tree.map(
            lambda a, s, sharding: jax.ShapeDtypeStruct(
                a.shape, np.dtype(dtype) if dtype else s.dtype, sharding=sharding
            ),
            abstract,
            stored,
            shardings,
        )
        try:
            return checkpointer.restore(where, target)
        except (FileNotFoundError, ValueError) as e:
            first = str(e).splitlines()[0]
            raise ValueError(f"{where}: unreadable ({first}); convert it again") from None


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(k.key) for k in path): tuple(x.shape) for path, x in leaves}


def _check(expected: dict, found: dict, where: str) -> None:
    problems = [f"missing {k} {list(v)}" for k, v in expected.items() if k not in found]
    problems += [f"extra {k} {list(v)}" for k, v in found.items() if k not in expected]
    problems += [
        f"{k} is {list(found[k])}, expected {list(v)}"
        for k, v in expected.items()
        if k in found and found[k] != v
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"{where}: does not fit config.json: {'; '.join(problems[:8])}{more}")

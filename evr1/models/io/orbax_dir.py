"""A model as an Orbax directory: params/ (one checkpoint), hf/ (the side files), tensors.json and
origin.txt, a digest of the weights it was made from.

tensors.json is the record of the HF tensors it was made from, {name: [dtype, shape]}; it is written
last but for the rename, so a directory under its own name is complete. Parameters are written and
read in blocks: a model never stands in memory as a whole, nor does a stack of layers.
"""

import asyncio
import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from evr1.models.io import atomic, safetensors
from evr1.models.io.safetensors import Entry, contiguous

PARAMS, SIDE, RECORD, ORIGIN = "params", "hf", "tensors.json", "origin.txt"
DRAFTS = "drafts.safetensors"  # in hf/, see `evr1.models.io.hf.drafts`


def is_orbax(path: str | Path) -> bool:
    """Returns whether `save` wrote this directory."""
    return (Path(path) / RECORD).is_file()


def record(path: str | Path) -> dict[str, list]:
    """Returns [dtype, shape] of every HF tensor that the directory was made from."""
    return json.loads((Path(path) / RECORD).read_text())


def origin(path: str | Path) -> str:
    """Returns the digest of the weights that the directory was made from; '': not known."""
    file = Path(path) / ORIGIN
    return file.read_text().strip() if file.is_file() else ""


Block = tuple[slice, ...]
Dtype = str | Mapping[str, str] | None  # of all parameters, by path, or as stored


@dataclasses.dataclass(frozen=True)
class Stack:
    """A parameter that is read block by block.

    Attributes:
        shape: of the parameter.
        dtype: of it.
        stacks: leading axes that number layers (and experts).
        read: gives the part of it in these slices.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    stacks: int
    read: Callable[[Block | None], np.ndarray]

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return self.size * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def block(self) -> tuple[int, ...]:
        """The shape of a block: at most one layer, and about `_BLOCK_BYTES`."""
        lead = min(self.stacks, 1)
        if self.ndim <= lead:
            return self.shape[:0] + (1,) * lead
        row = math.prod(self.shape[lead + 1 :]) * self.dtype.itemsize
        rows = min(self.shape[lead], max(1, _BLOCK_BYTES // row))
        return ((1,) * lead) + (rows,) + self.shape[lead + 1 :]


def blocks(shape: Sequence[int], block: Sequence[int]) -> Iterator[Block]:
    """Yields the blocks of an array in the order of its bytes.

    >>> [b[0].stop for b in blocks((5,), (2,))]
    [2, 4, 5]
    """
    counts = [-(-n // b) for n, b in zip(shape, block, strict=True)]
    for place in np.ndindex(*counts):
        yield tuple(
            slice(i * b, min((i + 1) * b, n)) for i, b, n in zip(place, block, shape, strict=True)
        )


_BLOCK_BYTES = 8 * 2**20


class _Streamed(ocp.type_handlers.NumpyHandler):
    """Writes a `Stack` in blocks, one after another; read back it is an array like any other."""

    def __init__(self, on_block: Callable[[int], Any]):
        super().__init__(deepcopy_host_arrays=False)
        self._turn, self._on_block = asyncio.Lock(), on_block

    async def _open_and_write(self, value: Any, tspec: dict[str, Any], ts_context: Any) -> None:
        # Weights hardly compress, and the search for what does takes longer than writing them.
        tspec["metadata"] |= {"chunks": list(value.block), "compressor": None}
        async with self._turn:
            array = await ts.open(ts.Spec(tspec), create=True, open=True, context=ts_context)
            for block in blocks(value.shape, value.block):
                part = contiguous(value.read(block), value.dtype)
                await array[block].write(part)
                self._on_block(part.nbytes)


def save(
    params: dict[str, Any],
    tensors: dict[str, list],
    side_files: list[Path],
    out_dir: str | Path,
    *,
    drafts: dict[str, Entry] | None = None,
    made_from: str = "",
    on_block: Callable[[int], Any] = lambda _: None,
) -> None:
    """Writes the directory; it appears under its name only when complete.

    Args:
        params: nested dict of `Stack`s.
        tensors: HF tensor name -> [dtype, shape].
        side_files: config, tokenizer and so on, copied to hf/.
        out_dir: must not exist.
        drafts: tensors that are no part of the model, kept as they are.
        made_from: digest of the weights.
        on_block: told the bytes of every block that is written.
    """
    handlers = ocp.type_handlers.create_type_handler_registry(
        (Stack, _Streamed(on_block)), (jax.Array, ocp.type_handlers.ArrayHandler())
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=handlers)
    with atomic.new_directory(Path(out_dir).absolute()) as partial:
        (partial / SIDE).mkdir()
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(partial / PARAMS, args=ocp.args.PyTreeSave(params))
        for file in side_files:
            shutil.copyfile(file, partial / SIDE / file.name)
        if drafts:
            safetensors.write_entries(partial / SIDE / DRAFTS, drafts)
        (partial / ORIGIN).write_text(made_from + "\n")
        (partial / RECORD).write_text(json.dumps(tensors, indent=1) + "\n")


def reader(
    path: str | Path, abstract: dict[str, Any]
) -> tuple[dict[str, tuple[int, ...]], Callable[[str, tuple[int, ...]], np.ndarray]]:
    """Returns the parameters' shapes by path, and what reads one: (path, layer or ()) -> array.

    Args:
        path: directory that `save` wrote.
        abstract: tree of ShapeDtypeStructs that the model expects.

    Raises:
        ValueError: a missing, extra or mis-shaped parameter, or unreadable data.
    """
    where = (Path(path) / PARAMS).absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        shapes = _shapes(_stored(checkpointer, where, abstract))

    def read(name: str, index: tuple[int, ...]) -> np.ndarray:
        store = {"driver": "ocdbt", "base": f"file://{where}/", "path": name.replace("/", ".")}
        try:
            array = ts.open({"driver": "zarr", "kvstore": store}, read=True, open=True).result()
            chunk = [n or 1 for n in array.chunk_layout.read_chunk.shape or ()]
            array = array[index]
            out = np.empty(array.shape, array.dtype.numpy_dtype)
            # Chunk after chunk: in one read all of them would stand beside the result.
            for block in blocks(out.shape, chunk[len(index) :]):
                out[block] = array[block].read().result()
            return out
        except ValueError as e:
            first = str(e).splitlines()[0]
            raise ValueError(f"{where}: unreadable ({first}); convert it again") from None

    return shapes, read


def pick(dtype: Dtype, path: str, stored: np.dtype) -> np.dtype:
    """Returns the dtype in which a parameter is read."""
    if dtype is None:
        return stored
    return np.dtype(dtype if isinstance(dtype, str) else dtype[path])


def load(path: str | Path, abstract: dict[str, Any], shardings: Any, dtype: Dtype) -> Any:
    """Reads the parameters, each device what it holds.

    Args:
        path: directory that `save` wrote.
        abstract: tree of ShapeDtypeStructs that the model expects.
        shardings: tree of shardings.
        dtype: of the parameters, or of each by path; None: as stored.

    Raises:
        ValueError: a missing, extra or mis-shaped parameter, or unreadable data.
    """
    where = Path(path).absolute() / PARAMS
    with ocp.StandardCheckpointer() as checkpointer:
        stored = _stored(checkpointer, where, abstract)

        def target_of(keys: tuple, a: Any, s: Any, sharding: Any) -> jax.ShapeDtypeStruct:
            kind = pick(dtype, spelled(keys), s.dtype)
            return jax.ShapeDtypeStruct(a.shape, kind, sharding=sharding)

        target = jax.tree_util.tree_map_with_path(target_of, abstract, stored, shardings)
        try:
            return checkpointer.restore(where, target)
        except (FileNotFoundError, ValueError) as e:
            first = str(e).splitlines()[0]
            raise ValueError(f"{where}: unreadable ({first}); convert it again") from None


def _stored(checkpointer: Any, where: Path, abstract: dict[str, Any]) -> Any:
    """Returns what the checkpoint holds, once it fits the model."""
    try:
        stored = checkpointer.metadata(where).item_metadata.tree
    except (FileNotFoundError, ValueError, AttributeError) as e:
        raise ValueError(f"{where}: not an Orbax checkpoint ({e}); convert it again") from None
    check_shapes(abstract, stored, str(where))
    return stored


def check_shapes(abstract: Any, stored: Any, where: str) -> None:
    """Raises ValueError where a tree of stored arrays does not fit the model."""
    _check(_shapes(abstract), _shapes(stored), where)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {spelled(keys): tuple(x.shape) for keys, x in leaves}


def spelled(keys: tuple) -> str:
    """Returns a path of a tree as parameters are called: text/layers/norm."""
    return "/".join(str(k.key) for k in keys)


def _check(expected: dict, stored: dict, where: str) -> None:
    problems = [f"missing {k} {list(v)}" for k, v in expected.items() if k not in stored]
    problems += [f"extra {k} {list(v)}" for k, v in stored.items() if k not in expected]
    problems += [
        f"{k} is {list(stored[k])}, expected {list(v)}"
        for k, v in expected.items()
        if k in stored and stored[k] != v
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"{where}: does not fit config.json: {'; '.join(problems[:8])}{more}")

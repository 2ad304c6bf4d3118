"""Reads HF directories, and Orbax directories made from them; writes HF directories.

Loading is lazy: files are memory-mapped and every device reads the slices that it will hold, so a
model never stands in host memory as a whole. Weight maps are data (see `Weight`); this module knows
no family.
"""

import collections
import itertools
import json
import shutil
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from evr1.formats import adapter_files, processor_files, run_files
from evr1.models.base import Model
from evr1.models.io import atomic, fused, names, orbax_dir, safetensors, tensor_files
from evr1.models.io.orbax_dir import Block, Dtype, Stack, pick
from evr1.models.io.safetensors import DTYPES, Entry
from evr1.models.io.tensor_files import INDEX, SINGLE, drafts, entries
from evr1.models.tree import flatten, unflatten
from evr1.models.weights import Weight
from evr1.parallel import hosts
from evr1.types import Params

MAX_SHARD_BYTES = 5 * 2**30


def side_dir(path: str | Path) -> Path:
    """Returns where the config, tokenizer and processor files of a model lie.

    Args:
        path: HF or Orbax directory, or a run's checkpoint: then they are those of its start.

    Raises:
        ValueError: there is no such checkpoint.
    """
    root = run_files.start_dir(path)
    return root / orbax_dir.SIDE if orbax_dir.is_orbax(root) else root


def side_files(path: str | Path) -> list[Path]:
    """Returns all files but weights: configs, tokenizer, chat template."""
    return [
        file
        for file in sorted(side_dir(path).iterdir())
        if file.is_file() and ".safetensors" not in file.suffixes and file.suffix not in _WEIGHTS
    ]


_WEIGHTS = {".bin", ".pt", ".pth", ".h5", ".msgpack", ".partial"}


def read_config(path: str | Path) -> dict[str, Any]:
    """Returns the config.json of a HF or Orbax directory.

    Raises:
        ValueError: there is none, it is not JSON, or this is an adapter.
    """
    file = side_dir(path) / "config.json"
    adapter_files.refuse_as_model(Path(path))
    if not file.is_file():
        raise ValueError(
            f"{path}: no config.json; give a HF model directory, one made by"
            " evr1 convert, or a run's checkpoint (RUN/checkpoints/STEP)"
        )
    return processor_files.read_json(file)


def is_hf(path: str | Path) -> bool:
    """Returns whether this directory holds a HF config."""
    return (Path(path) / "config.json").is_file() and not run_files.is_run(path)


def load_params(
    path: str | Path, model: Model, *, shardings: Any = None, dtype: Dtype = "float32"
) -> Params:
    """Reads the parameters of a HF or Orbax directory, each straight to the devices that hold it.

    Args:
        path: the directory.
        model: made by `load_model` from it.
        shardings: pytree of shardings like the parameters; None: all on the default device.
        dtype: of the parameters, or of each by path; None: as in the files (the widest of a
            stack of layers). Each is rounded once, from the file's.

    Raises:
        ValueError: missing, extra or mis-shaped tensors, all named.
    """
    if orbax_dir.is_orbax(path):
        abstract = model.abstract_params()
        if shardings is None:
            shardings = jax.tree.map(lambda _: _default_sharding(), abstract)
        return orbax_dir.load(path, abstract, shardings, dtype)
    return unflatten(dict(iter_params(path, model, shardings=shardings, dtype=dtype)))


def iter_params(
    path: str | Path, model: Model, *, shardings: Any = None, dtype: Dtype = "float32"
) -> Iterator[tuple[str, jax.Array]]:
    """Reads the parameters of a HF directory one at a time; yields (path, array).

    Args:
        path: HF directory.
        model: made by `load_model` from it.
        shardings: as in `load_params`.
        dtype: as in `load_params`.

    Raises:
        ValueError: missing, extra or mis-shaped tensors, all named.
    """
    places = flatten(shardings) if shardings is not None else None
    for path_, stack in lazy_params(path, model, dtype).items():
        place = places[path_] if places else _default_sharding()
        yield path_, jax.make_array_from_callback(stack.shape, place, stack.read)


def lazy_params(path: str | Path, model: Model, dtype: Dtype) -> dict[str, Stack]:
    """Returns the parameters of a HF directory by path, none of them read yet.

    Args:
        path: HF directory.
        model: made by `load_model` from it.
        dtype: as in `load_params`.

    Raises:
        ValueError: missing, extra or mis-shaped tensors, all named.
    """
    shapes = {k: v.shape for k, v in flatten(model.abstract_params()).items()}
    stored = fused.cut(_named(path, model), model.weights())
    plan = match(model.weights(), shapes, stored, str(path))
    _check_head(model.weights(), stored, str(path))
    stacks = {}
    for weight, files in plan:
        kind = pick(dtype, weight.path, widest([f.dtype for f in files]))
        shape = shapes[weight.path]
        read = _reader(weight, files, shape, kind)
        stacks[weight.path] = Stack(shape, kind, weight.stacks, read)
    return stacks


def read_entries(path: str | Path, model: Model) -> dict[str, Entry]:
    """Returns the tensors of a HF directory that are parameters of the model, and unknown ones.

    What transformers leaves out too (buffers, heads of other kinds) is warned of.

    Raises:
        ValueError: see `entries`; or two tensors are the same parameter.
    """
    stored = entries(path)
    found = find(model, stored, path)
    names.warn(str(path), tuple(found.strays))
    return {name: stored[name] for name in (*found.stored.values(), *found.unknown)}


def _named(path: str | Path, model: Model) -> dict[str, Entry]:
    """Returns what `read_entries` does, by the names of the weight map."""
    stored = read_entries(path, model)
    found = find(model, stored, path)
    known = {name: stored[there] for name, there in found.stored.items()}
    embed = _embed(model)
    if model.config.tied and embed not in known and names.HEAD in known:
        known[embed] = known[names.HEAD]  # transformers ties in either direction
    return known | {name: stored[name] for name in found.unknown}


def _embed(model: Model) -> str:
    return next(w.name for w in model.weights() if w.path == "text/embed")


def find(model: Model, stored: Iterable[str], where: str | Path) -> names.Names:
    """Returns what the tensors of a checkpoint are.

    Raises:
        ValueError: two tensors are the same parameter; names `where`.
    """
    shapes = {k: v.shape for k, v in flatten(model.abstract_params()).items()}
    weights = model.weights()
    expected = {name for w in weights for name in hf_names(w, shapes[w.path])}
    expected |= {w.fused.format(i) for w in weights if w.fused for i in w.layers}
    try:
        return names.find(weights, expected, stored)
    except ValueError as e:
        raise ValueError(f"{where}: {e}") from None


def _default_sharding() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def widest(dtypes: list[np.dtype]) -> np.dtype:
    """Returns the dtype that holds all of these exactly."""
    return dtypes[0] if len(set(dtypes)) == 1 else np.dtype(np.float32)


def match(
    weights: tuple[Weight, ...],
    shapes: dict[str, tuple[int, ...]],
    stored: dict[str, Entry],
    where: str,
) -> list[tuple[Weight, list[Entry]]]:
    """Returns which files hold each parameter: one entry, or one a layer.

    Raises:
        ValueError: missing, extra or mis-shaped tensors, all named.
    """
    plan, problems, used = [], [], set()
    for weight in weights:
        expected_names = hf_names(weight, shapes[weight.path])
        one = shapes[weight.path][weight.stacks :]
        expected = weight.hf_shape(one)
        for name in expected_names:
            if name not in stored:
                problems.append(f"missing {name} {list(expected)}")
            elif not weight.fits(stored[name].shape, one):
                problems.append(f"{name} is {list(stored[name].shape)}, expected {list(expected)}")
            elif not stored[name].is_supported:
                problems.append(
                    f"{name} is {stored[name].dtype}, not {', '.join(map(str, DTYPES.values()))}"
                )
        used.update(expected_names)
        plan.append((weight, [stored[n] for n in expected_names if n in stored]))
    problems += [f"extra {n} {list(stored[n].shape)}" for n in stored if n not in used | {_TIED}]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(
            f"{where}: tensors do not fit config.json: {'; '.join(problems[:8])}{more}"
        )
    return plan


_TIED = names.HEAD  # some checkpoints with tied embeddings store the head once more


def _check_head(weights: tuple[Weight, ...], stored: dict[str, Entry], where: str) -> None:
    """Refuses a head that the config says is the embeddings, but which is another matrix."""
    if _TIED not in stored or any(w.name == _TIED for w in weights):
        return
    head, embed = stored[_TIED], stored[next(w.name for w in weights if w.path == "text/embed")]
    same = head.shape == embed.shape and all(
        np.array_equal(head.open()[i : i + _ROWS], embed.open()[i : i + _ROWS])
        for i in range(0, head.shape[0], _ROWS)
    )
    if not same:
        raise ValueError(
            f"{where}: tie_word_embeddings is true, but {_TIED} differs from the embeddings; set"
            " tie_word_embeddings to false in config.json"
        )


_ROWS = 4096  # compared at a time, whatever the vocabulary


def hf_names(weight: Weight, shape: tuple[int, ...]) -> list[str]:
    """Returns the HF names behind a parameter of this (stacked) shape."""
    if not weight.is_stacked:
        return [weight.name]
    layers = weight.layers or range(shape[0])
    if weight.stacks == 1:
        return [weight.name.format(layer) for layer in layers]
    return [weight.name.format(layer, expert) for layer in layers for expert in range(shape[1])]


def _reader(weight: Weight, files: list[Entry], shape: tuple[int, ...], dtype: np.dtype):
    def read(index: Block | None) -> np.ndarray:
        assert index is not None
        if not weight.is_stacked:
            return np.asarray(weight.from_hf(files[0].open(), shape)[index], dtype)
        n, one = weight.stacks, shape[weight.stacks :]
        chosen = np.arange(len(files)).reshape(shape[:n])[index[:n]]
        out = np.empty((*chosen.shape, *np.broadcast_to(0, one)[index[n:]].shape), dtype)
        for place, number in np.ndenumerate(chosen):
            out[place] = weight.from_hf(files[number].open(), one)[index[n:]]
        return out

    return read


def save_params(
    params: Params,
    model: Model,
    out_dir: str | Path,
    *,
    source_dir: str | Path,
    dtype: str = "bfloat16",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    files: Mapping[str, str] | None = None,
) -> None:
    """Writes a HF directory that transformers loads; it appears under its name only when complete.

    Args:
        params: of the model.
        model: whose weight map is used.
        out_dir: replaced where it is a HF directory; anything else there is refused.
        source_dir: HF or Orbax directory that gives config, tokenizer and processor files, and the
            layout of the experts.
        dtype: of the tensors.
        max_shard_bytes: a new file is begun where the next tensor would exceed this.
        files: name -> text, of side files that take the place of the source's.
    """
    flat = flatten(params)
    shapes = {path: x.shape for path, x in flat.items()}
    tensors = listing(model, shapes, layout(source_dir))

    def read(path: str, index: tuple[int, ...]) -> np.ndarray:
        return hosts.whole(flat[path][index])

    named = [(t.name, t.shape, np.dtype(dtype)) for t in tensors]
    if hosts.is_primary():
        made = values(tensors, read)
        write_dir(out_dir, named, made, source_dir, max_shard_bytes, files or {})
    else:  # each tensor is gathered by all
        collections.deque(values(tensors, read), maxlen=0)
    hosts.barrier()


def layout(source_dir: str | Path) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each HF tensor behind a HF or Orbax directory.

    Empty: it holds no weights.
    """
    root = run_files.start_dir(source_dir)
    if orbax_dir.is_orbax(root):
        return {name: tuple(shape) for name, (_, shape) in orbax_dir.record(root).items()}
    if not tensor_files.has_weights(root):
        return {}
    return {name: entry.shape for name, entry in entries(root).items()}


class Tensor(NamedTuple):
    """A HF tensor to write.

    Attributes:
        name: of it.
        shape: of it.
        pieces: (weight, place in its stacks) of what stands in it, one after another.
    """

    name: str
    shape: tuple[int, ...]
    pieces: tuple[tuple[Weight, tuple[int, ...]], ...]


def listing(
    model: Model, shapes: Mapping[str, tuple[int, ...]], layout: Mapping[str, tuple[int, ...]]
) -> list[Tensor]:
    """Returns the HF tensors of a model.

    Args:
        model: whose weight map is used.
        shapes: of its parameters, by path.
        layout: of a checkpoint that has choices made: experts fused or not, which axis comes
            first, the tied head stored once more, other names. Empty: the weight map's own.
    """
    out: list[Tensor] = []
    found = find(model, layout, "the layout").stored
    layout = {name: layout[there] for name, there in found.items()}
    fused: dict[str, dict[tuple[int, int], tuple[Weight, tuple[int, ...]]]] = {}
    for weight in model.weights():
        shape = shapes[weight.path]
        one = shape[weight.stacks :]
        for number, name in enumerate(hf_names(weight, shape)):
            index = tuple(int(i) for i in np.unravel_index(number, shape[: weight.stacks]))
            whole = weight.fused.format(weight.layers[index[0]]) if weight.fused else ""
            if whole in layout:
                fused.setdefault(whole, {})[index[1], weight.part] = weight, index
                continue
            stored = layout.get(name, ())
            fits = weight.fits(stored, one)
            out.append(Tensor(name, stored if fits else weight.hf_shape(one), ((weight, index),)))
            if weight.path == "text/embed" and model.config.tied and _TIED in layout:
                tied = out[-1]._replace(name=_TIED)
                out[-1:] = [out[-1], tied] if name in layout else [tied]
    for whole, pieces in fused.items():
        out.append(Tensor(whole, layout[whole], tuple(pieces[place] for place in sorted(pieces))))
    return [tensor._replace(name=found.get(tensor.name, tensor.name)) for tensor in out]


def values(
    tensors: Iterable[Tensor], read: Callable[[str, tuple[int, ...]], np.ndarray]
) -> Iterator[np.ndarray]:
    """Yields the tensors' values, one at a time.

    Args:
        tensors: of `listing`.
        read: gives a parameter, or a layer of one: (path, ()) or (path, (layer,)).
    """
    last: dict[str, tuple[int, np.ndarray]] = {}  # the layers whose experts are being written

    def piece(weight: Weight, index: tuple[int, ...]) -> np.ndarray:
        if len(index) < 2:
            return read(weight.path, index)
        if last.get(weight.path, (-1,))[0] != index[0]:
            last.pop(weight.path, None)
            last[weight.path] = index[0], read(weight.path, index[:1])
        return last[weight.path][1][index[1]]

    def value(shape: tuple[int, ...], pieces: Sequence[tuple[Weight, tuple[int, ...]]]):
        for path in last.keys() - {w.path for w, _ in pieces}:
            del last[path]
        parts = [w.to_hf(piece(w, i), () if len(pieces) > 1 else shape) for w, i in pieces]
        return np.concatenate(parts).reshape(shape) if len(parts) > 1 else parts[0]

    for _, shape, pieces in tensors:
        yield value(shape, pieces)  # no name holds it while the next one is read


def write_dir(
    out_dir: str | Path,
    tensors: list[tuple[str, tuple[int, ...], np.dtype]],
    values: Iterator[np.ndarray],
    source_dir: str | Path,
    max_shard_bytes: int,
    files: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Writes shards, index and side files; the directory appears under its name only when complete.

    Where all of the model's tensors have one dtype, config.json says so: transformers reads them as
    what it says.

    Args:
        out_dir: replaced where it is a HF directory; anything else there is refused.
        tensors: (name, shape, dtype) in the order of the values.
        values: the tensors, one at a time.
        source_dir: HF or Orbax directory that gives the side files and the draft layers.
        max_shard_bytes: a new file is begun where the next tensor would exceed this.
        files: as in `save_params`.

    Raises:
        ValueError: `out_dir` is the source, or holds something else.
    """
    out = Path(out_dir)
    atomic.recover(out)
    if out.resolve() == Path(source_dir).resolve():
        raise ValueError(f"{out}: is also the source; choose another output directory")
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not is_hf(out):
        raise ValueError(f"{out}: exists and is no HF directory; choose another or remove it")
    with atomic.new_directory(out) as partial:
        _fill(partial, tensors, values, source_dir, max_shard_bytes)
        for name, text in files.items():
            (partial / name).write_text(text, "utf-8")


def _fill(
    partial: Path,
    tensors: list[tuple[str, tuple[int, ...], np.dtype]],
    values: Iterator[np.ndarray],
    source_dir: str | Path,
    max_shard_bytes: int,
) -> None:
    """Writes what `write_dir` writes into an empty directory."""
    kinds, extra = {kind for _, _, kind in tensors}, drafts(source_dir)
    tensors = [*tensors, *((name, e.shape, e.dtype) for name, e in extra.items())]
    values = itertools.chain(values, (e.open() for e in extra.values()))
    shards, sizes = [[]], [0]
    for name, shape, kind in tensors:
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if shards[-1] and sizes[-1] + size > max_shard_bytes:
            shards.append([])
            sizes.append(0)
        shards[-1].append((name, shape, kind))
        sizes[-1] += size
    files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    if len(files) == 1:
        files = [SINGLE]
    for file, shard in zip(files, shards, strict=True):
        safetensors.write(partial / file, shard, (next(values) for _ in shard))
    if len(files) > 1:
        where = {t[0]: file for file, shard in zip(files, shards, strict=True) for t in shard}
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": where}
        (partial / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    for file in side_files(source_dir):
        shutil.copyfile(file, partial / file.name)
    _say_dtype(partial / "config.json", kinds)


def _say_dtype(config: Path, kinds: set[np.dtype]) -> None:
    if len(kinds) > 1 or not config.exists():
        return
    kind, read = str(*kinds), json.loads(config.read_text())
    parts = [read, *(x for x in read.values() if isinstance(x, dict))]
    said = [(x, key) for x in parts for key in ("dtype", "torch_dtype") if x.get(key)]
    if any(x[key] != kind for x, key in said):
        for x, key in said:
            x[key] = kind
        config.write_text(json.dumps(read, indent=2, ensure_ascii=False) + "\n")

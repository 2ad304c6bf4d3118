"""Adapters that `peft` or evr1 wrote, as parameters of a model with adapters.

Modules may have different ranks and factors: smaller ranks are filled up with zeros, which stay
zeros in training, and a factor that is not that of the others goes into B. A layer without an
adapter has one of zeros, which stays as it is.

Source: peft 0.21, LoraConfig, `get_pattern_key`, ParamWrapper.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evr1.formats import adapter_files
from evr1.models import lora
from evr1.models.base import Model
from evr1.models.io import hf, names, safetensors
from evr1.models.io.orbax_dir import Dtype
from evr1.models.io.safetensors import Entry
from evr1.models.lora import LoraModel
from evr1.models.tree import flatten, unflatten
from evr1.models.weights import Weight
from evr1.parallel import sharding
from evr1.types import Params

_KEY = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight")
_INNER = ".base_layer"  # peft wraps an experts module once for each of its parameters
_FIX = "merge it with peft and give the merged model"


class Adapter(NamedTuple):
    """An adapter directory, read.

    Attributes:
        rank: of all its pairs.
        alpha: A @ B is multiplied by alpha / rank.
        targets: regular expressions of the paths of its matrices, for `lora.adapt`.
        values: float32 arrays by path/a and path/b.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    values: dict[str, np.ndarray]

    def adapt(self, model: Model, *, dropout: float = 0.0, seed: int = 0) -> LoraModel:
        """Returns the model with adapters of these sizes."""
        sizes: dict[str, Any] = {"rank": self.rank, "alpha": self.alpha, "targets": self.targets}
        return lora.adapt(model, **sizes, dropout=dropout, seed=seed)

    def params(self, mesh: jax.sharding.Mesh | None = None) -> Params:
        """Returns new arrays of the values, whole on every device."""
        tree = unflatten(dict(self.values))
        if mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        return jax.device_put(tree, sharding.replicated(mesh))


class _Pair(NamedTuple):
    """The adapter of one matrix.

    Attributes:
        path: of the parameter.
        place: of the matrix in its stacks.
        a: float32[..., I, R]; of experts with their axis in front.
        b: float32[..., R, O].
        scale: what a @ b is multiplied by.
    """

    path: str
    place: tuple[int, ...]
    a: np.ndarray
    b: np.ndarray
    scale: float


def load_merged(
    path: str | Path,
    model: Model,
    adapter: Adapter,
    *,
    shardings: Any = None,
    dtype: Dtype = "float32",
    load: Callable[..., Params] = hf.load_params,
) -> Params:
    """Reads the parameters of a model directory and adds an adapter to them, in float32.

    Args:
        path: HF or Orbax directory.
        model: made by `load_model` from it.
        adapter: of `read`.
        shardings: as in `hf.load_params`.
        dtype: of the parameters, or of each by path; None is float32.
        load: reads the directory, as `hf.load_params` does.
    """
    adapted = adapter.adapt(model)
    targets = {weight.path for weight in adapted.targets()}
    if not isinstance(dtype, Mapping):
        dtype = dict.fromkeys(flatten(model.abstract_params()), dtype or "float32")
    wide = {**dtype, **dict.fromkeys(targets, "float32")}
    params = load(path, model, shardings=shardings, dtype=wide)
    mesh = next(iter(jax.tree.leaves(shardings))).mesh if shardings is not None else None
    merged = flatten(lora.merged(adapted, params | {"lora": adapter.params(mesh)}))
    return unflatten({k: x.astype(dtype[k]) if k in targets else x for k, x in merged.items()})


def adding(
    adapter: Adapter, read: Callable[[str, tuple[int, ...]], np.ndarray]
) -> Callable[[str, tuple[int, ...]], np.ndarray]:
    """Returns a `read` of `hf.values` with the adapter added to what the given one reads.

    A sum is float32: whoever writes it rounds it once.
    """
    scale = np.float32(adapter.alpha / adapter.rank)

    def read_sum(path: str, index: tuple[int, ...]) -> np.ndarray:
        value = read(path, index)
        if f"{path}/a" not in adapter.values:
            return value
        a, b = (adapter.values[f"{path}/{x}"][index] for x in "ab")
        return value.astype(np.float32) + scale * np.matmul(a, b).reshape(value.shape)

    return read_sum


def read(directory: str | Path, model: Model) -> Adapter:
    """Returns the adapter in a directory.

    Args:
        directory: that peft or evr1 wrote.
        model: the one that it belongs to, without adapters.

    Raises:
        ValueError: it is none, of a variant that evr1 does not do, or of another model.
    """
    root = Path(directory)
    fields = adapter_files.read_settings(root)
    adapter_files.check_variant(root, fields)
    file = root / adapter_files.TENSORS
    if not file.is_file():
        raise ValueError(f"{root}: no {file.name}; evr1 reads adapters in safetensors only")
    shapes = {k: v.shape for k, v in flatten(model.abstract_params()).items()}
    places, rules = _places(model, shapes), names.renamings(model.weights())
    pairs = []
    for written, (a, b) in _modules(root, safetensors.read_header(file)).items():
        plain = written.replace(_INNER, "")
        known = names.module(plain, rules)
        known = known if known in places else f"model.{known}"
        if known not in places:
            raise ValueError(
                f"{root}: {written} is no matrix of the model; give the model that the adapter was"
                " trained on"
            )
        factor = _Factor(root, fields, (plain, known))
        parts = places[known]
        if parts[0][0].role == "experts":
            count = shapes[parts[0][0].path][1]
            pairs += _experts(parts, a, b, factor, (count, written.count(_INNER)))
        else:
            weight, index = parts[0]
            a, b = a.reshape(len(a), -1).T, b.reshape(len(b), -1).T
            pairs.append(_Pair(weight.path, index, a, b, factor.of(a.shape[1])))
    if not pairs:
        raise ValueError(f"{file}: holds no adapter; copy the file again")
    return _joined(root, model, pairs, shapes)


def _modules(root: Path, tensors: Mapping[str, Entry]) -> dict[str, list[np.ndarray]]:
    """Returns [lora_A, lora_B] of each module, float32 and as peft shapes them."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, entry in tensors.items():
        parsed = _KEY.fullmatch(key)
        if parsed is None or not entry.is_supported:
            raise ValueError(f"{root}: {key} ({entry.dtype}) is no tensor of plain LoRA; {_FIX}")
        both = found.setdefault(parsed[1], {})
        if parsed[2] in both:
            raise ValueError(f"{root}: {parsed[1]} has two adapters; keep one")
        both[parsed[2]] = np.asarray(entry.open(), np.float32)
        if not np.isfinite(both[parsed[2]]).all():
            raise ValueError(f"{root}: {key} is not finite; give an adapter of an earlier step")
    for name, both in found.items():
        if len(both) < 2:
            raise ValueError(f"{root}: {name} has lora_{''.join(both)} alone; copy the files again")
    return {name: [both["A"], both["B"]] for name, both in found.items()}


_Parts = list[tuple[Weight, tuple[int, ...]]]


def _places(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, _Parts]:
    """Returns what each transformers module holds: (parameter, index in its stack of layers)."""
    places: dict[str, _Parts] = {}
    rules = names.renamings(model.weights())
    for weight in model.weights():
        if not lora.is_matrix(weight):
            continue
        shape = shapes[weight.path]
        if weight.role == "experts":
            for i, layer in enumerate(weight.layers or range(shape[0])):
                name = names.module((weight.fused or weight.name).format(layer), rules)
                places.setdefault(name.rpartition(".")[0], []).append((weight, (i,)))
            continue
        for i, name in enumerate(hf.hf_names(weight, shape)):
            module = names.module(name.removesuffix(".weight"), rules)
            places[module] = [(weight, (i,) if weight.is_stacked else ())]
    return places


class _Factor(NamedTuple):
    """What the fields say of a module's rank and factor."""

    root: Path
    fields: Mapping[str, Any]
    names: Sequence[str]

    def of(self, rank: int, parameter: str = "") -> float:
        """Returns alpha over the rank, or over its root.

        Args:
            rank: of the tensors, which must be that of the fields.
            parameter: of the module; empty: its weight.
        """
        full = [f"{name}.{parameter}" if parameter else name for name in self.names]
        expected = self._at("rank_pattern", full, self.fields.get("r", 8))
        if expected != rank:
            raise ValueError(
                f"{self.root}: {full[0]} has rank {rank}, {adapter_files.CONFIG} says {expected};"
                " copy both files again"
            )
        alpha = self._at("alpha_pattern", full, self.fields.get("lora_alpha", 8))
        if type(alpha) not in (int, float) or alpha == 0 or not math.isfinite(alpha):
            raise ValueError(
                f"{self.root}: lora_alpha={alpha!r} of {full[0]}; give a number, and not 0"
            )
        return alpha / (rank**0.5 if self.fields.get("use_rslora") else rank)

    def _at(self, field: str, full: Sequence[str], default: Any) -> Any:
        for pattern, value in (self.fields.get(field) or {}).items():
            if any(re.match(rf"(.*\.)?({pattern})$", name) for name in full):
                return value
        return default


def _experts(
    parts: _Parts, a: np.ndarray, b: np.ndarray, factor: _Factor, sizes: tuple[int, int]
) -> list[_Pair]:
    """Returns the adapters of one parameter of an experts module.

    Args:
        parts: the parameters that the module holds.
        a: [E R, I], expert by expert.
        b: [O, R E], rank by rank.
        factor: of the module.
        sizes: experts, and how many of peft's wrappers are round this one.
    """
    count, inner = sizes
    given = {str(x).rpartition(".")[2] for x in factor.fields.get("target_parameters") or ()}
    # peft wraps the first one first, so the last one is outermost.
    wrapped = [x for x in ("gate_up_proj", "down_proj") if x in given] or ["gate_up_proj"]
    if len(a) % count or inner >= len(wrapped):
        raise ValueError(
            f"{factor.root}: {factor.names[0]} has lora_A {list(a.shape)}, which are no adapters of"
            f" {count} experts; {_FIX}"
        )
    name, rank = wrapped[-1 - inner], len(a) // count
    scale = factor.of(rank, name)
    a = a.reshape(count, rank, -1).swapaxes(1, 2)
    b = b.reshape(-1, rank, count).transpose(2, 1, 0)
    chosen = [x for x in parts if (x[0].fused or x[0].name).endswith(name)]
    pairs = []
    for weight, index in chosen:
        out = b.shape[-1] // weight.parts
        mine = b[..., weight.part * out :][..., :out]
        used = mine.any(axis=(0, 2))  # ranks that this part of a fused tensor has
        if b.any() and not used.any():
            continue  # the adapter is of the other part alone
        half = slice(None)
        if weight.parts == 2 and rank % 2 == 0 and b.any():
            own = slice(0, rank // 2) if weight.part == 0 else slice(rank // 2, rank)
            others = np.delete(used, np.r_[own])
            half = slice(None) if others.any() else own  # as evr1 writes both side by side
        pairs.append(_Pair(weight.path, index, a[..., half], mine[:, half], scale))
    return pairs


def _joined(
    root: Path, model: Model, pairs: list[_Pair], shapes: Mapping[str, tuple[int, ...]]
) -> Adapter:
    """Returns the pairs in stacks of one rank, and of the factor that most of them have."""
    weights = {weight.path: weight for weight in model.weights()}
    rank = max(pair.a.shape[-1] for pair in pairs)
    scales = [pair.scale for pair in pairs]
    scale = max(dict.fromkeys(scales), key=scales.count)
    values: dict[str, np.ndarray] = {}
    for pair in pairs:
        stack, fan_in, fan_out = lora.split(weights[pair.path], shapes[pair.path])
        lead = stack[len(pair.place) :]
        got, expected = (*pair.a.shape[:-1], pair.b.shape[-1]), (*lead, fan_in, fan_out)
        if got != expected or pair.a.shape[-1] != pair.b.shape[-2]:
            raise ValueError(
                f"{root}: the adapter of {pair.path} is for {list(got)}, the model has"
                f" {list(expected)}; give the model that it was trained on"
            )
        for x, shape in (("a", (*stack, fan_in, rank)), ("b", (*stack, rank, fan_out))):
            values.setdefault(f"{pair.path}/{x}", np.zeros(shape, np.float32))
        values[f"{pair.path}/a"][pair.place][..., : pair.a.shape[-1]] = pair.a
        values[f"{pair.path}/b"][pair.place][..., : pair.b.shape[-2], :] = pair.b * np.float32(
            pair.scale / scale
        )
    targets = dict.fromkeys(re.escape(pair.path) for pair in pairs)
    return Adapter(rank, scale * rank, tuple(targets), values)

"""Reads the parameters of any directory that is given as a model: HF, Orbax, or a run's checkpoint.

Of a checkpoint the policy's parameters alone are read, each straight to its devices. Where adapters
were trained, they are added to what the run started from.
"""

import contextlib
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from evr1.formats import run_files
from evr1.formats.run_files import RunCheckpoint
from evr1.models.base import Model
from evr1.models.io import hf, orbax_dir, peft_read
from evr1.models.io.orbax_dir import Dtype
from evr1.models.tree import flatten
from evr1.types import Params


def load_params(
    path: str | Path,
    model: Model,
    *,
    shardings: Any = None,
    dtype: Dtype = "float32",
    adapter: str = "",
) -> Params:
    """Reads the parameters of a model.

    Args:
        path: HF or Orbax directory, or a checkpoint as `run_files` names it.
        model: made by `load_model` from it.
        shardings: see `hf.load_params`.
        dtype: see `hf.load_params`.
        adapter: directory of an adapter that is added to them; empty: none.

    Raises:
        ValueError: see `hf.load_params`; or there is no such checkpoint.
    """
    where: dict[str, Any] = {"shardings": shardings, "dtype": dtype}
    if adapter:
        known = peft_read.read(adapter, model)
        return peft_read.load_merged(path, model, known, **where, load=load_params)
    run = run_files.find(path)
    if run is None:
        return hf.load_params(path, model, **where)
    trained = adapter_of(run, model)
    if trained is None:  # what was merged at the start is part of it
        return _load_policy(run, model, **where)
    merged = "" if _is_continued(run) else _first_adapter(run)
    start = functools.partial(load_params, adapter=merged)
    return peft_read.load_merged(run.start, model, trained, **where, load=start)


def adapter_of(run: RunCheckpoint, model: Model) -> peft_read.Adapter | None:
    """Returns the adapters that a run has trained; None: it trains the model itself."""
    lora = run.config["lora"]
    if _is_continued(run):
        first = peft_read.read(lora["adapter"], model)
        rank, alpha, targets = first.rank, first.alpha, first.targets
    elif lora["rank"]:
        rank, alpha, targets = lora["rank"], lora["alpha"], tuple(lora["targets"])
    else:
        return None
    stored = _stored(run)["lora"]
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), stored)
    values = _restore(run, {"lora": abstract})["lora"]
    arrays = {name: np.asarray(x) for name, x in flatten(values).items()}
    return peft_read.Adapter(rank, alpha, targets, arrays)


def _is_continued(run: RunCheckpoint) -> bool:
    """Returns whether the run went on with the adapters that it started from."""
    return bool(_first_adapter(run)) and not run.config["lora"]["merge_adapter"]


def _first_adapter(run: RunCheckpoint) -> str:
    """Returns the adapter that the run started from; "": none."""
    return run.config["lora"]["adapter"]


def _load_policy(run: RunCheckpoint, model: Model, shardings: Any, dtype: Dtype) -> Params:
    abstract = model.abstract_params()
    if shardings is None:
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: here, abstract)
    stored = _stored(run)
    orbax_dir.check_shapes(abstract, stored, str(run.directory))
    kinds = {path: orbax_dir.pick(dtype, path, x.dtype) for path, x in flatten(stored).items()}
    places = flatten(shardings)
    target = jax.tree_util.tree_map_with_path(
        lambda keys, x: jax.ShapeDtypeStruct(
            x.shape, kinds[orbax_dir.spelled(keys)], sharding=places[orbax_dir.spelled(keys)]
        ),
        abstract,
    )
    return _restore(run, target)


def _stored(run: RunCheckpoint) -> Any:
    """Returns the shapes and dtypes of the policy's parameters in a checkpoint, nested."""
    with _handler() as handler:
        try:
            return handler.metadata(_state(run)).tree["params"]
        except (FileNotFoundError, ValueError, AttributeError, KeyError, TypeError) as e:
            raise ValueError(f"{run.directory}: damaged ({e}); give another step") from None


def _restore(run: RunCheckpoint, target: Any) -> Any:
    """Reads a part of the parameters."""
    item = {"params": target}
    arguments = ocp.args.PyTreeRestore(
        item=item,
        restore_args=ocp.checkpoint_utils.construct_restore_args(item),
        partial_restore=True,
    )
    with _handler() as handler:
        try:
            return handler.restore(_state(run), args=arguments)["params"]
        except RuntimeError:  # of the device
            raise
        except Exception as e:  # noqa: BLE001  Orbax's own where a file of an array is cut off, gone
            first = (str(e).splitlines() or [type(e).__name__])[0][:200]
            raise ValueError(f"{run.directory}: damaged ({first}); give another step") from None


def _handler() -> contextlib.closing[ocp.PyTreeCheckpointHandler]:
    """Returns a reader of an item; a Checkpointer would look there for what its parent has."""
    return contextlib.closing(ocp.PyTreeCheckpointHandler())


def _state(run: RunCheckpoint) -> epath.Path:
    return epath.Path((run.directory / run_files.STATE).absolute())

"""Checkpoints of a run: everything that resuming needs, in one atomic directory a step.

`<directory>/<step>/` holds the device state (parameters, optimizer state, step), a small JSON
record (data position, seeds) and checksums of both. Orbax writes under a temporary name and renames
at the end, so a `kill -9` leaves either a whole checkpoint or none. Orbax does not notice a flipped
bit in array data; the checksums do.
"""

import contextlib
import dataclasses
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

PyTree = Any
_BEST = "best"  # in the JSON record
_TEMPORARY = ".orbax-checkpoint-tmp"
_DISK_FULL = "No space left on device"  # at the end of an Orbax message of many lines


class Restored(NamedTuple):
    """A checkpoint read back."""

    step: int  # RL steps behind the state
    state: PyTree
    extra: dict[str, Any]  # the JSON record


class Checkpoints:
    """The checkpoints of one run; saving is asynchronous, one save at a time.

    Args:
        directory: made if it does not exist.
        keep: how many of the newest checkpoints stay.
        log: gets one line for every checkpoint that is ignored, with the reason.

    Attributes:
        best: (step, held-out accuracy) of the best evaluation, whose checkpoint stays too; it is in
            every checkpoint, and None before there is one.

    Raises:
        ValueError: `keep` is below 1.
    """

    def __init__(
        self, directory: str | Path, *, keep: int = 3, log: Callable[[str], None] = print
    ) -> None:
        if keep < 1:
            raise ValueError(f"checkpoint.keep={keep}; keep at least 1")
        self.directory = Path(directory).absolute()
        self._keep, self._log = keep, log
        self.best: tuple[int, float] | None = None
        for path in sorted(self.directory.glob(f"*{_TEMPORARY}*")):
            log(f"{path}: unfinished checkpoint of a run that was killed; removed")
        self._manager = self._open()

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The newest step with a finished checkpoint; None: there is none."""
        return max(self._manager.all_steps(), default=None)

    def is_best(self, step: int, accuracy: float) -> bool:
        """Takes an evaluation; returns whether it is better than all before it."""
        if self.best is not None and accuracy <= self.best[1]:
            return False
        self.best = step, accuracy
        return True

    def save(self, step: int, state: PyTree, extra: Mapping[Any, Any]) -> None:
        """Starts to write a checkpoint; the caller may donate `state` as soon as this returns.

        Waits until the save before it has ended. An error in the background is raised by the next
        call of `save`, `wait` or `close`.

        Args:
            step: RL steps behind `state`; a step is saved at most once.
            state: pytree of arrays.
            extra: anything JSON can hold.

        Raises:
            ValueError: this save or the one before it could not be written.
        """
        extra = {**extra, _BEST: self.best}
        arguments = {
            "state": ocp.args.StandardSave(state),
            "extra": ocp.args.JsonSave(extra),
            "checksums": ocp.args.JsonSave(_checksums(state, extra)),
        }
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**arguments), force=True)

    def restore(self, abstract: PyTree, step: int | None = None) -> Restored | None:
        """Reads the newest whole checkpoint straight onto its devices; None: there is none.

        A damaged checkpoint is renamed to `damaged-<step>`, logged, and the one before it is read.

        Args:
            abstract: tree of jax.ShapeDtypeStruct with the shardings to restore to.
            step: read this step and no other; raises if it is damaged.

        Raises:
            ValueError: the checkpoint holds other arrays (those that differ are named), `step` does
                not exist, or there are checkpoints and all are damaged.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            raise ValueError(
                f"{self.directory} has no step {step}; it has {steps or 'no checkpoint'}"
            )
        damaged = []
        for candidate in [step] if step is not None else reversed(steps):
            restored, problem = self._read(candidate, abstract)
            if restored is not None:
                self._set_aside(damaged)
                best = restored.extra.pop(_BEST)
                self.best = (best[0], best[1]) if best else None
                return restored
            self._log(f"{self.directory / str(candidate)}: damaged checkpoint ignored: {problem}")
            damaged.append(candidate)
        if damaged:
            raise ValueError(
                f"{self.directory}: every checkpoint is damaged (steps {damaged}); "
                "restore a copy of one, or start over in a new workdir"
            )
        return None

    def wait(self) -> None:
        """Blocks until the last save is on disk.

        Raises:
            ValueError: it could not be written.
        """
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for the last save and frees the manager's threads."""
        self.wait()
        self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns an error of a save into one line that says what to do."""
        try:
            yield
        except (ValueError, OSError) as error:
            text = " ".join(str(error).split())
            why = "no space left on device" if _DISK_FULL in text else text[:200]
            raise ValueError(
                f"{self.directory}: a checkpoint could not be written ({why}); mend that and give "
                "the same command, which goes on from the last whole one"
            ) from error

    def _open(self) -> ocp.CheckpointManager:
        """Opens the directory, and removes unfinished checkpoints."""
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Kept(self._keep, lambda: self.best[0] if self.best else None),
            cleanup_tmp_directories=True,
        )
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "extra": ocp.JsonCheckpointHandler(),
            "checksums": ocp.JsonCheckpointHandler(),
        }
        return ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def _read(self, step: int, abstract: PyTree) -> tuple[Restored | None, str]:
        """Returns the checkpoint, or None and what is wrong with it."""
        arguments = {
            "state": ocp.args.StandardRestore(abstract),
            "extra": ocp.args.JsonRestore(),
            "checksums": ocp.args.JsonRestore(),
        }
        saved, problem = _attempt(lambda: _array_shapes(self._manager.item_metadata(step).state))
        if saved is None:
            return None, problem or "the list of its arrays is missing"
        _check_same_arrays(self.directory / str(step), saved, abstract)
        restore = ocp.args.Composite(**arguments)
        items, problem = _attempt(lambda: self._manager.restore(step, args=restore))
        if items is None:
            return None, problem
        saved_sums = items["checksums"] if isinstance(items["checksums"], dict) else {}
        sums = _checksums(items["state"], items["extra"])
        damaged = sorted(path for path, n in sums.items() if saved_sums.get(path) != n)
        if damaged:
            names = ", ".join(path or "the JSON record" for path in damaged[:3])
            return None, f"checksum of {names} differs from the one saved"
        return Restored(step, items["state"], items["extra"]), ""

    def _set_aside(self, damaged: list[int]) -> None:
        """Renames damaged checkpoints, so that their steps can be saved again."""
        if not damaged:
            return
        self._manager.close()
        if jax.process_index() == 0:
            for step in damaged:
                (self.directory / str(step)).rename(_unused(self.directory / f"damaged-{step}"))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self._manager = self._open()


@dataclasses.dataclass(frozen=True)
class _Kept(ocp.checkpoint_managers.PreservationPolicy):
    """The newest checkpoints, and one more.

    Attributes:
        newest: how many.
        other: gives the step of the one more; None: there is none.
    """

    newest: int
    other: Callable[[], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """See Orbax."""
        del context
        step, first = self.other(), len(checkpoints) - self.newest
        return [i >= first or known.step == step for i, known in enumerate(checkpoints)]


def _checksums(tree: PyTree, extra: Any) -> dict[str, int]:
    """Returns the checksum of each array by its path, and of the JSON record under ""."""
    # Leaf by leaf, because arrays may live on different devices, and each awaited: simulated CPU
    # devices that run more than one independent reduction at a time block each other for good.
    sums = {path: int(checksum(leaf)) for path, leaf in _flat(tree).items()}
    plain = json.loads(json.dumps(extra))  # as it will be read back: with strings as keys, say
    text = json.dumps(plain, sort_keys=True)
    return {"": zlib.crc32(text.encode()), **sums}


def compile_slices(tree: PyTree) -> None:
    """Compiles what a save runs where devices have the same array: each writes a slice."""
    for x in jax.tree.leaves(tree):
        if not x.ndim or x.sharding.memory_kind == "pinned_host":  # Orbax slices few of those
            continue
        shard = x.addressable_shards[0]
        copies = sum(each.index == shard.index for each in x.global_shards)
        axes = (axis for axis, size in enumerate(shard.data.shape) if size and size % copies == 0)
        axis = next(axes, None)
        if copies == 1 or axis is None:
            continue
        for each in x.addressable_shards:  # as Orbax does
            part, size = each.replica_id, each.data.shape[axis] // copies
            with jax.set_mesh(jax.sharding.Mesh(np.array([each.device]), ("data",))):
                jax.lax.slice_in_dim(each.data, part * size, (part + 1) * size, axis=axis)


@jax.jit
def checksum(x: jax.Array) -> jax.Array:
    """Returns an array's checksum: equal on any sharding, changed by any single flipped bit.

    It is the sum over elements i of bits(i) * (2 i + 1) modulo 2**32. An odd factor loses no bit,
    and factors that differ make elements that trade places show. Integer sums do not depend on
    their order, so neither does this.
    """
    x = jax.device_put(x, jax.memory.Space.Device)  # moments may lie in the host's memory
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    index = jnp.zeros(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        stride = np.uint32(math.prod(x.shape[axis + 1 :]) % 2**32)
        index += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * stride
    return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32)


def _flat(tree: PyTree) -> dict[str, Any]:
    """The leaves by path, as Orbax spells it: 'params/text/wq', 'opt_state/1/0/mu/text/wq'."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _array_shapes(metadata: Any) -> dict[str, str] | None:
    """Path -> 'float32[2,3]' of each array of a checkpoint; None: unreadable."""
    if metadata is None or metadata.tree is None:
        return None
    return {path: _spelled(leaf) for path, leaf in _flat(metadata.tree).items()}


def _spelled(array: Any) -> str:
    return f"{jnp.dtype(array.dtype).name}[{','.join(map(str, array.shape))}]"


def _check_same_arrays(source: Path, saved: Mapping[str, str], abstract: PyTree) -> None:
    """Raises where the checkpoint `source` holds other arrays than a run of this config has."""
    expected = {path: _spelled(leaf) for path, leaf in _flat(abstract).items()}
    problems = [
        f"{path} is {saved.get(path, 'missing')}, "
        f"this run has {expected.get(path, 'no such tensor')}"
        for path in sorted(expected.keys() | saved.keys())
        if saved.get(path) != expected.get(path)
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"checkpoint {source} was written with another model, lora.rank, algorithm.advantage "
            f"(a critic) or optimizer: {'; '.join(problems[:5])}{more}; give the config that it "
            "was made with, or another config.workdir"
        )


def _attempt(read: Callable[[], Any]) -> tuple[Any, str]:
    """Returns what a read gives, or None and why it failed."""
    try:
        return read(), ""
    except Exception as error:  # noqa: BLE001  Orbax raises whatever it stumbles over in damaged files
        return None, _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _unused(path: Path) -> Path:
    """Returns a path that does not exist: this one, or one with ~1, ~2, ... behind it."""
    n = 0
    while path.exists():
        n += 1
        path = path.with_name(f"{path.name.split('~')[0]}~{n}")
    return path

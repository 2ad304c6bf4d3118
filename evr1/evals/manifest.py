"""`manifest.json`: what a run is. A folder holds answers of one kind only."""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evr1 import __version__
from evr1.config.evals import BenchmarkSettings
from evr1.evals.samples import MANIFEST, read_manifest
from evr1.models.io import identity
from evr1.telemetry.provenance import git_commit
from evr1.telemetry.workdir import replace_file

if TYPE_CHECKING:
    from evr1.evals.plan import Prepared

# What answers depend on, besides the model; the same in a whole folder. Limits that only make a
# sample fail are no part of it: its reason asks to raise them.
_SAME = ("seed", "samples", "temperature", "top_p", "top_k", "max_tokens", "thinking")
_SAME += ("template_variables", "dtype")


def check(folder: Path, settings: BenchmarkSettings, prepared: Sequence["Prepared"]) -> None:
    """Checks that the answers of a job may go into a folder.

    Raises:
        ValueError: the folder was written with other settings, of which the first is named, or
            does not say with which.
    """
    old = read_manifest(folder)
    _merged(folder / MANIFEST, old, settings, prepared)
    for path in sorted(folder.glob("samples_*.jsonl")) if not old else ():
        if path.stat().st_size:
            raise ValueError(
                f"{path} has answers, but no {MANIFEST} beside it says what they are; restore it, "
                "or give another config.workdir"
            )


def write(folder: Path, settings: BenchmarkSettings, prepared: Sequence["Prepared"]) -> None:
    """Writes the manifest of a run, or adds tasks to the one that is there.

    Raises:
        ValueError: see `check`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MANIFEST
    with _lock(folder):
        old = read_manifest(folder)
        merged = _merged(path, old, settings, prepared)
        if merged != old:
            replace_file(path, [json.dumps(merged, indent=2).encode() + b"\n"])


def made(settings: BenchmarkSettings) -> str:
    """Returns a hash of the model and of the sampling, which each answer carries.

    Files of several folders can then be put into one without mixing two runs.
    """
    weights = identity.of_model(settings.model or "")
    values = [weights or settings.model, *(getattr(settings, name) for name in _SAME)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _merged(
    path: Path,
    old: Mapping[str, Any],
    settings: BenchmarkSettings,
    prepared: Sequence["Prepared"],
) -> dict[str, Any]:
    """Returns the manifest with these tasks."""
    new: dict[str, Any] = {name: getattr(settings, name) for name in _SAME}
    tasks = {each.task.name: each.manifest() for each in prepared}
    _check_same(path, "", old, new)
    new |= _model(path, settings, old)
    for name in tasks.keys() & old.get("tasks", {}).keys():
        _check_same(path, f"{name}: ", old["tasks"][name], tasks[name])
    counts = old.get("n_expected", {})
    counts = dict(counts) if isinstance(counts, dict) else {}  # scoring says what is wrong
    counts |= {each.task.name: each.n_expected for each in prepared}
    return {
        "evr1_version": __version__,
        "git_hash": git_commit(Path(__file__).parents[2]),
        **old,
        **new,
        "n_expected": counts,
        "tasks": {**old.get("tasks", {}), **tasks},
    }


def _model(path: Path, settings: BenchmarkSettings, old: Mapping[str, Any]) -> dict[str, str]:
    """Returns the path of the model and the hash of what lies there.

    The same weights may lie elsewhere, on another machine say; others may not lie there.
    """
    model = {"model": str(Path(settings.model or "").resolve())}
    if weights := identity.of_model(model["model"]):
        model["weights"] = weights
    was = old.get("weights")
    if not (was and weights):  # an older run, one in training, or a model that is gone
        _check_same(path, "", old, model)
    elif was != weights:
        raise ValueError(
            f"{path}: the weights or settings of {model['model']} are not those that the answers "
            f"there come from (of {old.get('model')}); give another config.workdir"
        )
    return model


def _check_same(path: Path, where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for name in new:
        if name in old and name != "data" and old[name] != new[name]:
            raise ValueError(
                f"{path}: {where}{name} was {old[name]!r}, now it is {new[name]!r}; give another "
                "config.workdir, or the former value"
            )


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Parts that begin together write one after the other."""
    with (folder / "manifest.lock").open("a") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

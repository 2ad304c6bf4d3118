"""config.json: the config of a run, and the command, folder, commit and versions it ran with."""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from evr1 import __version__
from evr1.formats import user_code
from evr1.telemetry.workdir import replace_file

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def write_config(path: Path, config: Mapping[str, Any], *, resumed: bool) -> list[str]:
    """Writes config.json: the config's fields, and under "run" the command, folder, commit,
    versions, and a digest of the user's scorers.

    Args:
        path: replaced atomically.
        config: the resolved config.
        resumed: compare with the file that is there.

    Returns:
        One line for every field that differs from the run being resumed, and for other scorers.

    Raises:
        ValueError: the file that is there holds no JSON object.
    """
    config = json.loads(json.dumps(config))
    before = _read(path) if resumed and path.exists() else None
    changes = [] if before is None else _changes(before, config)
    extra = user_code.digest(config["rewards"]["extra"])
    was = (before or {}).get("run", {}).get(user_code.RECORD, "")
    if extra and was and extra != was:
        changes.append(
            f"changed since the run began: what {config['rewards']['extra']} (rewards.extra) "
            "holds; rewards before and from now on may mean different things"
        )
    run = {
        "command": sys.argv,
        "folder": os.getcwd(),
        "git_commit": git_commit(Path(__file__).parents[2]),
        "python": platform.python_version(),
        "versions": _versions(),
        user_code.RECORD: extra,
    }
    replace_file(path, [json.dumps({**config, "run": run}, indent=2).encode() + b"\n"])
    return changes


def common(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns what must be the same on all hosts: fields of the config, and versions."""
    fields = {name: x for name, x in config.items() if name != "hosts"}
    flat = {f"{a}.{b}": y for a, x in fields.items() if isinstance(x, dict) for b, y in x.items()}
    flat |= {name: x for name, x in fields.items() if not isinstance(x, dict)}
    versions = {"evr1": __version__, "jax": jax.__version__, "numpy": np.__version__}
    return {name: repr(x) for name, x in (flat | versions).items()}


def git_commit(repository: Path) -> str:
    """The commit of a checkout, with "+changes" where files differ from it; empty: no checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != repository.resolve():
            return ""  # installed into the checkout of something else
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for every field that differs; what the file says of its run is not compared."""
    old, new = _flat(before), _flat(now)
    folder = str(old.get("run.folder", ""))
    return [
        f"config changed since the run began: {name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if not name.startswith("run.") and not _is_same(old.get(name), new.get(name), folder)
    ]


def _is_same(old: Any, new: Any, folder: str) -> bool:
    """Returns whether two values are equal, or name the same file: the old one from a folder."""
    if isinstance(old, str) and isinstance(new, str) and old and new:
        return old == new or os.path.realpath(os.path.join(folder, old)) == os.path.realpath(new)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return all(_is_same(a, b, folder) for a, b in zip(old, new, strict=True))
    return old == new


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")).items())
    except (ValueError, AttributeError):
        raise ValueError(f"{path}: no JSON object; remove it, it is written again") from None


def _versions() -> dict[str, str]:
    """Package -> version: ours, and those of the packages that are installed."""
    versions = {"evr1": __version__}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields by dotted name.

    >>> _flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat

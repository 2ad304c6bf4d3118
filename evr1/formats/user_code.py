"""Python files of a user's own, such as scorers and benchmarks: a file and an import."""

import contextlib
import hashlib
import importlib.util
import sys
import types
from pathlib import Path

RECORD = "rewards_extra"  # under "run" of config.json: the digest of the file of rewards.extra, ""


def run(path: Path, name: str) -> types.ModuleType:
    """Returns the module of a file, which is run now; what it prints goes to stderr.

    Args:
        path: of a .py file.
        name: of the module; one of its own, as my math.py must not stand in for the library's.

    Raises:
        ValueError: there is no such file, or it fails; one line, without the path.
    """
    if not path.is_file():
        raise ValueError("no such file; correct the path")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError("it is no Python file; give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    # A user's file may fail in any way; the message says which.
    except (Exception, SystemExit) as e:  # noqa: BLE001
        del sys.modules[name]
        raise ValueError(failure(e)) from e
    return module


def digest(spec: str) -> str:
    """Returns a name for what a user's file holds; "" of a module, and where there is no file.

    Args:
        spec: path of a .py file, `:NAME` may be behind it.
    """
    path = Path(spec.partition(":")[0])
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else ""


def failure(error: BaseException, what: str = "running") -> str:
    """Returns what running or finding a file failed with, in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{what} it fails with {text[:300]}; correct it"


def short(value: object) -> str:
    """Returns a value as a message shows it: on one line and not long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."

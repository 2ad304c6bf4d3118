"""Directories that are there whole or not at all, also where one takes the place of another.

Beside `out` there may be, after a kill:

- `out.partial`: what was being written, or what was being removed. The next write removes it.
- `out.replaced`: the directory that stood under `out`, still whole. The next write puts it back
  where `out` is missing, and removes it where the new one has come.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Gives an empty directory to write into; at the end it takes the name `out`.

    At every moment either `out` or `out.replaced` is a whole directory, if `out` was one before.
    """
    recover(out)
    partial, replaced = _beside(out)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if out.exists():
        os.rename(out, replaced)
    os.rename(partial, out)
    _remove(replaced, partial)


def recover(out: Path) -> None:
    """Mends what a kill between two renames of `new_directory` left behind."""
    partial, replaced = _beside(out)
    if not replaced.exists():
        return
    if out.exists():
        shutil.rmtree(partial, ignore_errors=True)
        _remove(replaced, partial)
    else:
        os.rename(replaced, out)


def _beside(out: Path) -> tuple[Path, Path]:
    return out.with_name(out.name + ".partial"), out.with_name(out.name + ".replaced")


def _remove(replaced: Path, partial: Path) -> None:
    """Removes a replaced directory under a name that says that it is no longer whole."""
    if replaced.exists():
        os.rename(replaced, partial)
        shutil.rmtree(partial)

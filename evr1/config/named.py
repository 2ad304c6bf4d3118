"""Config files by name: those that come with evr1 are found from any folder, others by their path.

    demo, qwen_video, recipes/qwen3_vl_8b:v6e-64, my.py, configs/demo.py

A name is the file's place in `configs/`, without .py. What stands behind a colon is the argument of
its get_config().
"""

import runpy
from pathlib import Path

import ml_collections

from evr1.config.reference import did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")  # of an installation, of a checkout


def folder() -> Path:
    """Returns where the config files lie that come with evr1."""
    return next((f for f in _FOLDERS if (f / "demo.py").is_file()), _FOLDERS[0])


def names() -> list[str]:
    """Returns the names of the config files that come with evr1."""
    files = (f.relative_to(folder()) for f in folder().rglob("[!_]*.py"))
    return sorted(f.with_suffix("").as_posix() for f in files)


def find(name: str) -> str:
    """Returns the path of a config file, with its argument if it has one; a file goes first.

    Args:
        name: name or path, and `:ARGUMENT` if get_config() takes one.

    Raises:
        ValueError: no such file and no such name; says which names are near.
    """
    given, colon, argument = name.partition(":")
    if Path(given).is_file():
        return name
    known = names()
    if given in known:
        return f"{folder() / given}.py{colon}{argument}"
    plain = given.removesuffix(".py")
    same = [n for n in known if n.rpartition("/")[2] == plain.rpartition("/")[2]]
    near = f"; did you mean {same[0]}?" if same else did_you_mean(plain, known)
    fix = near or f"; give a path, or one of {', '.join(known)}"
    raise ValueError(f"--config={given}: no such file, and no config of evr1's{fix}")


def load(name: str) -> ml_collections.ConfigDict:
    """Returns the config of a file, to start another from it or to train with it.

    Args:
        name: as for `find`.

    Raises:
        ValueError: there is no such file, or it has no get_config().
    """
    path, colon, argument = find(name).partition(":")
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise ValueError(f"{path}: no get_config() there; define it as configs/demo.py does")
    return get_config(argument) if colon else get_config()

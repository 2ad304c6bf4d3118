"""What all processes that write a directory of shards agree on: one value, written once."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any


def read(path: pathlib.Path, field: str, is_valid: Callable[[Any], bool], need: str) -> Any:
    """Returns the value of a manifest; None: there is none.

    Args:
        path: of the file, `{field: value}`.
        field: the name of the value.
        is_valid: whether a value can be one.
        need: what a value has to be, for the message.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())[field]
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError):
        value = None
    if not is_valid(value):
        raise ValueError(f'{path}: not {{"{field}": {need}}}; correct it')
    return value


def write_once(path: pathlib.Path, field: str, value: Any) -> None:
    """Writes a manifest, unless there is one: of processes that start together one decides."""
    temporary = path.with_name(f".writing-{path.name}-{os.uname().nodename}-{os.getpid()}")
    temporary.write_text(json.dumps({field: value}) + "\n", "utf-8")
    with contextlib.suppress(FileExistsError):  # another process was first
        os.link(temporary, path)
    temporary.unlink()

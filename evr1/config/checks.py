"""What the checks of settings are made of: each raises one line that names field, value and fix."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

from evr1.config import urls

LONGEST_TIMEOUT_S = 86400.0  # poll and setitimer take no more than some weeks


@dataclasses.dataclass(frozen=True)
class Section:
    """A group of settings. Fields that follow from others may be None or 0 until `resolve` ends.

    Attributes:
        home: the file that names the fields.
    """

    home = "evr1/config/base.py"

    def check(self) -> None:
        """Raises ValueError where the section is wrong whatever the others hold."""
        raise NotImplementedError

    def check_paths(self) -> None:
        """Raises ValueError where a file or directory that the section names cannot be used."""


def require(ok: Any, field: str, got: str, fix: str) -> None:
    """Raises a ValueError of one line unless `ok`."""
    if not ok:
        raise ValueError(f"config.{field} {got}; {fix}")


def choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    """Requires one of some names."""
    require(value in allowed, field, f"is {value!r}", f"choose one of {', '.join(allowed)}")


def positive(group: str, section: Section, names: tuple[str, ...]) -> None:
    """Requires fields of more than 0."""
    for name in names:
        value = getattr(section, name)
        require(value > 0, _field(group, name), f"is {value}", "need more than 0")


def at_least_0(group: str, section: Section, names: tuple[str, ...]) -> None:
    """Requires fields of 0 or more."""
    for name in names:
        value = getattr(section, name)
        require(value >= 0, _field(group, name), f"is {value}", "need 0 or more")


def _field(group: str, name: str) -> str:
    return f"{group}.{name}" if group else name


def timeout(field: str, seconds: float) -> None:
    """Requires a time that timers can be set to."""
    require(
        0 < seconds <= LONGEST_TIMEOUT_S,
        field,
        f"is {seconds}",
        f"need more than 0 and at most {LONGEST_TIMEOUT_S:g} seconds",
    )


def share(field: str, value: float) -> None:
    """Requires a share below 1."""
    require(0 <= value < 1, field, f"is {value}", "a share from 0 up to (not including) 1")


def from_0_to_1(field: str, value: float) -> None:
    """Requires a number from 0 to 1, both included."""
    require(0 <= value <= 1, field, f"is {value}", "need 0 to 1")


def numbers(prefix: str, section: Section) -> None:
    """Requires floats that are finite and whole numbers that fit the device's, in all sections."""
    for name, value in vars(section).items():
        if isinstance(value, Section):
            numbers(f"{prefix}{name}.", value)
        elif isinstance(value, float):
            require(math.isfinite(value), prefix + name, f"is {value}", "need a finite number")
        elif isinstance(value, int) and name != "seed":
            require(abs(value) < 2**31, prefix + name, f"is {value}", "need less than 2**31")


IN_BUCKETS = frozenset(  # fields that may be addresses in a bucket
    ("data.shards", "data.train", "data.eval", "data.sources", "data.media_dir", "shards")
)


def local_paths(prefix: str, section: Section) -> None:
    """Requires that no text is an address, but for those named `url` and of `IN_BUCKETS`."""
    for name, value in vars(section).items():
        if isinstance(value, Section):
            local_paths(f"{prefix}{name}.", value)
        elif name != "url":
            for text in _texts(value):
                is_read = prefix + name in IN_BUCKETS and urls.is_bucket(text)
                require(is_read or not urls.is_remote(text), prefix + name, f"is {text}", urls.FIX)


def _texts(value: Any) -> list[str]:
    """Returns the texts in nested tuples."""
    if isinstance(value, str):
        return [value]
    return [text for part in value for text in _texts(part)] if isinstance(value, tuple) else []


def items(field: str, values: tuple[Any, ...], kind: type, need: str) -> None:
    """Requires a tuple of texts, or of whole numbers over 0."""
    for value in values:
        ok = isinstance(value, kind) and (kind is str or value > 0)
        require(ok, field, f"holds {value!r}", need)


def pairs_of_texts(field: str, values: tuple[Any, ...], form: str) -> None:
    """Requires pairs of texts, which look like `form`."""
    for pair in values:
        is_pair = isinstance(pair, tuple) and len(pair) == 2
        ok = is_pair and all(isinstance(text, str) for text in pair)
        require(ok, field, f"holds {pair!r}", f"need pairs {form}")


def patterns(field: str, values: tuple[str, ...]) -> None:
    """Requires regular expressions."""
    for pattern in values:
        try:
            re.compile(pattern)
        except re.error as e:
            raise ValueError(f"{field} holds {pattern!r}: {e}; fix the pattern") from None


def is_model(path: str) -> bool:
    """Returns whether a path is a directory, or a run's RUN/checkpoints/best."""
    return Path(path).is_dir() or (Path(path).name == "best" and Path(path).parent.is_dir())


def is_directory_or_free(field: str, path: str) -> None:
    """Requires a directory, or a name that nothing has yet."""
    require(
        not path or Path(path).is_dir() or not Path(path).exists(),
        field,
        f"is {path}, which is not a directory",
        "choose another name",
    )

"""The problem types and their aliases: one table for rows, prompts, rewards and benchmarks."""

import collections
import difflib
import re
from collections.abc import Iterable, Sequence

from evr1.formats.words import counted

ALIASES: dict[str, tuple[str, ...]] = {
    "multiple choice": ("multiple_choice", "mc", "mcq"),
    "numerical": ("number", "rec"),  # rec, ssr, crr: OVO-Bench in the files of EasyVideoR1
    "regression": (),
    "boolean": ("binary classification", "yes/no", "ssr", "crr"),
    "ocr": (),
    "math": ("mathematics",),
    "temporal grounding": (),
    "spatial grounding": (),
    "spatial-temporal grounding": ("spatio-temporal grounding",),
    "tracking": (),
    "segmentation": (),
    "open-ended": (
        "open_ended",
        "free-form",
        "video qa",
        "video description",
        "captioning",
        "caption",
    ),
    "code": ("coding",),
    "svg-code": (),
    "html-code": (),
    "preference": ("llava", "critic"),
}
TYPES: tuple[str, ...] = tuple(ALIASES)
_LABEL = re.compile(r"^\s*[(\[]?([A-Za-z])[)\].:：、]\s*(.*)$", re.DOTALL)
_CANONICAL = {name: t for t, aliases in ALIASES.items() for name in (t, *aliases)}


def canonical(problem_type: object, own: Iterable[str] = ()) -> str:
    """Returns the problem type that a row's spelling stands for; case and outer spaces are ignored.

    >>> canonical(" Video QA ")
    'open-ended'

    Args:
        problem_type: as the row has it.
        own: further types, as `plain_name` spells them.

    Raises:
        ValueError: no such problem type; the message names the nearest ones.
    """
    if not isinstance(problem_type, str):
        every_type = dict.fromkeys((*TYPES, *own))
        raise ValueError(f"problem_type is {problem_type!r}; give one of {', '.join(every_type)}")
    name = _CANONICAL.get(problem_type)
    if name is not None:  # as it is written nearly always
        return name
    key = plain_name(problem_type)
    if key in _CANONICAL:
        return _CANONICAL[key]
    every_type = dict.fromkeys((*TYPES, *own))
    if key in every_type:
        return key
    spelling = problem_type if len(problem_type) <= 60 else f"{problem_type[:57]}..."
    near = difflib.get_close_matches(key[:60], (*_CANONICAL, *every_type), n=3) or every_type
    near = dict.fromkeys(near)
    raise ValueError(f"unknown problem_type {spelling!r}; did you mean one of {', '.join(near)}?")


def plain_name(problem_type: str) -> str:
    """Returns a problem type's name in lower case, single spaces in it and none around it."""
    return " ".join(problem_type.lower().split())


class Types:
    """The problem types of one run: the built-in ones, its own, and a fallback for unknown ones.

    Attributes:
        own: the run's own types; built-in ones may be among them.
        unknown: what an unknown type is read as; empty: it is refused.
        counts: how often each unknown spelling was met.
        met: the types that `canonical` has returned.
    """

    def __init__(self, own: Iterable[str] = (), unknown: str = "") -> None:
        """Takes the run's own types and its fallback.

        Raises:
            ValueError: the fallback is itself no problem type.
        """
        self.own = tuple(own)
        self.counts: collections.Counter[str] = collections.Counter()
        self.met: set[str] = set()
        try:
            self.unknown = unknown and canonical(unknown, self.own)
        except ValueError as e:
            raise ValueError(f"rewards.unknown_type={unknown!r}: {e}") from None

    def canonical(self, problem_type: object) -> str:
        """Returns the type of a spelling; counts an unknown one and reads it as `unknown`, if set.

        Raises:
            ValueError: no such problem type, and no fallback; or none was given at all.
        """
        try:
            name = canonical(problem_type, self.own)
        except ValueError:
            if not self.unknown or not isinstance(problem_type, str) or not problem_type.strip():
                raise
            self.counts[plain_name(problem_type)] += 1
            name = self.unknown
        self.met.add(name)
        return name

    def lines(self) -> list[str]:
        """Returns what is to be said once all rows are read: `summary`, and own types of no row."""
        unused = [t for t in self.own if t not in TYPES and t not in self.met] if self.met else []
        said = [self.summary()] if self.counts else []
        for name in unused:
            known = dict.fromkeys((*sorted(self.met), *TYPES))
            near = difflib.get_close_matches(name, [t for t in known if t != name], n=3)
            has = ", ".join(sorted(self.met))
            said.append(
                f"warning: rewards.extra scores the problem type {name!r}, which no row has; "
                + (f"did you mean {' or '.join(near)}? " if near else "")
                + f"the rows have {has}"
            )
        return said

    def summary(self) -> str:
        """Returns one line about the unknown types that were met; empty where there were none."""
        if not self.counts:
            return ""
        types = ", ".join(f"{name!r} ({n})" for name, n in self.counts.most_common(5))
        more = f" and {len(self.counts) - 5} more" if len(self.counts) > 5 else ""
        return (
            f"read as {self.unknown}: {counted(self.counts.total(), 'row')} of unknown "
            f"problem_type: {types}{more}"
        )


def label_options(options: Sequence[str]) -> dict[str, str]:
    """Returns letter → text of each option of a multiple choice, at most 26.

    Options that are lettered in order keep their letters; all others are lettered here.

    >>> label_options(("A. Red", "B. Blue")) == label_options(("Red", "Blue"))
    True
    """
    letters = [chr(ord("A") + i) for i in range(min(len(options), 26))]
    labels = [_LABEL.match(o) for o in options[:26]]
    if [m and m[1].upper() for m in labels] == letters:
        return {m[1].upper(): m[2].strip() for m in labels if m}
    return {letter: o.strip() for letter, o in zip(letters, options, strict=False)}


def slug(problem_type: str) -> str:
    """Returns a problem type as part of a metric's name.

    >>> slug("temporal grounding")
    'temporal-grounding'
    """
    return problem_type.replace(" ", "-")

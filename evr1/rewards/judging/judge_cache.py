"""Rulings on disk by content, so that no question is judged twice."""

import dataclasses
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from evr1.rewards.base import Status
from evr1.rewards.judging.judge import Judge
from evr1.rewards.judging.judge_prompt import PROMPT_VERSION, Question, Ruling, make_prompt


@dataclasses.dataclass
class Cached:
    """A judge with a file of its rulings.

    The file holds a JSON line per ruling and only grows. Threads and processes may share it:
    writers lock it, and a line that was cut by a crash is skipped. Failures are not kept.

    Attributes:
        judge: asked where the file has no ruling.
        path: the file; made, with its directory, if missing.
    """

    judge: Judge
    path: Path

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        if self.path.is_dir():
            raise ValueError(f"the judge's cache {self.path} is a directory; name a file")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        self._lock = threading.Lock()
        self._rulings: dict[str, Ruling] = {}
        self._read_bytes = 0

    @property
    def identity(self) -> str:
        """The identity of the judge behind it."""
        return self.judge.identity

    def __call__(self, questions: Sequence[Question]) -> list[Ruling]:
        """Returns the rulings in order; only questions without one are asked, each once."""
        keys = [self.key(q) for q in questions]
        with self._lock:
            self._refresh()
            rulings = {k: self._rulings[k] for k in keys if k in self._rulings}
        missing = {k: q for k, q in zip(keys, questions, strict=True) if k not in rulings}
        if missing:
            fresh = dict(zip(missing, self.judge(list(missing.values())), strict=True))
            self._append({k: r for k, r in fresh.items() if r.status is Status.OK})
            rulings |= fresh
        return [rulings[k] for k in keys]

    def key(self, question: Question) -> str:
        """Returns a hash of the judge's model, the prompt, and its version."""
        content = json.dumps([self.identity, PROMPT_VERSION, make_prompt(question)])
        return hashlib.sha256(content.encode()).hexdigest()

    def _refresh(self) -> None:
        """Reads the whole lines that were added since the last time."""
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.splitlines():
            entry = _read(line)
            if entry is not None:
                self._rulings[entry[0]] = entry[1]

    def _append(self, rulings: dict[str, Ruling]) -> None:
        lines = [
            json.dumps({"key": key, "accuracy": ruling.accuracy, "reason": ruling.reason}) + "\n"
            for key, ruling in rulings.items()
        ]
        if not lines:
            return
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a crash cut the last line: leave it alone there
                    lines.insert(0, "\n")
            file.write("".join(lines).encode())
            file.flush()


def _read(line: bytes) -> tuple[str, Ruling] | None:
    """Returns the key and the ruling of a line; None where it holds none."""
    try:
        entry = json.loads(line)
        key, accuracy, reason = entry["key"], entry["accuracy"], entry["reason"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    is_whole = isinstance(key, str) and isinstance(reason, str) and isinstance(accuracy, float)
    return (key, Ruling(Status.OK, accuracy, reason)) if is_whole and 0 <= accuracy <= 1 else None

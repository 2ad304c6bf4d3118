"""What judges replied about the answers of a run: a JSON line a reply in `judgements.jsonl`.

A line is found by its key, a hash of the judge's name and of the prompt. A verdict is made of the
replies anew whenever a run is scored, so a reader that changes needs no new replies, and a prompt
that changes finds none.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evr1.evals import jsonl
from evr1.evals.tasks import files
from evr1.evals.tasks.base import Doc, Judge, Verdict

NAME = "judgements.jsonl"
_REASONED = "</think>"


class Judgement(NamedTuple):
    """A reply to a prompt about an answer.

    Attributes:
        key: of judge and prompt.
        judge: name of the judge.
        model: what the judge is: another model may not go by its name.
        task: of the answer that was the first to ask.
        id: of its sample.
        profile: of the scoring.
        response: place of the response among those to the sample.
        reply: as it came.
        extracted: what was read in the response, where this reply settles it.
        score: of the response, where this reply settles it.
        problem: why the reply cannot be read; such a one is asked for again.
    """

    key: str
    judge: str
    model: str
    task: str
    id: str
    profile: str
    response: int
    reply: str
    extracted: Any = None
    score: float | None = None
    problem: str = ""


class Said(NamedTuple):
    """The replies of a judge.

    Attributes:
        model: what the judge is.
        replies: key -> reply.
    """

    model: str
    replies: dict[str, str]


def key(judge: str, prompt: str) -> str:
    """Returns the key of a judge's reply to a prompt."""
    return hashlib.sha256(json.dumps([judge, prompt]).encode()).hexdigest()


def read(folder: Path) -> dict[str, Said]:
    """Returns the replies of each judge to the answers of a run, by its name.

    The last reply to a prompt counts. A torn last line is left out.

    Raises:
        ValueError: a line is no judgement, or two models go by one name.
    """
    path = folder / NAME
    judges: dict[str, Said] = {}
    if not path.exists():
        return judges
    for where, line in jsonl.read(path).listed:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: {error}; delete the line") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: got {str(row)[:40]!r}; a judgement is a JSON object")
        name, model, at, reply = (
            files.field(row, field, where) for field in ("judge", "model", "key", "reply")
        )
        said = judges.setdefault(name, Said(model, {}))
        if said.model != model:
            raise ValueError(
                f"{where}: {name} is {model}, and {said.model} above; keep one of them"
            )
        said.replies[at] = reply
    return judges


class Writer(jsonl.Appender):
    """Appends judgements to a file, each of them at once; one writer a file."""

    def append(self, judgement: Judgement) -> None:
        """Writes a judgement; it is on its way to the disk when this returns."""
        self.add(json.dumps(judgement._asdict(), default=str))


class Open(NamedTuple):
    """A prompt without a reply that can be read.

    Attributes:
        prompt: to ask.
        problem: why the last reply to it cannot be read; "": there is none.
    """

    prompt: str
    problem: str = ""


def settle(
    judge: Judge, doc: Doc, response: str, name: str, replies: Mapping[str, str]
) -> Verdict | Open:
    """Returns the Verdict of a judge on a response, or the Open prompt that it waits for.

    A judge's own reasoning is no part of its reply.

    Args:
        judge: of a task.
        doc: the row.
        response: to judge.
        name: of the judge.
        replies: of the judge, by key.

    Raises:
        ValueError: the row cannot be judged.
    """
    steps = judge(doc, response)
    try:
        prompt = next(steps)
    except StopIteration as stop:
        return stop.value
    while True:
        reply = replies.get(key(name, prompt))
        if reply is None:
            return Open(prompt)
        _, end, after = reply.rpartition(_REASONED)
        try:
            prompt = steps.send(after.lstrip() if end else reply)
        except StopIteration as stop:
            return stop.value
        except ValueError as error:
            return Open(prompt, str(error))

"""The page of a data set: what `evr1.data.survey` found, and frames of some rows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evr1.data.survey import Answers, Spread
from evr1.report import html


class Sample(NamedTuple):
    """A row to look at.

    Attributes:
        source: "file:line".
        problem_type: of the row.
        problem: as the row asks it.
        answer: of the row, as text.
        tokens: of the prompt; 0: not known.
        frames: (JPEG data URI, second; None for an image).
        media: names of what they are of, as the row writes them.
        options: of a multiple choice, (letter, text) as the prompt has them.
    """

    source: str
    problem_type: str
    problem: str
    answer: str
    tokens: int
    frames: Sequence[tuple[str, float | None]]
    media: Sequence[str] = ()
    options: Sequence[tuple[str, str]] = ()


def render(
    name: str,
    *,
    facts: Sequence[str],
    faults: Sequence[str],
    types: Mapping[str, Mapping[str, int]],
    answers: Sequence[Answers],
    spreads: Mapping[str, Spread],
    samples: Sequence[Sample],
) -> str:
    """Returns the page, which is whole by itself.

    Args:
        name: of the data set.
        facts: about it, in the head.
        faults: lines about what to look at.
        types: rows by problem type and file.
        answers: by problem type.
        spreads: of quantities, by what they are.
        samples: rows to show.
    """
    files = list(dict.fromkeys(file for counts in types.values() for file in counts))
    data: dict[str, Any] = {"types": types, "spreads": {k: list(v) for k, v in spreads.items()}}
    return html.render(
        "data/survey.html.jinja",
        ["report/report.css", "data/survey.css"],
        [],
        name=name,
        facts=facts,
        faults=faults,
        files=files,
        types=types,
        answers=answers,
        spreads=spreads,
        samples=samples,
        data=html.embed_json(data),
    )

"""Official files in miniature, and what a miniature promises of itself."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from . import scenes

_OF_A_LETTER = ("{}", "{}.", "({})", "**{}**", "The answer is {}.", "<answer>{}</answer>")
_OF_A_LETTER += ("\\boxed{{{}}}",)
_OF_A_NUMBER = ("{}", "{}.", "**{}**", "The answer is {}.", "<answer>{}</answer>")


class Gold(NamedTuple):
    """What answers a sample.

    Attributes:
        forms: responses that are right, the plainest first.
        damaged: a response that is nearly right.
    """

    forms: tuple[str, ...]
    damaged: str


class Mini(NamedTuple):
    """What a folder holds of a benchmark.

    Attributes:
        n: samples.
        counts: tag -> label -> samples, for all tags.
        golds: id -> what answers the sample; those that only a judge can score are absent.
    """

    n: int
    counts: Mapping[str, Mapping[str, int]]
    golds: Mapping[str, Gold]


def of_letter(letter: str, text: str = "") -> Gold:
    """Returns the forms of an option; the next letter, or the one before, is its damage."""
    forms = tuple(form.format(letter) for form in _OF_A_LETTER)
    forms += (f"{letter}. {text}",) if text else ()
    return Gold(forms, "A" if letter != "A" else "B")


def of_question(question: scenes.Question) -> Gold:
    """Returns the forms of the right option of a question."""
    return of_letter(question.letter, question.answer)


def of_word(word: str, damaged: str) -> Gold:
    """Returns the forms of a number or a word."""
    return Gold(tuple(form.format(word) for form in _OF_A_NUMBER), damaged)


def of_span(start_s: float, end_s: float) -> Gold:
    """Returns the forms of a span in seconds; a third of it is its damage."""
    third = round(start_s + (end_s - start_s) / 3, 2)
    return Gold(
        (
            f"{start_s} - {end_s}",
            f"[{start_s}, {end_s}]",
            f"The event happens in the {start_s} - {end_s} seconds.",
            f'<answer>{{"time": [{start_s}, {end_s}]}}</answer>',
            f"The event starts at {start_s} seconds and ends at {end_s} seconds.",
            f"between {start_s} and {end_s} seconds",
        ),
        f"{start_s} - {third}",
    )


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as Parquet, JSON lines or a JSON list, as the ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict(row) for row in rows]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        path.write_text(json.dumps(rows), "utf-8")


def change_row(path: Path, place: int = 0, **fields: Any) -> None:
    """Changes some fields of a row of a file that `write_rows` wrote."""
    if path.suffix == ".parquet":
        rows = pyarrow.parquet.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    else:
        rows = json.loads(path.read_text("utf-8"))
    rows[place] |= fields
    write_rows(path, rows)


def write_text(path: Path, text: str) -> None:
    """Writes a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def write_srt(path: Path, lines: Sequence[tuple[float, float, str]]) -> None:
    """Writes subtitles of (start, end, line) in seconds as SubRip."""
    blocks = [
        f"{number}\n{_clock(start)} --> {_clock(end)}\n{text}\n"
        for number, (start, end, text) in enumerate(lines, 1)
    ]
    write_text(path, "\n".join(blocks))


def _clock(second: float) -> str:
    return f"00:00:{int(second):02},{round(second % 1 * 1000):03}"

"""Rows of our own data files as a benchmark: the format of training, its prompts, its rewards.

For a task of one's own, see docs/own_benchmark.md.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from evr1 import rewards
from evr1.data import dialects, prompts, readers, rows
from evr1.data.media.cache import MediaCache
from evr1.data.records import Row
from evr1.evals.tasks import files, ours
from evr1.evals.tasks.base import Doc, Media, Part, Sample, Show, Verdict

_REQUIRED = (*rows.REQUIRED, "problem_id")  # a place in a file is no id: it changes
_BOX_SCALE = "pixels"  # what prompts ask for and responses are read as


def loader(*names: str, tags: tuple[str, ...] = ()) -> Callable[[Path], Iterator[Sample]]:
    """Returns a `load` for files of rows.

    Args:
        *names: of Parquet, JSON or JSONL files in the folder; see `files.rows`.
        tags: fields that sub-scores are made by: a text, a number or a list of texts in each row.
    """

    def load(folder: Path) -> Iterator[Sample]:
        """Yields the rows; media are relative to the folder, or cached where they are bytes."""
        cache = MediaCache()
        for where, stored in files.rows(folder, *names):
            try:
                fields = {name: readers.plain(value, cache) for name, value in stored.items()}
                doc = _in_our_words(fields)
                row = _parse(doc, where)
                if row.answer != doc["answer"]:  # less the nulls that Arrow fills in
                    doc = {**doc, "answer": row.answer}
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            labels = {tag: _label(files.field(fields, tag, where)) for tag in tags}
            yield Sample(row.problem_id, doc, _media(row), labels)

    return load


def _media(row: Row) -> tuple[Media, ...]:
    bounds = {"video": (row.video_start, row.video_end), "image": (None, None)}
    return tuple(Media(str(path), kind, *bounds[kind]) for kind, path in rows.media_refs(row))


def _in_our_words(fields: Doc) -> Doc:
    """Returns a row that another tool wrote in the words that prompts and rewards read."""
    if all(fields.get(name) is not None for name in _REQUIRED):
        return fields
    row = dialects.adapt(fields, {})
    if row.get("options"):
        row.setdefault("problem_type", "multiple choice")
    return row


def _parse(fields: Doc, where: str) -> Row:
    for name in _REQUIRED:
        if fields.get(name) is None:
            raise ValueError(f"{name}: got nothing; every row needs {', '.join(_REQUIRED)}")
    row = rows.parse_row(fields, 0, where)
    if row.turns or not all(isinstance(m, str) for m in (*row.images, *row.videos)):
        raise ValueError(
            "a benchmark's row has one turn, and media that are paths without fps, pixels or frames"
        )
    if row.system is not None:
        raise ValueError("system: a benchmark's prompt has no system turn; put it into problem")
    if any(map(prompts.MARKER.search, row.options)):
        raise ValueError("options: one holds <video> or <image>; put these into problem")
    rewards.check_row(row, box_scale=_BOX_SCALE)
    return row


def _label(value: object) -> str | tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else str(value)


def ask(sample: Sample, thinking: bool = False) -> tuple[Part, ...]:
    """Returns the prompt that training gives a row by its problem type."""
    row = rows.parse_row(sample.doc, 0, sample.id)
    template = _template()
    text = prompts.render_task(row, template, thinking=thinking, box_scale=_BOX_SCALE)
    parts: list[Part] = []
    for place, part in enumerate(prompts.MARKER.split(text)):
        if place % 2:
            parts.append(Show(place // 2))
        elif part:
            parts.append(part)
    return tuple(parts)


def ask_to_think(sample: Sample) -> tuple[Part, ...]:
    """Returns the same prompt with the wish for reasons before the answer."""
    return ask(sample, thinking=True)


@functools.cache
def _template() -> str:
    return prompts.built_in_template()


def by_reward(doc: Doc, response: str) -> Verdict:
    """Scores by the reward of the row's problem type."""
    return ours.of_row(response, doc, _BOX_SCALE)

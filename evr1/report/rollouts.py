"""The rollouts of a run as the page shows them: completions of one prompt at one step together."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.report import places
from evr1.report.files import read_lines
from evr1.report.frames import Pictures
from evr1.report.spread import spread

_TEXT_LIMIT = 20_000  # characters of a prompt or a completion


@dataclasses.dataclass
class _Group:
    """Lines of rollouts.jsonl that stand together and answer one prompt at one step."""

    key: tuple[int, str, str]
    start: int  # bytes
    end: int
    page_bytes: int  # about what it takes up in the page


def read_groups(path: Path, max_bytes: int) -> tuple[list[list[dict[str, Any]]], int]:
    """Reads the groups that fit, spread evenly over the file.

    Args:
        path: rollouts.jsonl; it may be missing.
        max_bytes: that the groups may take up in the page, about.

    Returns:
        The records of each group in order, and how many groups the file holds.

    Raises:
        ValueError: an unreadable line.
    """
    if not path.exists():
        return [], 0
    groups = _find_groups(path)
    chosen = []
    for i in spread(len(groups)):
        max_bytes -= groups[i].page_bytes
        if max_bytes < 0:
            break
        chosen.append(i)
    out = []
    with path.open("rb") as file:
        for i in sorted(chosen):
            file.seek(groups[i].start)
            block = file.read(groups[i].end - groups[i].start)
            out.append([json.loads(line) for line in block.splitlines()])
    return out, len(groups)


def _find_groups(path: Path) -> list[_Group]:
    """Returns where each group of the file stands, in order."""
    groups: list[_Group] = []
    for start, end, r in read_lines(path):
        key = (r["step"], r["split"], r["problem_id"])
        if not groups or groups[-1].key != key:
            groups.append(_Group(key, start, start, len(r["prompt"]) + 200))
        groups[-1].end = end
        groups[-1].page_bytes += min(len(r["completion"]), _TEXT_LIMIT) + 150
    return groups


def show_group(records: Sequence[Mapping[str, Any]], prompts: list[str]) -> dict[str, Any]:
    """Returns a group as the page's script reads it.

    Args:
        records: of one prompt at one step.
        prompts: the texts that groups refer to; this group's is added unless it stands near the
            end.
    """
    first = records[0]
    prompt = _cut(first["prompt"])
    if prompt not in prompts[-512:]:
        prompts.append(prompt)
    answer = first["answer"]
    return {
        "step": first["step"],
        "split": first["split"],
        "id": first["problem_id"],
        "type": first["problem_type"],
        "prompt": len(prompts) - 1 - prompts[::-1].index(prompt),
        "answer": answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False),
        "media": [os.path.basename(path) for path in first["media"]],
        "shows": _shows(first["prompt"]),
        "completions": [
            [
                _cut(r["completion"]),
                {k: _rounded(v) for k, v in r["score"].items()},
                r["status"],
                r["extracted"],
                _rounded(r["advantage"]),
                r["length"],
                r["finished"],
                r["weight_version"],
                r.get("origin", "policy"),
            ]
            for r in records
        ],
    }


def add_places(
    group: dict[str, Any],
    records: Sequence[Mapping[str, Any]],
    asked: str,
    pictures: Mapping[str, Pictures],
) -> None:
    """Adds what can be drawn: the truth's places, and as the last of its values each completion's.

    Args:
        group: of `show_group`.
        records: that it is of.
        asked: what boxes count in prompts.
        pictures: of rows, by "split/problem_id".
    """
    seen = pictures.get(f"{group['split']}/{group['id']}")
    group["truth"] = places.truth(group["type"], records[0]["answer"], asked, seen)
    for values, record in zip(group["completions"], records, strict=True):
        values.append(places.answer(group["type"], record["extracted"], asked, seen))


def _shows(prompt: str) -> str:
    """video, image, both or text, by the markers of a prompt."""
    kinds = [kind for kind in ("video", "image") if f"<{kind}>" in prompt]
    return "both" if len(kinds) == 2 else kinds[0] if kinds else "text"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + " […]"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

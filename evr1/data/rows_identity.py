"""What tells a set of rows from another: a place in the data is of one set alone."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from evr1.data.media.cache import place_free
from evr1.data.records import Medium, Row

FIELDS = "fields"
_WORDS = {"seed": "seed", "curriculum": "data.curriculum", "sources": "data.sources (rows, share)"}


def identity_of(rows: Sequence[Row], is_by_pass_rate: bool = False) -> dict[str, Any]:
    """Returns how many rows there are, and a hash of each of their fields.

    Args:
        rows: of a file, or of several.
        is_by_pass_rate: their pass rates count too.
    """
    fields = dict[str, Any]()
    for row in rows:
        values = {
            "problem_id": row.problem_id,
            "problem": row.problem,
            "problem_type": row.problem_type,
            "images": [_named(m) for m in row.images],
            "videos": [_named(m) for m in row.videos],
            "answer": row.answer,
            "options": row.options,
            "video_start": row.video_start,
            "video_end": row.video_end,
        }
        if row.turns:
            values["turns"] = [turn.content for turn in row.turns]
        if is_by_pass_rate:
            values["pass_rate"] = row.extra.get("pass_rate")
        for name, value in values.items():
            text = json.dumps(value, default=str)
            fields.setdefault(name, hashlib.blake2b(digest_size=8)).update(f"{text}\n".encode())
    hashes = {name: each.hexdigest() for name, each in fields.items()}
    return {"rows": len(rows), FIELDS: hashes}


def by_field(rows: Sequence[Row], is_by_pass_rate: bool = False) -> dict[str, Any]:
    """Returns what hosts compare of their rows: how many, and by field a hash."""
    identity = identity_of(rows, is_by_pass_rate)
    return {"number": identity["rows"], "they": identity[FIELDS]}


def unlike(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns in words what makes two identities differ; "": nothing does.

    >>> one = {"rows": 2, "fields": {"problem": "1", "answer": "2"}, "seed": 0}
    >>> unlike(one, one | {"fields": {"problem": "1", "answer": "3"}, "seed": 4})
    'rows hold another answer; seed was 0, now it is 4'

    Args:
        saved: of `identity_of`, with what decides the order.
        now: the same of this run.
    """
    said = list[str]()
    if saved["rows"] != now["rows"]:
        said.append(f"{saved['rows']:,} rows then, {now['rows']:,} now")
    elif saved[FIELDS] != now[FIELDS]:
        old, new = saved[FIELDS], now[FIELDS]
        names = [name for name in old | new if old.get(name) != new.get(name)]
        said.append(f"rows hold another {' and '.join(names)}")
    for name, word in _WORDS.items():
        one, other = saved.get(name), now.get(name)
        if one != other:
            said.append(f"{word} was {_spelled(name, one)}, now it is {_spelled(name, other)}")
    return "; ".join(said)


def _spelled(name: str, value: Any) -> str:
    if name == "seed" and value is None:
        return "of no account (data.shuffle was off)"
    return "not set" if value is None else repr(value)


def _named(medium: Medium) -> str:
    """Returns what tells a medium from others, wherever the cache of media lies."""
    if isinstance(medium, str):
        return place_free(medium)
    frames = tuple(map(place_free, medium.frames))
    path = place_free(medium.path)
    return repr(dataclasses.replace(medium, path=path, frames=frames))

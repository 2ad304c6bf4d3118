"""Groups of all hosts on every host: what they drew and earned, less the pixels of the others."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from evr1.data.records import Example
from evr1.exchange.group import Group, score_from_json, score_to_json, versions_from_json
from evr1.parallel import hosts
from evr1.types import Rollouts, Visual

_EXAMPLE = ("tokens", "is_visual", "positions", "grid_thw", "is_image")


def own(examples: Sequence[Example]) -> list[int]:
    """Returns the places of the examples whose pixels this host has."""
    return [i for i, example in enumerate(examples) if example.host == hosts.index()]


def share(examples: Sequence[Example], groups: Sequence[Group]) -> list[Group]:
    """Returns a group for each example; all hosts call it together.

    Args:
        examples: of all hosts, in the order that all have.
        groups: of this host's examples, in that order.

    Raises:
        hosts.Leave: the run was asked to end.
    """
    if hosts.count() == 1:
        hosts.sync_point()
        return list(groups)
    arrays, records = {}, []
    for i, group in enumerate(groups):
        e = group.example
        arrays |= {f"{i}/{name}": getattr(e, name) for name in _EXAMPLE}
        arrays |= {f"{i}/{name}": x for name, x in group.rollouts._asdict().items()}
        records.append(
            {
                "next_position": e.next_position,
                "patches": e.patches.shape,
                "visual": e.visual and [[x.shape, str(x.dtype)] for x in e.visual],
                "texts": group.texts,
                "scores": [score_to_json(s) for s in group.scores],
                "origins": group.origins,
                "version": group.version,
                "greedy": None if group.greedy is None else score_to_json(group.greedy),
                "request": group.request,
                "earlier": group.earlier,
            }
        )
    arrays["records"] = np.frombuffer(json.dumps(records).encode(), np.uint8)
    told = hosts.gather_arrays(arrays)
    texts = [json.loads(one["records"].tobytes()) for one in told]
    places = [0] * len(told)
    result = []
    for example in examples:
        host, i = example.host, places[example.host]
        places[host] += 1
        if host == hosts.index():
            result.append(groups[i])
        else:
            result.append(_rebuilt(example, told[host], texts[host][i], f"{i}/"))
    return result


def _rebuilt(
    example: Example, arrays: dict[str, np.ndarray], record: dict[str, Any], prefix: str
) -> Group:
    visual = record["visual"] and Visual(*(_zeros(*x) for x in record["visual"]))
    known: dict[str, Any] = {name: arrays[prefix + name] for name in _EXAMPLE}
    greedy = record["greedy"]
    return Group(
        dataclasses.replace(
            example,
            **known,
            next_position=record["next_position"],
            patches=_zeros(record["patches"], "uint8"),
            visual=visual,
        ),
        Rollouts(*(arrays[prefix + name] for name in Rollouts._fields)),
        tuple(record["texts"]),
        tuple(score_from_json(s) for s in record["scores"]),
        tuple(record["origins"]),
        record["version"],
        None if greedy is None else score_from_json(greedy),
        record["request"],
        versions_from_json(record["earlier"]),
    )


def _zeros(shape: Sequence[int], dtype: str) -> np.ndarray:
    """Returns an array of this shape that takes no memory."""
    return np.broadcast_to(np.zeros((), jnp.dtype(dtype)), shape)

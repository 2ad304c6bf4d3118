"""Completions that the policy did not just draw: trajectories of the data, and its own best ones.

Both take the last slots of a group. `mix.treatment` says what the loss makes of them.
"""

import collections
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1.data.processor import Processor
from evr1.data.records import Row
from evr1.groups import OFFLINE, POLICY, REPLAY, Group, pack, unpack
from evr1.rewards import Score
from evr1.types import Rollouts


class Trajectory(NamedTuple):
    """A completion to put into a group.

    Attributes:
        tokens: int32[L], the end token included where there is one.
        logprobs: float32[L], of whoever wrote it; 0 where that is not known.
        is_finished: false where the completion limit cut it.
        origin: offline or replay.
    """

    tokens: np.ndarray
    logprobs: np.ndarray
    is_finished: bool
    origin: str


def texts(row: Row) -> list[str]:
    """The row's offline trajectories: none, one or several.

    Raises:
        ValueError: `offline_output` is no text or list of texts, or one of them is blank.
    """
    output, flag = row.extra.get("offline_output"), row.extra.get("has_offline_trajectory")
    if flag is False or (not flag and (output is None or output == "" or output == [])):
        return []
    several = [output] if isinstance(output, str) else output
    if isinstance(several, list) and several:
        found = [text for text in several if isinstance(text, str) and text.strip()]
        if len(found) == len(several):
            return found
    shown = repr(output)
    raise ValueError(
        f"{row.source}: offline_output: got {shown if len(shown) < 60 else shown[:57] + '...'}; "
        "give a text or a list of texts, none of them blank, or has_offline_trajectory false"
    )


def trajectory(text: str, processor: Processor, limit: int) -> Trajectory:
    """A text as the policy would have written it: ended by the end token of the chat.

    Args:
        text: the answer alone; an end token at its end is not doubled, what follows one is cut.
        processor: of the model.
        limit: completion tokens, the end token included; a longer one is cut, and has no end.
    """
    ids = processor.tokenize(text)
    end = next((i for i, token in enumerate(ids) if token in processor.end_ids), len(ids))
    ids = [*ids[:end], processor.end_id]
    tokens = np.array(ids[:limit], np.int32)
    return Trajectory(tokens, np.zeros(len(tokens), np.float32), len(ids) <= limit, OFFLINE)


def check(rows: Iterable[Row], processor: Processor, limit: int, overlong: str) -> int:
    """How many rows have trajectories.

    Raises:
        ValueError: a trajectory is no text, blank, holds the placeholder of a medium or a token
            that the model does not know, or is longer than the limit while `overlong` is "refuse".
    """
    found = 0
    placeholders = processor.vision[:2]
    has_unknown_ids = processor.has_unknown_ids
    for row in rows:
        mine = texts(row)
        found += bool(mine)
        for text in mine:
            held = next((p for p in placeholders if p in text), None)
            if held is not None:
                raise ValueError(
                    f"{row.source}: offline_output: holds {held}, which stands for pixels; "
                    "take it out"
                )
            # No token is shorter than a byte: most texts need no tokenizer to be told short.
            may_be_long = overlong == "refuse" and len(text.encode()) >= limit
            if not may_be_long and not has_unknown_ids:
                continue
            ids = processor.tokenize(text)
            processor.check_ids(row, ids)
            tokens = len(ids) + 1
            if overlong == "refuse" and tokens > limit:
                raise ValueError(
                    f"{row.source}: offline_output: {tokens} tokens with the end token, over "
                    f"rollout.max_completion_tokens={limit}; raise that, or set "
                    "mix.overlong=truncate"
                )
    return found


def choose(every: Sequence[Trajectory], count: int, turn: int) -> list[Trajectory]:
    """`count` of them, or all there are; another turn starts at another one."""
    start = turn % max(len(every), 1)
    return [*every[start:], *every[:start]][:count]


def is_triggered(group: Group, threshold: float | None) -> bool:
    """Whether the group's own completions leave its last slots to others.

    Args:
        group: drawn by the policy.
        threshold: of its mean accuracy, which must be below; None: always.
    """
    return threshold is None or group.mean_accuracy() < threshold


def replace(group: Group, chosen: Sequence[Trajectory], scores: Sequence[Score]) -> Group:
    """The group with its last completions replaced by the trajectories.

    Args:
        group: of at least as many completions.
        chosen: none longer than the completion limit.
        scores: theirs.
    """
    parts = Rollouts(*(part.copy() for part in group.rollouts))
    first = len(parts.lengths) - len(chosen)
    for n, t in enumerate(chosen, start=first):
        size = len(t.tokens)
        parts.completions[n, :size] = t.tokens
        parts.completions[n, size:] = 0  # off the mask
        parts.logprobs[n] = 0
        parts.logprobs[n, :size] = t.logprobs
        parts.lengths[n] = size
        parts.finished[n] = t.is_finished
    return group._replace(
        rollouts=parts,
        scores=(*group.scores[:first], *scores),
        origins=(*group.origins[:first], *(t.origin for t in chosen)),
    )


class Replay:
    """The policy's own best completions of each prompt, for when it comes again.

    Source: RLEP, 2507.07451; the choice by log-probability is that of ExGRPO, 2510.02245.
    """

    def __init__(self, *, size: int, per_prompt: int, min_accuracy: float) -> None:
        """Empty.

        Args:
            size: prompts that are kept; the one not seen for longest goes first.
            per_prompt: completions of each.
            min_accuracy: what a completion must reach to be kept.
        """
        self._size, self._per_prompt, self._min_accuracy = size, per_prompt, min_accuracy
        self._kept: collections.OrderedDict[str, list[tuple[float, float, Trajectory]]]
        self._kept = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def longest(self) -> int:
        """Tokens of the longest one; 0 where there is none."""
        every = (len(t.tokens) for kept in self._kept.values() for _, _, t in kept)
        return max(every, default=0)

    def get(self, row: Row) -> list[Trajectory]:
        """Those of a row, the best first."""
        return [t for _, _, t in self._kept.get(row.source, [])]

    def add(self, group: Group) -> None:
        """Keeps the best of what the policy drew: by reward, then by mean log-probability.

        Completions that the length limit cut are not kept.
        """
        key, r = group.example.row.source, group.rollouts
        found = list(self._kept.get(key, []))
        good = group.valid & r.finished & (group.accuracy >= self._min_accuracy)
        for n in np.flatnonzero(good & ~group.is_offline).tolist():
            size = int(r.lengths[n])
            tokens, logprobs = r.completions[n, :size].copy(), r.logprobs[n, :size].copy()
            if any(np.array_equal(tokens, t.tokens) for _, _, t in found):
                continue
            t = Trajectory(tokens, logprobs, True, REPLAY)
            found.append((group.scores[n].overall, float(logprobs.mean()), t))
        if found:
            found.sort(key=lambda entry: entry[:2], reverse=True)
            self._kept[key] = found[: self._per_prompt]
            self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        entries = [(key, *entry) for key, kept in self._kept.items() for entry in kept]
        if not entries:
            return {}
        keys, rewards, means, kept = zip(*entries, strict=True)
        return {
            "keys": list(keys),
            "rewards": list(rewards),
            "means": list(means),
            "arrays": pack(
                {
                    "lengths": np.array([len(t.tokens) for t in kept]),
                    "tokens": np.concatenate([t.tokens for t in kept]),
                    "logprobs": np.concatenate([t.logprobs for t in kept]),
                }
            ),
        }

    def set_state(self, saved: dict[str, Any]) -> None:
        """Goes back to what `to_json` gave."""
        self._kept.clear()
        if not saved:
            return
        arrays = unpack(saved["arrays"])
        ends = arrays["lengths"].cumsum()
        for i, key in enumerate(saved["keys"]):
            at = slice(ends[i] - arrays["lengths"][i], ends[i])
            t = Trajectory(arrays["tokens"][at], arrays["logprobs"][at], True, REPLAY)
            self._kept.setdefault(key, []).append((saved["rewards"][i], saved["means"][i], t))


def metrics(groups: Sequence[Group], candidates: float, triggered: float) -> dict[str, float]:
    """What mixing did to some groups.

    Args:
        groups: after it.
        candidates: groups with a trajectory to put in.
        triggered: candidates whose own completions left room.
    """
    origins = np.array([g.origins for g in groups])
    valid = np.array([g.valid for g in groups])
    rewards = np.array([g.rewards for g in groups])
    cut = ~np.array([g.rollouts.finished for g in groups])
    result = {
        "mix/candidates": candidates,
        "mix/triggered": triggered,
        "mix/replaced": float((origins == OFFLINE).sum()),
        "mix/replayed": float((origins == REPLAY).sum()),
        "mix/failed": float(((origins != POLICY) & ~valid).sum()),
        "mix/truncated": float((cut & (origins != POLICY)).sum()),
    }
    for name, mine in (("online", origins == POLICY), ("offline", origins != POLICY)):
        if (mine & valid).any():
            result[f"mix/reward_{name}"] = float(rewards[mine & valid].mean())
    return result

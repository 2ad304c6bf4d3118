"""The policy's own best completions of each prompt, for when it comes again."""

import collections
from typing import Any

import numpy as np

from evr1.data.records import Row
from evr1.exchange import Group
from evr1.exchange.group import REPLAY, pack, unpack
from evr1.rollout.trajectory import Trajectory


class Replay:
    """The policy's own best completions of each prompt, for when it comes again.

    Source: RLEP, 2507.07451; the choice by log-probability is that of ExGRPO, 2510.02245.
    """

    def __init__(self, *, size: int, per_prompt: int, min_accuracy: float) -> None:
        """Keeps nothing yet.

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
        """Returns the tokens of the longest one; 0 where there is none."""
        lengths = (len(t.tokens) for kept in self._kept.values() for _, _, t in kept)
        return max(lengths, default=0)

    def get(self, row: Row) -> list[Trajectory]:
        """Returns those of a row, the best first."""
        return [t for _, _, t in self._kept.get(row.source, [])]

    def add(self, group: Group) -> None:
        """Keeps the best of what the policy drew: by reward, then by mean log-probability.

        Completions that the length limit cut are not kept.
        """
        key, r = group.example.row.source, group.rollouts
        entries = list(self._kept.get(key, []))
        good = group.valid & r.finished & (group.accuracy >= self._min_accuracy)
        for n in np.flatnonzero(good & ~group.is_offline).tolist():
            size = int(r.lengths[n])
            tokens, logprobs = r.completions[n, :size].copy(), r.logprobs[n, :size].copy()
            if any(np.array_equal(tokens, t.tokens) for _, _, t in entries):
                continue
            t = Trajectory(tokens, logprobs, True, REPLAY)
            entries.append((group.scores[n].overall, float(logprobs.mean()), t))
        if entries:
            entries.sort(key=lambda entry: entry[:2], reverse=True)
            self._kept[key] = entries[: self._per_prompt]
            self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def to_json(self) -> dict[str, Any]:
        """Returns the buffer as JSON can hold it."""
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

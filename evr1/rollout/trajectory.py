"""Trajectories: completions to put into a group that the policy did not just draw."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from evr1.data.processor import Processor
from evr1.data.records import Row
from evr1.data.rows import offline_texts
from evr1.exchange.group import OFFLINE
from evr1.formats import think_block


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
    """Returns the texts of a row's offline trajectories: none, one or several.

    Raises:
        ValueError: it has something else there; names the row.
    """
    try:
        return offline_texts(row.extra)
    except ValueError as error:
        raise ValueError(f"{row.source}: {error}") from None


def from_text(text: str, processor: Processor, limit: int) -> Trajectory:
    """Returns a text as the policy would have written it: ended by the end token of the chat.

    Args:
        text: the answer alone; an end token at its end is not doubled, what follows one is cut,
            nor is an opening think tag at its start where the prompt has opened the block.
        processor: of the model.
        limit: completion tokens, the end token included; a longer one is cut, and has no end.
    """
    ids = processor.completion_ids(text)
    end = next((i for i, token in enumerate(ids) if token in processor.end_ids), len(ids))
    ids = [*ids[:end], processor.end_id]
    tokens = np.array(ids[:limit], np.int32)
    return Trajectory(tokens, np.zeros(len(tokens), np.float32), len(ids) <= limit, OFFLINE)


def check(rows: Iterable[Row], processor: Processor, limit: int, overlong: str) -> int:
    """Returns how many rows have trajectories.

    Raises:
        ValueError: a trajectory is no text, blank, holds the placeholder of a medium or a token
            that the model does not know, never leaves the think block that the prompt has opened,
            or is longer than the limit while `overlong` is "refuse".
    """
    count = 0
    placeholders = processor.vision[:2]
    has_unknown_ids = processor.has_unknown_ids
    for row in rows:
        row_texts = texts(row)
        count += bool(row_texts)
        for text in row_texts:
            held = next((p for p in placeholders if p in text), None)
            if held is not None:
                raise ValueError(
                    f"{row.source}: offline_output: holds {held}, which stands for pixels; "
                    "take it out"
                )
            if processor.think_open and not think_block.closes(text):
                raise ValueError(
                    f"{row.source}: offline_output: has no </think>, but the prompt of this model "
                    "opens a think block, in which it would all be reasoning; add </think> before "
                    "the answer, or set data.thinking=False if the model can do without reasoning"
                )
            # No token is shorter than a byte: most texts are known to be short without tokenizing.
            may_be_long = overlong == "refuse" and len(text.encode()) >= limit
            if not may_be_long and not has_unknown_ids:
                continue
            ids = processor.completion_ids(text)
            processor.check_ids(row, ids)
            tokens = len(ids) + 1
            if overlong == "refuse" and tokens > limit:
                raise ValueError(
                    f"{row.source}: offline_output: {tokens} tokens with the end token, over "
                    f"rollout.max_completion_tokens={limit}; raise that, or set "
                    "mix.overlong=truncate"
                )
    return count

"""A row's ground truth written as a response, in the form that the prompt asks for."""

import json
import re

from evr1.rewards.base import RowLike

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)


def gold_answer(row: RowLike, *, thinking: bool = False) -> str:
    """The response that must earn a reward of 1.

    Args:
        row: with its ground truth, which may stand in answer tags already.
        thinking: the prompt asks for reasoning first.
    """
    answer = row.answer
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    tagged = _TAGGED.findall(text)
    inner = tagged[-1] if tagged else text
    return f"{'<think>As asked.</think>' if thinking else ''}<answer>{inner}</answer>"

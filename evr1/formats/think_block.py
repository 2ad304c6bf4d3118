"""Think blocks: the tags round a model's reasoning, and whether a text ends inside of them."""

import re

TAG = re.compile(r"<\s{0,4}(/?)\s{0,4}think(?:ing)?\s{0,4}>", re.IGNORECASE)
OPENING, CLOSING = "<think>", "</think>"


def is_left_open(text: str) -> bool:
    """Returns whether a text ends inside a think block: its last think tag is an opening one.

    >>> is_left_open("<|im_start|>assistant\\n<think>\\n")
    True
    >>> is_left_open("<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n")
    False
    """
    return TAG.findall(text)[-1:] == [""]


def closes(text: str) -> bool:
    """Returns whether a text has a closing think tag."""
    return "/" in TAG.findall(text)


def without_opening(text: str, space: str) -> str:
    r"""Returns a text without the opening think tag that it begins with, if it does.

    Args:
        text: a completion, written for a prompt that does not open the block.
        space: what the prompt writes behind its own tag; it goes with the tag.

    >>> without_opening("<think>\nA dog.</think>", "\n")
    'A dog.</think>'
    """
    start = text.lstrip()
    tag = TAG.match(start)
    return text if tag is None or tag[1] else start[tag.end() :].removeprefix(space)

"""Texts between tags, as a lazy regular expression finds them, in linear time."""


def between(text: str, start: str, end: str, limit: int | None = None) -> list[str]:
    """Returns the texts between a start and the next end, from left to right, stripped.

    >>> between("<a>x</a> <a><a>y</a>", "<a>", "</a>")
    ['x', '<a>y']

    Args:
        text: to search.
        start: opening tag.
        end: closing tag.
        limit: how many are wanted; None: all.
    """
    found: list[str] = []
    place = 0
    while limit is None or len(found) < limit:
        opened = text.find(start, place)
        closed = text.find(end, opened + len(start)) if opened >= 0 else -1
        if closed < 0:
            break
        found.append(text[opened + len(start) : closed].strip())
        place = closed + len(end)
    return found

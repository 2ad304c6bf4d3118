"""Numbers with their nouns, as messages have them."""


def counted(n: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun.

    >>> counted(1, "row"), counted(2000, "row"), counted(0, "medium", "media")
    ('1 row', '2,000 rows', '0 media')

    Args:
        n: how many.
        noun: of one.
        plural: of others; empty: the noun with an s.
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"

"""The authors of LVBench and MotionBench: how they read a letter."""


def read_letter(response: str) -> str:
    """Returns the first character behind the bracket that opens before the first one that closes.

    Without brackets it is the first character of all, in its case.

    >>> read_letter("So (C) it is"), read_letter("The answer is C"), read_letter("c")
    ('C', 'T', 'c')
    """
    return response.strip().partition(")")[0].rpartition("(")[2].strip()[:1]

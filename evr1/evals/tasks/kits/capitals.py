"""The rule of several authors: some phrases are deleted, then the first capital letter counts."""

from collections.abc import Iterable

# Phrases of Video-MME, in order. Commas are missing behind two of them, so that they are joined
# to the next: "Best option: C" stays whole and reads as B.
VIDEO_MME = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is" + "The correct option is",
    "Best answer:" + "Best option:",
)
VIDEO_MME_LATER = (*VIDEO_MME, "Answer:", "Option:")


def read_letter(response: str, letters: str, phrases: Iterable[str] = VIDEO_MME) -> str:
    """Returns the first of some capital letters once the phrases are deleted; "": none.

    >>> read_letter("The answer is C", "ABCD"), read_letter("Best option: C", "ABCD")
    ('C', 'B')
    """
    text = response.strip()
    for phrase in phrases:
        text = text.replace(phrase, "")
    return next((each for each in text if each in letters), "")

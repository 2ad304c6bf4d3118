"""lmms-eval: the reader of letters that its multiple-choice tasks share.

Forms are ranked; within the best form that occurs, the last letter wins. Letters are looked for
anywhere, also in words, and capital letters only.
"""

from collections.abc import Iterator, Sequence

# What stands behind a letter, best first; "(C)" has a letter between brackets.
_FORMS = ("({})", "{}.", "{}:", "{})", "{} ")
_START, _END, _PHRASE = 9, 8, 7  # ranks above those of _FORMS, which count down from 6
_FALLBACK = 0

# Each is looked for once, so that a longer one may be found behind a shorter one that it holds.
_PHRASES = (
    *(f"{word}answer is" for word in ("", "the ", "my ")),
    *(f"{the}{word} answer is" for the in ("", "the ") for word in ("correct", "best")),
    *(f"{the}{word} option is" for the in ("", "the ") for word in ("correct", "best")),
    *(f"{word}choice is" for word in ("", "the ", "my ", "correct ", "the correct ")),
    "i choose",
    "i select",
    "i pick",
    "옵션",
    "정답은",
    "답은",
    "답:",
    "答案是",
    "答案为",
    "选",
    "答えは",
)


def read_letter(response: str, letters: Sequence[str] = "ABCDEFGH") -> str:
    """Returns the letter that lmms-eval reads; "": none.

    After a phrase the last of the letters wins, whatever it stands for.

    >>> read_letter("**C. Trowel**"), read_letter("The answer is (C) because D is wrong.", "ABCD")
    ('C', 'D')
    >>> read_letter("The answer is B? The best answer is C, as B is wrong.")
    'B'
    """
    text = response.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    found = list(_find(f" {text} ", letters))
    if not found:
        return ""
    best = max(found, key=lambda each: (each[0], each[1], -letters.index(each[2])))
    return best[2]


def _find(text: str, letters: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yields (rank, place, letter) of every form that occurs in a text."""
    bare, lower, any_found = text.strip(), text.lower(), False
    phrases = [lower.find(phrase) + len(phrase) for phrase in _PHRASES if phrase in lower]
    for letter in letters:
        found = [
            (6 - rank, text.rfind(form.format(letter)), letter)
            for rank, form in enumerate(_FORMS)
            if form.format(letter) in text
        ]
        # The place is that of the first such letter behind a phrase.
        places = [place for start in phrases if (place := text.find(letter, start)) != -1]
        found += [(_PHRASE, place, letter) for place in places]
        if bare.startswith(letter) and not bare[1:2].isalpha():
            found.append((_START, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            found.append((_END, len(text) - 1, letter))
        any_found = any_found or bool(found)
        yield from found
    if not any_found:
        yield from ((_FALLBACK, text.rfind(each), each) for each in letters if each in text)

"""Judges that say whether an answer is right."""

from collections.abc import Generator, Mapping
from typing import Any

from evr1 import rewards
from evr1.evals.tasks.base import Verdict
from evr1.rewards.base import Status
from evr1.rewards.judging.judge import whole_answer
from evr1.rewards.judging.judge_prompt import (
    Question,
    data_prompt,
    make_prompt,
    read_object,
    read_reply,
)

MAX_CHARS = 40_000  # of a block of data: a response with all of its reasoning
Asking = Generator[str, str, Verdict]  # see base.Judge

FIND = """\
You read one reply to a question about a video that you do not see. You do not answer the question
yourself."""
_FIND_ASKED = """\
Here the data end. Which final answer does the reply give? Write that answer and nothing else, in as
few words as the reply itself uses for it: for a choice its letter, for a span of time
[start, end] in seconds, for a box [x1, y1, x2, y2]. If the reply gives no answer, write None."""
_GRADE = """\
You grade one answer to a question about a video that you do not see. The right answer is given, and
it is right whatever you know yourself."""


def prompt(task: str, blocks: Mapping[str, str], asked: str) -> str:
    """Returns a prompt: instructions round two to five blocks of data."""
    return data_prompt(task, blocks, asked, MAX_CHARS)


def read_fields(reply: str, fields: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """Returns the fields of the one JSON object that a reply is.

    Args:
        reply: of a judge.
        fields: name -> type of its value.

    Raises:
        ValueError: it is none, or a field is missing or of another type.
    """
    value = read_object(reply)
    for name, kind in fields.items():
        if name not in value:
            raise ValueError(f"it has no {name}, but {', '.join(value) or 'nothing'}")
        found = value[name]
        is_number_asked = kind is not bool and isinstance(found, bool)
        if is_number_asked or not isinstance(found, kind):
            raise ValueError(f"{name} is {str(found)[:40]!r}")
    return value


# Ours.


def compare(problem: str, truth: str, said: str) -> Asking:
    """Asks, as the rewards do, whether an answer says what the right one says."""
    ruling = read_reply((yield make_prompt(Question(problem, truth, said))))
    if ruling.status is not Status.OK:
        raise ValueError(ruling.reason)
    return Verdict(said, ruling.accuracy)


def by_truth(problem: str, truth: str, response: str) -> Asking:
    """Asks the same of the answer of a response; the reasoning before it is not shown."""
    score = rewards.score(response, {"problem_type": "open-ended", "answer": truth})
    said = whole_answer(response, score.extracted) or response.strip()
    return (yield from compare(problem, truth, said))


# Of the kits.


def find_answer(problem: str, response: str) -> Generator[str, str, str]:
    """Asks for the final answer of a response, and returns the reply as it is."""
    return (yield prompt(FIND, {"question": problem, "reply": response}, _FIND_ASKED))


def grade(problem: str, truth: str, answer: str, asked: str) -> Generator[str, str, str]:
    """Asks for a grade of an answer, and returns the reply as it is.

    Args:
        problem: the question, with its options.
        truth: the right answer.
        answer: to grade.
        asked: what is to be replied.
    """
    blocks = {"question": problem, "right answer": truth, "answer": answer}
    return (yield prompt(_GRADE, blocks, f"Here the data end. {asked}"))


SAYS_THE_SAME = "The answer is right if it says what the right answer says, in whatever words."
ONE_OR_ZERO = f"{SAYS_THE_SAME} Reply with 1 if it is right and with 0 if not, and nothing else."
CORRECT_OR_INCORRECT = (
    f"{SAYS_THE_SAME} Reply with the one word Correct or the one word Incorrect, without a full "
    "stop and without anything else."
)

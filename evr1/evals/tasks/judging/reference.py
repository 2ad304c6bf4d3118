"""EasyVideoR1's judge of open answers, which sees the right answer and not the question."""

from collections.abc import Callable, Mapping
from typing import Any

from evr1.evals.tasks.base import JUDGE, Doc, Judge, Rule, Verdict
from evr1.evals.tasks.judging import verdicts
from evr1.evals.tasks.kits import easyvideor1

_TASK = """\
You compare two answers to a question that you do not see. The right one is right, whatever you know
yourself."""
_ASKED = """\
Here the data end. Does the answer say what the right answer says, in whatever words? Reply with
Judgement: 1 if it does and with Judgement: 0 if not, and nothing else."""


def rule(to_row: Callable[[Doc], Mapping[str, Any]]) -> Rule:
    """Returns the rule of a task whose official rows `to_row` turns into the kit's."""

    def or_judge(doc: Doc, response: str) -> Verdict:
        """Scores options by EasyVideoR1's rule; what is open is left to its judge."""
        row = to_row(doc)
        if row["problem_type"] == easyvideor1.MULTIPLE_CHOICE:
            return easyvideor1.score(row, response)
        return Verdict(JUDGE, None)

    return or_judge


def judge(to_row: Callable[[Doc], Mapping[str, Any]]) -> Judge:
    """Returns the judge of such a task."""

    def compare(doc: Doc, response: str) -> verdicts.Asking:
        """Asks for a judgement, 1 or 0; a reply without one counts by its last character."""
        row = to_row(doc)
        said = easyvideor1.for_judge(doc, response).extracted
        truth = easyvideor1.read(row["solution"], row["problem_type"])
        reply = yield verdicts.prompt(_TASK, {"right answer": truth, "answer": said}, _ASKED)
        return Verdict(said, easyvideor1.judgement(reply))

    return compare

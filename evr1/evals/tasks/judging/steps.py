"""VCR-Bench's steps: how many of the right ones a response has, and how many of its own are right.

A judge lists steps with a type and a judgement; shares are counted here. The steps of background
count for themselves only.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evr1.evals.tasks import metrics
from evr1.evals.tasks.base import JUDGE, Doc, Record, Verdict
from evr1.evals.tasks.judging import verdicts
from evr1.evals.tasks.kits import tables, tags

_STEPS = {
    "Video": "Video Description",
    "logic": "Logical Inference",
    "background": "Background Review",
}
_SHOWN = ("overall", "Video", "logic")
_NO_STEPS = Verdict("<NO STEPS>", None)

_TASK = """\
You weigh the reasoning of a response to a question about a video that you do not see. The reference
steps and the right answer are right, whatever you know yourself."""
_TYPES = """\
Each step has one of three types. "Video Description Steps" say what is to be seen or heard.
"Logical Inference Steps" conclude something from it. "Background Review Steps" only repeat the
question, the options or common knowledge, or announce what comes."""
_RECALL = """\
Here the data end. Go through the reference steps in order, all of them and no others, and see
whether the response holds each: "Matched" if it says the same in whatever words, with times and
facts that agree, else "Unmatched"."""
_PRECISION = """\
Here the data end. Cut the response into its steps of reasoning, in order, and weigh each against
the reference steps and the right answer: "Matched" if it agrees with them or leads to the answer,
"Wrong" if it contradicts them or leads away, "Redundant" if it adds nothing to steps before it."""
_FENCED = """\
Reply with a JSON list between a line ```json and a line ```, one object for each step:
[{{"step": "the step in short", "step_type": "Video Description Steps", "judgment": "{}"}}]"""
_BARE = """\
Reply with a JSON list and nothing else, no fence either, one object for each step:
[{{"step": "the step in short", "step_type": "Video Description Steps", "judgment": "{}"}}]"""


def by_weight(doc: Doc, response: str) -> Verdict:
    """Leaves a response to a judge; one without any text has no steps."""
    return Verdict(JUDGE, None) if response.strip() else Verdict(None, 0.0)


# Judges.


def weigh(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for both lists; that of the reference steps must hold each of them.

    A response without steps keeps its recall.
    """
    recall_reply = yield _prompt(doc, response, "recall", _FENCED)
    recall = _read(fenced(recall_reply) or recall_reply, "recall")
    listed = len(json.loads(fenced(recall_reply) or recall_reply))
    if listed != len(doc["reasoning"]):
        raise ValueError(f"{listed} steps are weighed, of {len(doc['reasoning'])} reference steps")
    reply = yield _prompt(doc, response, "precision", _FENCED)
    verdict = _verdict(recall, fenced(reply) or reply)
    return Verdict(recall, 0.0) if verdict is _NO_STEPS else verdict  # none is precise


def weigh_as_authors(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for both lists, which must stand between fences; without steps the row is left out."""
    recall = _read(fenced((yield _prompt(doc, response, "recall", _FENCED))), "recall")
    return _verdict(recall, fenced((yield _prompt(doc, response, "precision", _FENCED))))


def weigh_as_vlmevalkit(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for both lists, which must stand alone; without steps the row is left out."""
    recall = _read((yield _prompt(doc, response, "recall", _BARE)), "recall")
    return _verdict(recall, (yield _prompt(doc, response, "precision", _BARE)))


def _prompt(doc: Doc, response: str, kind: str, form: str) -> str:
    blocks = {
        "question": doc["question"],
        "right answer": str(doc["answer"]),
        "reference steps": "\n".join(doc["reasoning"]),
        "response": response,
    }
    weights = _RECALL if kind == "recall" else _PRECISION
    return verdicts.prompt(_TASK, blocks, f"{weights}\n{_TYPES}\n{form.format('Matched')}")


def _verdict(recall: Mapping[str, Any], reply: str) -> Verdict:
    if reply.strip() == "[]":
        return _NO_STEPS
    found = {**recall, **_read(reply, "precision")}
    both = found["overall_precision"] or 0.0, found["overall_recall"] or 0.0
    return Verdict(found, _f1(*both))


def _read(reply: str, kind: str) -> dict[str, Any]:
    found = shares(reply, kind)
    if found is None:
        raise ValueError(f"this is no list of {kind}: {reply[:80]!r}")
    return found


# What a reply tells.


def shares(reply: str, kind: str) -> dict[str, Any] | None:
    """Returns the shares of steps that a judge's JSON list tells; None: it cannot be read.

    An undefined share is "". Background is left out of the overall share.

    Args:
        reply: a list of steps with `step_type` and `judgment`.
        kind: "recall" of the steps of a solution, or "precision" of those of a response.
    """
    words = ("Matched", "Unmatched") if kind == "recall" else ("Matched", "Wrong", "Redundant")
    counts = {name: dict.fromkeys(words, 0) for name in _STEPS}
    names = {f"{words_} Steps": name for name, words_ in _STEPS.items()}
    try:
        steps = json.loads(reply)
        for step in steps:
            counts[names[step["step_type"]]][step["judgment"]] += 1
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    parts = {name: [counts[name][word] for word in words[:2]] for name in counts}
    parts["overall"] = [sum(each) for each in zip(parts["Video"], parts["logic"], strict=True)]
    out: dict[str, Any] = {
        f"{name}_{kind}": right / (right + wrong) if right + wrong else ""
        for name, (right, wrong) in parts.items()
    }
    if kind == "precision":
        if not steps:
            return None  # the share of steps that are not redundant is undefined
        redundant = sum(each["Redundant"] for each in counts.values())
        out["efficiency"] = 1 - redundant / len(steps)
    return out


def fenced(reply: str) -> str:
    """Returns what a reply holds as JSON between fences; "": nothing."""
    return next(iter(tags.between(reply, "```json\n", "```", 1)), "")


# Means.


def means(records: Sequence[Record]) -> dict[str, float]:
    """Returns F1, precision and recall of all steps, then of each type, and the efficiency."""
    return _means([_shares(record) for record in records], skips_zeros=False)


def table_of_shares(doc: Any, skips_zeros: bool = False) -> dict[str, Any]:
    """Returns the table of precision, recall and F1 of rows with shares, as the kits have it."""
    listed = _means(tables.rows_of(doc), skips_zeros)
    names = ("precision", "recall", "f1")
    kinds = ("Video", "logic", "overall")
    return {"overall_metrics": {k: {n: listed[f"{k}_{n}"] for n in names} for k in kinds}}


def means_as_vlmevalkit(records: Sequence[Record]) -> dict[str, float]:
    """Returns the same; a share of 0 is left out of the mean."""
    return _means([_shares(record) for record in records], skips_zeros=True)


def _shares(record: Record) -> Mapping[str, Any]:
    read = record.verdict.extracted
    if isinstance(read, Mapping):
        return read
    return {} if record.verdict.score is None else {"overall_recall": 0.0}


def _means(rows: Sequence[Mapping[str, Any]], skips_zeros: bool) -> dict[str, float]:
    out: dict[str, float] = {}
    for name in _SHOWN:
        precision, recall = (
            _mean_of_defined([row.get(f"{name}_{kind}", "") for row in rows], skips_zeros)
            for kind in ("precision", "recall")
        )
        out |= {
            f"{name}_f1": _f1(precision, recall),
            f"{name}_precision": precision,
            f"{name}_recall": recall,
        }
    efficiency = _mean_of_defined([row.get("efficiency", "") for row in rows], skips_zeros)
    return out | {"efficiency": efficiency}


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _mean_of_defined(values: Sequence[Any], skips_zeros: bool) -> float:
    defined = [value for value in values if value != "" and not (skips_zeros and value == 0)]
    return metrics.mean(defined) if defined else 0.0

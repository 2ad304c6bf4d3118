"""Loose rows of (task, doc, response, profile), scored by the rules of the tasks."""

from collections.abc import Mapping
from typing import Any

from evr1.evals.tasks import TASKS
from evr1.evals.tasks.base import Finding, Fingerprint, Task, Verdict
from evr1.evals.tasks.kits import easyvideor1

CASE = "case"  # a row of a benchmark and a response; everything else is a fact of the task
_MORE = ("variant", "scorer", "kind")  # fields of a row that facts find in its doc
# Facts about a kit that are of no one task, under the name that cases give them.
KITS = {"reference_prompts": {("prompt", "easyvideor1"): easyvideor1.fingerprint}}


def score_case(row: Mapping[str, Any], tasks: Mapping[str, Task] = TASKS) -> dict[str, Any]:
    """Returns a case's `id`, `profile`, `extracted`, `score`, and `differs` where that is meant.

    A case about a text has its `sha256`, too.

    Args:
        row: task, profile, doc, response; `what` says what the case is about (default: "case"),
            `variant` may name a form of it, `scorer` the function of the kit, and `kind` how the
            kit was run.
        tasks: by name.

    Raises:
        ValueError: a field is missing, there is no such task or profile, or the doc does not fit.
    """
    for name in ("id", "task", "profile", "doc"):
        if name not in row:
            raise ValueError(f"case {row.get('id')}: no field {name}; give it")
    out: dict[str, Any] = {"id": row["id"], "profile": row["profile"]}
    where, what = f"case {row['id']}, {row['task']}", row.get("what", CASE)
    try:
        verdict = _verdict(row, what, tasks, where)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{where}: {error!r}; its doc or response is of another kind") from error
    if isinstance(verdict, Fingerprint):
        return out | {"extracted": None, "score": None, "sha256": verdict.sha256}
    if isinstance(verdict, Finding):
        return out | {"extracted": verdict.extracted, "score": verdict.value}
    if not isinstance(verdict, Verdict):
        return out | {"extracted": None, "score": verdict}
    out |= {"extracted": verdict.extracted, "score": verdict.score}
    return out | ({"differs": verdict.differs} if verdict.differs else {})


def _verdict(row: Mapping[str, Any], what: str, tasks: Mapping[str, Task], where: str) -> Any:
    """Returns what a rule makes of a response, or what a fact of the task gives."""
    task = None if what != CASE else _find(tasks, row["task"], f"case {row['id']}", "task")
    if task is None or (CASE, row["profile"]) in task.facts:
        return _fact(row, what, tasks, where)
    rule = _find(task.rules, row["profile"], where, "profile")
    return rule(row["doc"], row.get("response") or "")


def _fact(row: Mapping[str, Any], what: str, tasks: Mapping[str, Task], where: str) -> Any:
    facts = KITS.get(row["task"])
    if facts is None:
        facts = _find(tasks, row["task"], f"case {row['id']}", "task").facts
    fact = _find(facts, (what, row["profile"]), where, "kind of case")
    doc = row["doc"]
    if isinstance(doc, Mapping):
        doc = {**doc, **{name: row[name] for name in _MORE if row.get(name)}}
    return fact(doc, row.get("response"))


def _find(table: Mapping[Any, Any], name: Any, where: str, kind: str) -> Any:
    if name not in table:
        known = ", ".join(str(key) for key in table) or "none"
        raise ValueError(f"{where}: no {kind} {name!r}; there is {known}")
    return table[name]

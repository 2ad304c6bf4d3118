"""VideoReasonBench: six demonstrations whose state is hidden while moves change it.

Source: lyx97/reasoning_videos (`<demo>/test-00000-of-00001.parquet`, `videos.zip`), or
`questions/<demo>.json` of llyx97/video_reason_bench. Answers need a judge unless they are the very
text; of 240 rows without an answer, the plan is played in a simulator.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import demos, files, metrics
from evr1.evals.tasks.base import (
    JUDGE,
    KIT_STOPS,
    STOPS,
    Doc,
    Media,
    Part,
    Record,
    Sample,
    Show,
    Source,
    Task,
    Verdict,
)
from evr1.evals.tasks.judging import reference, verdicts
from evr1.evals.tasks.kits import easyvideor1

_DEMOS = ("hrd", "file_sys", "cup", "grid", "card", "chip")
_LEVELS = {
    "order_operation": "recall",
    "counting_operation": "recall",
    "order_state": "infer",
    "counting_state": "infer",
    "comparison_state": "infer",
    "prediction_state": "predict",
    "prediction_operation": "predict",
}
_PLAN = "prediction_operation"
_FIELDS = ("video", "question", "dim", "visible_time", "num_state", "num_operation", "states")
_TAGS = ("level", "dimension", "demo", "visible_time", "operations", "states")


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions, demonstration by demonstration."""
    for demo in _DEMOS:
        for where, key, row in _rows(folder, demo):
            for name in _FIELDS:
                files.field(row, name, where)
            dim, answer = row["dim"], row.get("answer")
            if dim not in _LEVELS:
                raise ValueError(f"{where}: dim {dim!r} is none of {', '.join(_LEVELS)}")
            if (answer is None) != (dim == _PLAN):
                raise ValueError(f"{where}: answer {answer!r} of a {dim}; only plans have none")
            doc = dict(row) | {"demo": demo, "states": _states(row)}
            yield Sample(
                id=f"{demo}_{key}",
                doc=doc,
                media=(Media(row["video"]),),
                tags={
                    "level": _LEVELS[dim],
                    "dimension": "infer_state" if dim in ("order_state", "counting_state") else dim,
                    "demo": demo,
                    "visible_time": row["visible_time"],
                    "operations": "5-9" if int(row["num_operation"]) < 10 else "10-14",
                    # Boards of 3 and 4 rows count as one and two piles, cups or paths.
                    "states": {1: "1", 3: "1"}.get(int(row["num_state"]), "2"),
                },
            )


def _rows(folder: Path, demo: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields (where it stands, key, row)."""
    parquet = f"{demo}/test-00000-of-00001.parquet"
    path = files.find(folder, f"questions/{demo}.json", f"{demo}.json", parquet)
    if path.suffix == ".parquet":
        for where, row in files.rows(folder, parquet):
            yield where, str(files.field(row, "id", where)), row
        return
    table = files.read_json(path)
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise ValueError(f"{path}: it holds no object of objects; download it again")
    yield from ((f"{path}: {key}", key, row) for key, row in table.items())


def _states(row: Mapping[str, Any]) -> Any:
    """Returns the states; a table's are text, or hold all commands, of which most have none."""
    states = json.loads(row["states"]) if isinstance(row["states"], str) else row["states"]
    if not isinstance(states, dict):
        return states
    order = {command: place for place, command in enumerate(row.get("commands") or (), 1)}
    return {
        name: each
        if not isinstance(each, dict)
        else {k: each[k] for k in sorted(each, key=lambda k: order.get(k, 0)) if each[k]}
        for name, each in states.items()
        if each is not None
    }


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt: the question as it is."""
    return Show(), sample.doc["question"]


def _row(doc: Doc) -> dict[str, Any]:
    gold = f"<answer>{str(doc.get('answer')).rstrip()}</answer>"
    return {"problem_type": "open-ended", "problem": doc["question"], "solution": gold}


# Our own rule.

_MARKER = re.compile(r"(?i)\bfinal\s+answer\b[\s*_`#:]*(?:is\b)?[\s*_`:]*")
_ORDINAL = re.compile(r"(?i)\b\d{1,2}(?:(?:st|nd|rd|th)[.):]?|[.):])(?!\w)")
_BETWEEN = r"(?:\s|[,;.>&]|->|→|\band\b|\bthen\b)+"
_COMMAND = re.compile(r"(?:touch|rm|mv|cp|mkdir|rmdir|cd|ls)\s")
_PAIR = re.compile(r"(?i)\(?([a-e][1-5])\s*(?:,|<?-+>|↔)\s*([a-e][1-5])\)?")
_ACTION = re.compile(
    r"(?i)(add|remove)\s+(?:the\s+|chip\s+|card\s+|a\s+)*(\w+(?:\s+of\s+\w+)?)(?:\s+chip)?"
    r"(?:\s+(?:to|from))?(?:\s+the)?(?:\s+(?:top|bottom)\s+of)?\s+((?:pile|cup)\d)"
)


def by_answer(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule: the very answer, or a plan that works; else a judge reads it."""
    said = _said(response)
    if not said:
        return Verdict(None, 0.0)
    if doc["dim"] != _PLAN:
        is_same = _plain(said) == _plain(str(doc["answer"]))
        return Verdict(said, 1.0) if is_same else Verdict(JUDGE, None)
    plan = read_plan(doc["demo"], said)
    return Verdict(JUDGE, None) if plan is None else _played(doc, plan, said)


def _said(response: str) -> str:
    """Returns what follows the last marker behind the reasoning, or all of that without one."""
    said = response.rpartition("</think>")[2]
    marked = list(_MARKER.finditer(said))
    return (said[marked[-1].end() :] if marked else said).strip()


def _played(doc: Doc, plan: Sequence[Any], said: str) -> Verdict:
    state = demos.play(doc, plan, demos.RIGHT)
    is_right = state is not None and demos.is_solved(doc, state, demos.RIGHT)
    return Verdict(said, float(is_right))


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[*_`]", " ", text).casefold().split()).rstrip(" .")


def read_plan(demo: str, text: str) -> list[Any] | None:
    """Returns the moves of a text that holds nothing else; None: there is more, or none.

    >>> read_plan("grid", "`left`, up"), read_plan("card", "add 6 of hearts to pile0")
    (['left', 'up'], ['add 6 of Hearts to pile0'])
    """
    text = re.sub(r"[`*\[\]'\"]", " ", text).strip()
    if demo == "file_sys":
        text = text.removeprefix("bash").strip().removesuffix(".")
        commands = [each.strip() for each in re.split(r"&&?|;|\n", text) if each.strip()]
        return commands if commands and all(map(_COMMAND.match, commands)) else None
    text = _ORDINAL.sub(" ", text)
    if demo in ("hrd", "grid"):
        words = [word for word in re.split(_BETWEEN, text.lower()) if word]
        moves = [{"upward": "up", "downward": "down"}.get(word, word) for word in words]
        return moves if moves and all(move in demos.DIRECTIONS for move in moves) else None
    form = _PAIR if demo == "cup" else _ACTION
    found = list(form.finditer(text))
    if not found or re.sub(_BETWEEN, "", form.sub(" ", text)):
        return None
    if demo == "cup":
        return [(each[1].lower(), each[2].lower()) for each in found]
    return [_action(*each.groups()) for each in found]


def _action(verb: str, what: str, place: str) -> str:
    names = [word if word == "of" else word.capitalize() for word in what.lower().split()]
    joint = "to" if verb.lower() == "add" else "from"
    return f"{verb.lower()} {' '.join(names)} {joint} {place.lower()}"


# The authors' rules.


def _final(response: str) -> str | None:
    """Returns what follows the first "Final Answer"; None without one."""
    parts = response.split("◁/think▷")
    _, marker, rest = (parts[1] if len(parts) > 1 else response).partition("Final Answer")
    return rest.strip() if marker else None


def _moves(demo: str, reply: str) -> Sequence[Any] | None:
    """Returns the moves that a model listed; nothing where it listed none; None: the kit stops."""
    if demo == "file_sys":
        return reply.strip("`").replace("bash\n", "").split(" & ")
    try:
        moves = ast.literal_eval(reply)
    except ValueError:  # bare words: the kit's evaluator of sliding puzzles knows no such names
        return None if demo == "hrd" else ()
    except (SyntaxError, TypeError, MemoryError, RecursionError):
        return ()
    moves = moves if isinstance(moves, list | tuple | str) else ()
    is_direction = demo in ("hrd", "grid")
    return [str(move).lower() for move in moves] if is_direction else moves


def by_authors(doc: Doc | None, response: Any) -> Verdict:
    """Scores as the authors' script, which asks a model in any case that a marker is there.

    Args:
        doc: a row; None: only what follows the marker is read.
        response: a text, or an object with the text as "response" and, where it is known, what
            the model said as "judge_reply" or, of a plan, as "extracted_by_llm".
    """
    reply = response if isinstance(response, Mapping) else {"response": response}
    said = _final(reply["response"] or "")
    if doc is None:
        return Verdict(said, None)
    if not said:
        return Verdict(None, 0.0)
    if "judge_reply" in reply:
        return Verdict(None, float(reply["judge_reply"] == "Correct"))
    if "extracted_by_llm" not in reply:
        return Verdict(JUDGE, None)
    moves = _moves(doc["demo"], reply["extracted_by_llm"])
    if moves is None:
        return Verdict(None, 0.0, STOPS)
    state = demos.play(doc, moves, demos.AUTHORS) if moves else None
    if state is None:
        return Verdict(None, 0.0)
    if "question" not in doc:
        return Verdict(None, None, "no_question")
    return Verdict(None, float(demos.is_solved(doc, state, demos.AUTHORS)))


def by_their_vlmevalkit(doc: Doc | None, response: Any) -> Verdict:
    """Scores as the authors' fork of VLMEvalKit, which also counts markers."""
    verdict = by_authors(doc, response)
    reply = response if isinstance(response, Mapping) else {"response": response}
    if doc is None or _final(reply["response"] or ""):
        return verdict
    return verdict._replace(extracted={"final_ans_match": False})


# Judges.

_LIST = """\
You read an answer that holds a plan, and list its moves. You do not make a plan yourself, and you
neither correct nor complete the one that is there."""
# How a move is written, and an example of all of them as the authors' readers take them.
_FORMS = {
    "hrd": ("the direction: left, right, up or down", "['left', 'up']"),
    "grid": ("the direction: left, right, up or down", "['left', 'up']"),
    "cup": ("the two places that are swapped", "[('a1', 'b2'), ('b2', 'c1')]"),
    "file_sys": ("the whole command", "touch path0/{a.txt} & rm -rf path1/{b.py}"),
    "card": ("add or remove, the card, to or from, the pile", "['add 6 of Hearts to pile0']"),
    "chip": ("add or remove, the chip, to or from, the cup", "['add 5 to cup0']"),
}


def _listing(doc: Doc, said: str, asked: str) -> str:
    form, _ = _FORMS[doc["demo"]]
    listing = f"Here the data end. List the moves of the plan in order; a move is {form}."
    blocks = {"question": doc["question"], "answer": said}
    return verdicts.prompt(_LIST, blocks, f"{listing} {asked}")


def judge_answer(doc: Doc, response: str) -> verdicts.Asking:
    """Asks whether an answer says what the right one says; of a plan, which moves it has."""
    said = _said(response)
    if doc["dim"] != _PLAN:
        return (yield from verdicts.compare(doc["question"], str(doc["answer"]), said))
    asked = 'Reply with one JSON object and nothing else, such as {"moves": ["...", "..."]}.'
    moves = verdicts.read_fields((yield _listing(doc, said, asked)), {"moves": list})["moves"]
    if not moves:
        return Verdict(said, 0.0)
    plan = read_plan(
        doc["demo"], (" & " if doc["demo"] == "file_sys" else ", ").join(map(str, moves))
    )
    if plan is None:
        raise ValueError(f"these are no moves: {str(moves)[:80]}")
    return _played(doc, plan, said)


def judge_as_authors(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for the word Correct; of a plan, for its moves as Python writes them."""
    said = _final(response) or ""
    if doc["dim"] != _PLAN:
        asked = verdicts.CORRECT_OR_INCORRECT
        reply = yield from verdicts.grade(doc["question"], str(doc["answer"]), said, asked)
        return by_authors(doc, {"response": response, "judge_reply": reply})._replace(
            extracted=said
        )
    kind = "the commands with & between them" if doc["demo"] == "file_sys" else "a Python list"
    asked = f"Reply with {kind} and nothing else, such as {_FORMS[doc['demo']][1]}"
    reply = yield _listing(doc, said, asked)
    verdict = by_authors(doc, {"response": response, "extracted_by_llm": reply})
    return verdict._replace(extracted=said)


# Facts.


def released_plans(doc: Doc, _: Any) -> dict[str, int] | Verdict:
    """Says that the released questions, which such a case is about, are not here."""
    return Verdict(None, None, "released_questions")


def of_marked(records: Sequence[Record]) -> dict[str, float]:
    """Returns the means, and the share of responses with a marker."""
    missing = {"final_ans_match": False}
    marked = metrics.mean(float(r.verdict.extracted != missing) for r in records)
    return metrics.with_tags(*_TAGS)(records) | {"final_ans_match": marked}


TASK = Task(
    name="video_reason_bench",
    source=Source(
        hub=("lyx97/reasoning_videos",),
        n=1440,
        counts={
            "demo": dict.fromkeys(_DEMOS, 240),
            "visible_time": {"start": 720, "end": 720},
            "dimension": {
                "order_operation": 240,
                "counting_operation": 240,
                "infer_state": 240,
                "comparison_state": 240,
                "prediction_state": 240,
                "prediction_operation": 240,
            },
        },
        chance=0.0,
        frames="video_reason_bench",
        judge="answers that are not the very text, and plans that are not plain (official: all)",
    ),
    load=load,
    prompts={
        "official": ask,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_answer,
        "official": by_authors,
        "official_vlmevalkit": by_their_vlmevalkit,
        "easyvideor1": easyvideor1.rule(_row),
        "easyvideor1_judge": reference.rule(_row),
    },
    judges={
        "evr1": judge_answer,
        "official": judge_as_authors,
        "official_vlmevalkit": judge_as_authors,
        "easyvideor1_judge": reference.judge(_row),
    },
    aggregates={
        "evr1": metrics.with_tags(*_TAGS),
        "official": metrics.with_tags(*_TAGS),
        "official_vlmevalkit": of_marked,
    },
    facts={
        ("aggregate", "official"): released_plans,
        ("case", "easyvideor1_judge"): easyvideor1.for_judge,
    },
    differs=KIT_STOPS
    | {
        "no_question": "the case does not hold the question, which names the goal of the plan",
        "released_questions": "the case is about the 40 released plans, which are not part of it",
    },
)

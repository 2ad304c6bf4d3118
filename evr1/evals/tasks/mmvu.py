"""MMVU: questions of experts in 27 subjects, 625 with five options and 375 for a short answer.

Source: yale-nlp/MMVU (mirror lmms-eval/MMVU), `validation.json` or its Parquet file, and `videos/`
by subject. Short answers need a judge unless they equal the right one.
"""

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    JUDGE,
    Doc,
    Fingerprint,
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

_CHOICE = "multiple-choice"
_SUBJECTS = {
    "Science": (
        "Astronomy Biology Chemistry Electromagnetism Geography Materials_Science Mechanics "
        "Modern_Physics Neurobiology Thermodynamics"
    ),
    "Engineering": (
        "Biomedical_Engineering Civil_Engineering Computer_Science Electrical_Engineering "
        "Electronics_and_Communication Mechanical_Engineering"
    ),
    "Healthcare": "Basic_Medicine Clinical_Medicine Dentistry Pharmacy Preventive_Medicine",
    "Humanities_and_Social_Science": "Art Economics History Law Literature Management",
}
_DISCIPLINES = {name: group for group, names in _SUBJECTS.items() for name in names.split()}
_SHOWN_CHARS = 60  # of a short answer that may be a whole reply
_ANNOTATIONS = ("validation.json", "data/validation.json", "data/validation-*.parquet", "*.parquet")


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions of the validation split."""
    for where, row in files.rows(folder, *_ANNOTATIONS):
        kind = files.field(row, "question_type", where)
        answer, path = str(files.field(row, "answer", where)), _video(row, where)
        if kind == _CHOICE:
            files.check_letter(answer, len(_options(row)), where)
        elif not answer.strip():
            raise ValueError(f"{where}: the answer is empty; download the file again")
        subject = _subject(path)
        yield Sample(
            id=str(files.field(row, "id", where)),
            doc=row,
            media=(Media(path),),
            tags={
                "question_type": str(kind),
                "discipline": _DISCIPLINES.get(subject, "other"),
                "subject": subject,
            },
        )


def _video(row: dict[str, Any], where: str) -> str:
    """Returns the path from "videos/" on; the official rows hold addresses."""
    name = "video_path" if "video_path" in row else "video"
    path = str(files.field(row, name, where))
    return f"videos/{path.rpartition('videos/')[2]}".replace("videos/./", "videos/")


def _subject(path: str) -> str:
    return path.split("/")[-2] if "/" in path else ""


def _options(doc: Doc) -> list[str]:
    choices = doc.get("choices") or {}
    return [str(choices[letter]) for letter in sorted(choices) if choices[letter] is not None]


# Prompts.

_COT = {
    True: (
        "Answer the given multiple-choice question step by step. Begin by explaining your "
        "reasoning process clearly. Conclude by stating the final answer using the following "
        "format: 'Therefore, the final answer is: $LETTER' (without quotes), where $LETTER is one "
        "of the options. Think step by\nstep before answering."
    ),
    False: (
        "Answer the given question step by step. Begin by explaining your reasoning process "
        "clearly. Conclude by stating the final answer using the following format: 'Therefore, the "
        "final answer is: 'Answer: $ANSWER' (without quotes), where $ANSWER is the final answer of "
        "the question. Think step by step\nbefore answering."
    ),
}
_NO_REASONS = "Do not generate any intermediate reasoning process. "
_DIRECT = {
    True: f"{_NO_REASONS}Answer directly with the option letter from the given choices.\n",
    False: f"{_NO_REASONS}Directly output the final short answer.\n",
}
_COT_OF_LMMS_EVAL = {
    True: (
        "Answer the given multiple-choice question step by step. Begin by explaining your "
        "reasoning process\nclearly. Conclude by stating the final answer using the following "
        'format: "Therefore, the final answer\nis: $LETTER" (without quotes), where $LETTER is one '
        "of the options. Think step by step before\nanswering.\n"
    ),
    False: (
        "Answer the given question step by step. Begin by explaining your reasoning process "
        "clearly. Conclude\nby stating the final answer using the following format: "
        '"Therefore, the final answer is: "Answer:\n$ANSWER" (without quotes), where $ANSWER is '
        "the final answer of the question. Think step by\nstep before answering.\n"
    ),
}
_DIRECT_OF_LMMS_EVAL = {
    True: f"{_NO_REASONS}Answer directly with the option letter from the\ngiven choices.\n",
    False: f"{_NO_REASONS}Directly output the final answer.\n",
}


def _lines(doc: Doc) -> str:
    if doc["question_type"] != _CHOICE:
        return ""
    return "\n".join(ours.lettered(_options(doc), "{letter}: {text}")) + "\n"


def _text(doc: Doc, instructions: Mapping[bool, str]) -> str:
    is_choice = doc["question_type"] == _CHOICE
    return f"\nQuestion: {doc['question']}\n{_lines(doc)}\n{instructions[is_choice]}"


def _text_of_lmms_eval(doc: Doc, instructions: Mapping[bool, str]) -> str:
    instruction = instructions[doc["question_type"] == _CHOICE]
    seen = "Visual Information: processed video\n"
    return f"\nQuestion:{doc['question']}\n{_lines(doc)}{seen}{instruction}"


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt, which wants reasons first."""
    return Show(), _text(sample.doc, _COT)


def ask_directly(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt that wants no reasons."""
    return Show(), _text(sample.doc, _DIRECT)


def ask_as_lmms_eval(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of lmms-eval, which wants no reasons."""
    return Show(), _text_of_lmms_eval(sample.doc, _DIRECT_OF_LMMS_EVAL)


def ask_for_reasons_as_lmms_eval(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of lmms-eval that wants reasons first."""
    return Show(), _text_of_lmms_eval(sample.doc, _COT_OF_LMMS_EVAL)


def _row(doc: Doc) -> dict[str, Any]:
    if doc["question_type"] == _CHOICE:
        return easyvideor1.choice_row(doc["question"], _options(doc), doc["answer"])
    solution = f"<answer>{doc['answer']}</answer>"
    return {"problem_type": "open-ended", "problem": doc["question"], "solution": solution}


# Rules.


def by_answer(doc: Doc, response: str) -> Verdict:
    """Scores by our own rules; a short answer that is not the right one is left to a judge."""
    if doc["question_type"] == _CHOICE:
        return ours.choice(response, doc["question"], _options(doc), doc["answer"])
    return ours.short_answer(response, doc["answer"])


def by_authors(doc: Doc, response: str) -> Verdict:
    """Asks a judge, whatever the question is."""
    return Verdict(JUDGE, None)


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores by lmms-eval's rule alone; its judge could only raise the score of short answers."""
    if doc["question_type"] == _CHOICE:
        letter = re.search(r"\b[A-E]\b", response)
        right = _is_right_choice(response.strip(), doc["answer"].strip(), doc["choices"])
        return Verdict(letter[0] if letter else "N/A", float(right))
    return Verdict(
        response[:_SHOWN_CHARS], float(_is_right_short_answer(response, str(doc["answer"])))
    )


def _is_right_choice(text: str, answer: str, choices: Mapping[str, str]) -> bool:
    """Returns whether the right letter stands alone in any case, or a word of its option occurs."""
    if re.search(rf"(?i)\b{re.escape(answer)}\b", text):
        return True
    lower, option = text.lower(), choices[answer].strip().lower()
    if option in lower:
        return True
    words = (word.strip(string.punctuation) for word in option.split())
    return answer.upper() in text.upper() and any(len(w) > 2 and w in lower for w in words)


_SUPERSCRIPTS = str.maketrans({each: f"^{i}" for i, each in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")})


def _is_right_short_answer(response: str, answer: str) -> bool:
    """Returns whether one text holds the other, or they agree in a number, words or an order."""
    lower = [each.strip().lower().translate(_SUPERSCRIPTS) for each in (response, answer)]
    said, right = (" ".join(each.split()) for each in lower)
    if right in said or said in right:
        return True
    numbers = [re.search(r"\d+\.?\d*", each) for each in lower]
    if numbers[0] and numbers[1] and abs(float(numbers[0][0]) - float(numbers[1][0])) < 0.01:
        return True
    words, said_words = _words(right), _words(said)
    if 2 <= len(words) <= 5 and all(word in said_words for word in words if len(word) > 2):
        return True
    orders = [_order(each) for each in (said, right)]
    return orders[0] != "" and orders[0] == orders[1]


def _words(text: str) -> list[str]:
    stripped = (word.strip(string.punctuation) for word in text.split())
    return [word for word in stripped if word]


def _order(text: str) -> str:
    """Returns the first "o(...)" of a text, with what is between its brackets; "": none."""
    for found in re.finditer(r"o\s*\(", text):
        end = text.find(")", found.end())
        if end < 0:
            return ""
        if end > found.end():
            return text[found.start() : end + 1]
    return ""


# Judges.

_EXAM = """\
You grade one reply to a question of an exam about a video that you do not see. The right answer is
given, and it is right whatever you know yourself."""
_EXAM_ASKED = """\
Here the data end. Find the final answer of the reply, then say whether it is the right answer: the
same option, or the same thing in whatever words. Reply with one JSON object and nothing else:
{"extracted_answer": "the final answer, or an empty text", "correct": false}"""


def judge_answer(doc: Doc, response: str) -> verdicts.Asking:
    """Asks whether a short answer says what the right one says."""
    return verdicts.by_truth(doc["question"], str(doc["answer"]), response)


def judge_as_authors(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for the answer and whether it is right; only the latter counts."""
    blocks = {
        "question": f"{doc['question']}\n{_lines(doc)}".strip(),
        "right answer": str(doc["answer"]),
        "reply": response,
    }
    reply = yield verdicts.prompt(_EXAM, blocks, _EXAM_ASKED)
    said = verdicts.read_fields(reply, {"extracted_answer": str, "correct": bool})
    return Verdict(said["extracted_answer"], float(said["correct"]))


# Facts.


def accuracy_of_lmms_eval(doc: Any, _: Any) -> float:
    """Returns their percentage; rows of subjects that they do not know are left out."""
    return 100 * metrics.mean(row["correct"] for row in doc if row["category"] in _DISCIPLINES)


def of_known_subjects(records: Sequence[Record]) -> dict[str, float]:
    """Returns the means over the records of known subjects."""
    known = [record for record in records if record.sample.tags["discipline"] != "other"]
    return metrics.with_tags("discipline")(known)


def accuracy_of_authors(doc: Doc, response: Any) -> Verdict:
    """Returns the answers and the share of right ones that replies of their judge tell."""
    answers: Any = [reply["extracted_answer"] for reply in response]
    return Verdict(answers, sum(reply["correct"] for reply in response) / doc["n"])


def messages_of_authors(doc: Doc, _: Any) -> Any:
    """Says that a judge is asked."""
    return Verdict(JUDGE, None, "judge_messages")


def verdict_of_lmms_eval(doc: Doc, response: Any) -> Verdict:
    """Returns their verdict; one of their functions says how it was found instead of what."""
    verdict = by_lmms_eval(doc, response or "")
    is_how = doc.get("scorer", "").endswith("evaluate_with_llm_judge")
    return verdict._replace(extracted="rule-based") if is_how else verdict


def fingerprint_of_lmms_eval(doc: Doc, _: Any) -> Fingerprint:
    """Returns that of a prompt, with reasons or without."""
    is_cot = doc.get("scorer", "").endswith("_cot")
    return Fingerprint.of(
        _text_of_lmms_eval(doc, _COT_OF_LMMS_EVAL if is_cot else _DIRECT_OF_LMMS_EVAL)
    )


def fingerprint_of_authors(doc: Doc, _: Any) -> Fingerprint:
    """Returns that of a prompt, with reasons or without."""
    return Fingerprint.of(_text(doc, _DIRECT if doc["variant"] == "direct-output" else _COT))


TASK = Task(
    name="mmvu",
    source=Source(
        hub=("yale-nlp/MMVU", "lmms-eval/MMVU"),
        n=1000,
        counts={
            "question_type": {_CHOICE: 625, "open-ended": 375},
            "discipline": {
                "Science": 319,
                "Engineering": 348,
                "Healthcare": 192,
                "Humanities_and_Social_Science": 141,
            },
        },
        chance=20.0,
        frames="train",
        judge="short answers (official: all)",
    ),
    load=load,
    prompts={
        "official": ask,
        "official_direct": ask_directly,
        "lmms_eval": ask_as_lmms_eval,
        "lmms_eval_cot": ask_for_reasons_as_lmms_eval,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_answer,
        "official": by_authors,
        "lmms_eval": by_lmms_eval,
        "easyvideor1": easyvideor1.rule(_row),
        "easyvideor1_judge": reference.rule(_row),
    },
    judges={
        "evr1": judge_answer,
        "official": judge_as_authors,
        "easyvideor1_judge": reference.judge(_row),
    },
    aggregates={
        "evr1": metrics.with_tags("question_type", "discipline", "subject"),
        "lmms_eval": of_known_subjects,
    },
    facts={
        ("case", "lmms_eval"): verdict_of_lmms_eval,
        ("case", "official"): messages_of_authors,
        ("case", "easyvideor1_judge"): easyvideor1.for_judge,
        ("aggregate", "lmms_eval"): accuracy_of_lmms_eval,
        ("aggregate", "official"): accuracy_of_authors,
        ("prompt", "official"): fingerprint_of_authors,
        ("prompt", "lmms_eval"): fingerprint_of_lmms_eval,
    },
    differs={"judge_messages": "the case tells the roles of messages; ours, that a judge is asked"},
)

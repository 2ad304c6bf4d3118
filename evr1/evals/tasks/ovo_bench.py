"""OVO-Bench: what has been seen, what is seen, and whether enough has been seen, up to a moment.

Source: JoeLeelyf/OVO-Bench, `data/ovo_bench_new.json` of its repository, and `chunked_videos`; or
kcz358/OVOBench. Nine tasks have lettered options; three ask again and again while a video goes on
(`test_info`): how often (REC), whether a step is being done (SSR), whether a question can be
answered by now (CRR). The headline is the mean over three categories of the means of their tasks.
"""

import math
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    KIT_STOPS,
    STOPS,
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
from evr1.evals.tasks.kits import easyvideor1, streamforest

CATEGORIES = {
    "backward": ("EPM", "HLD", "ASI"),
    "realtime": ("OJR", "STU", "OCR", "ATR", "ACR", "FPD"),
    "forward": ("REC", "SSR", "CRR"),
}
_CATEGORY_OF = {task: name for name, tasks in CATEGORIES.items() for task in tasks}
_FORWARD = CATEGORIES["forward"]
_POLARITY = ("No", "Yes")

_BARE = "Do not include any additional text or explanation in your response.\n"
_YES_NO = f"Answer only with “Yes” or “No”.\n{_BARE}"
_PROMPTS = {
    "REC": (
        "\nYou're watching a video in which people may perform a certain type of action repetively."
        " \nThe person performing this kind of action are referred to as 'they' in the following "
        "statement.\nYou're task is to count how many times have different people in the video "
        "perform this kind of action in total.\nOne complete motion counts as one. \n"
        "Now, answer the following question: {}\nProvide your answer as a single number "
        f"(e.g., 0, 1, 2, 3…) indicating the total count.\n{_BARE}"
    ),
    "SSR": (
        "\nYou're watching a tutorial video which contain a sequential of steps. \n"
        "The following is one step from the whole procedures: \n{}\nYour task is to determine if "
        f"the man or woman in the video is currently performing this step.\n{_YES_NO}"
    ),
    "CRR": (
        "\nYou're responsible of answering questions based on the video content. \nThe following "
        "question are relevant to the latest frames, i.e. the end of the video.\n{}\n"
        "Decide whether existing visual content, especially latest frames, i.e. frames that near "
        "the end of the video, provide enough information for answering the question.\n" + _YES_NO
    ),
}
_CHOOSE = (
    "\nQuestion: {}\nOptions:\n{}\n\nRespond only with the letter corresponding to your chosen "
    f"option (e.g., A, B, C). \n{_BARE}"
)


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions; the doc of a repeated one holds its own moment in `test_info` alone."""
    names = ("data/ovo_bench_new.json", "ovo_bench_new.json", "*/test*.parquet")
    is_whole = (folder / "src_videos").exists() and not (folder / "chunked_videos").exists()
    for where, row in files.rows(folder, *names):
        number, task, video = (files.field(row, name, where) for name in ("id", "task", "video"))
        if task not in _CATEGORY_OF:
            raise ValueError(f"{where}: task {task!r} is none of {', '.join(_CATEGORY_OF)}")
        moments = files.field(row, "test_info", where) if task in _FORWARD else [None]
        for place, moment in enumerate(moments):
            doc = row if moment is None else {**row, "test_info": [moment]}
            name = f"{number}" if moment is None else f"{number}_{place}"
            _check(doc, where)
            end_s = float(math.ceil(files.field(moment or row, "realtime", where)))
            media = Media(f"chunked_videos/{name}.mp4")
            if is_whole:
                media = Media(f"src_videos/{video}", end_s=end_s)
            tags = {"task": task, "category": _CATEGORY_OF[task]}
            yield Sample(name, doc, (media,), tags, video=str(video))


def _check(doc: Doc, where: str) -> None:
    if doc["task"] == "REC":
        if not isinstance(doc["test_info"][0].get("count"), int):
            raise ValueError(f"{where}: count {doc['test_info'][0].get('count')!r} is no integer")
    elif doc["task"] in _FORWARD:
        if doc["test_info"][0].get("type") not in (0, 1):
            raise ValueError(f"{where}: type {doc['test_info'][0].get('type')!r} is not 0 or 1")
    elif not (isinstance(doc.get("gt"), int) and 0 <= doc["gt"] < len(doc["options"])):
        raise ValueError(f"{where}: gt {doc.get('gt')!r} is the place of no option")


def question(doc: Doc) -> str:
    """Returns what is asked, or the step that is asked about."""
    if doc["task"] == "REC":
        return f"How many times did they {doc['activity']}?"
    return doc["test_info"][0]["step"] if doc["task"] == "SSR" else doc["question"]


def _text(doc: Doc) -> str:
    if doc["task"] in _PROMPTS:
        return _PROMPTS[doc["task"]].format(question(doc))
    options = "; ".join(ours.lettered(doc["options"]))
    return _CHOOSE.format(doc["question"], f"{options};")


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt."""
    return Show(), _text(sample.doc)


def fingerprint(doc: Doc, response: Any) -> Fingerprint:
    """Returns that of the authors' text."""
    return Fingerprint.of(_text(doc))


def as_reference(doc: Doc) -> dict[str, Any]:
    """Returns the row of the reference's files."""
    row = {"problem_type": doc["task"], "problem": question(doc)}
    if doc["task"] not in _FORWARD:
        options = ours.lettered(doc["options"], "{letter}: {text}")
        row |= {"problem_type": easyvideor1.MULTIPLE_CHOICE, "options": options}
    elif doc["task"] != "REC":
        row["ovo_type"] = doc["test_info"][0]["type"]
    return row | {"solution": f"<answer>{gold(doc)}</answer>"}


def gold(doc: Doc) -> str:
    """Returns the right letter, number, Yes or No."""
    if doc["task"] not in _FORWARD:
        return string.ascii_uppercase[doc["gt"]]
    moment = doc["test_info"][0]
    return str(moment["count"]) if doc["task"] == "REC" else _POLARITY[moment["type"]]


# Rules.


def by_ours(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    truth, asked = gold(doc), question(doc)
    if doc["task"] in _FORWARD:
        kind = "numerical" if doc["task"] == "REC" else "boolean"
        return ours.verdict(response, kind, truth, problem=asked)
    return ours.choice(response, asked, doc["options"], truth)


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores what occurs: the letter, Yes or No in any word; the digits must be the number's.

    A row of LiveCC's file has an answer alone, and the response must begin with it.
    """
    if "test_info" not in doc and "gt" not in doc:
        return Verdict(None, float(response.startswith(doc["answer"])))
    truth = gold(doc)
    if doc["task"] == "REC":
        return Verdict(None, float("".join(filter(str.isdecimal, response)) == truth))
    is_short = doc["task"] in _FORWARD and response == truth[0]
    return Verdict(None, float(is_short or truth in response))


def by_streamforest(doc: Doc, response: str) -> Verdict:
    """Scores the first lone letter, the only integer, or a Yes or No that occurs."""
    truth = gold(doc)
    if doc["task"] == "REC":
        is_right = streamforest.read_count(response) == int(truth)
    elif doc["task"] in _FORWARD:
        is_right = truth.lower() in streamforest.read_phrase(response)
    else:
        is_right = streamforest.read_letter(response) == truth
    return Verdict(None, float(is_right))


# Aggregates.


def aggregate(records: Sequence[Record]) -> metrics.Means:
    """Returns the three averages that are in use, then the means of categories and tasks."""
    return _averages(metrics.by_tag(records, "task")) | {
        "micro": metrics.overall(records)["accuracy"]
    }


def _averages(by_task: metrics.Means) -> metrics.Means:
    """Returns averages of means by "task/NAME"; categories without a task are left out."""
    categories = {
        name: metrics.mean(by_task[f"task/{task}"] for task in tasks if f"task/{task}" in by_task)
        for name, tasks in CATEGORIES.items()
        if any(f"task/{task}" in by_task for task in tasks)
    }
    seen = [categories[name] for name in ("backward", "realtime") if name in categories]
    return {
        "mean_of_categories": metrics.macro(categories),
        "mean_of_tasks": metrics.macro(by_task),
        "mean_of_backward_and_realtime": metrics.mean(seen),
        **{f"category/{name}": value for name, value in categories.items()},
        **by_task,
    }


def _task_means(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the mean of each task, in order, over rows of the authors' result files."""
    values: dict[str, list[float]] = {}
    for row in results:
        name = row["task"]
        if name in _FORWARD:
            docs = [({"task": name, "test_info": [m]}, m["response"]) for m in row["test_info"]]
        else:
            place = string.ascii_uppercase.index(row["ground_truth"])
            docs = [({"task": name, "gt": place}, row["response"])]
        scores = [by_authors(doc, response or "").score or 0.0 for doc, response in docs]
        values.setdefault(name, []).extend(scores)
    return {name: metrics.mean(scores) for name, scores in values.items()}


def mean_of_tasks(doc: Any, response: Any) -> float:
    """Returns lmms-eval's number for one category, in percent."""
    return 100 * metrics.macro(_task_means(response))


def printed(doc: Any, response: Any) -> list[str] | Verdict:
    """Returns the lines that the authors' script prints for a result file."""
    if not isinstance(response, Mapping):  # it names a file of theirs
        return Verdict(None, None, "released_responses")
    lines, averages = [], []
    for name in CATEGORIES:
        means = _task_means(response[name])
        lines += [f"Task: {task}, Acc: {100 * mean:.2f}" for task, mean in means.items()]
        averages.append(metrics.macro(means))
        lines.append(f"{name.capitalize()} Avg.: {100 * averages[-1]:.2f}")
    return [*lines, f"Total Avg.: {100 * metrics.mean(averages):.2f}"]


def by_lmms_eval(doc: Doc, response: str | None) -> str | Verdict:
    """Scores as the authors do; a repeated question whose call failed is left out."""
    if response is None and doc["task"] in _FORWARD:
        return "left out of the mean"
    return by_authors(doc, response or "")


def by_streamforest_call(doc: Doc, response: str | None) -> Verdict:
    """Scores by StreamForest's rule, which stops where a call has failed."""
    if response is None:
        return Verdict(None, None, STOPS)
    return by_streamforest(doc, response)


TASK = Task(
    name="ovo_bench",
    source=Source(
        hub=("JoeLeelyf/OVO-Bench", "kcz358/OVOBench"),
        n=3035,
        counts={
            "task": {
                "EPM": 297,
                "HLD": 186,
                "ASI": 148,
                "OJR": 184,
                "STU": 178,
                "OCR": 149,
                "ATR": 116,
                "ACR": 109,
                "FPD": 101,
                "REC": 698,
                "SSR": 629,
                "CRR": 240,
            },
            "category": {"backward": 631, "realtime": 837, "forward": 1567},
        },
        metric="mean of 3 categories",
        frames="ovo_bench",
    ),
    load=load,
    prompts={
        "official": ask,
        "lmms_eval": ask,
        "easyvideor1": easyvideor1.prompt(as_reference),
        "easyvideor1_thinking": easyvideor1.prompt(as_reference, thinking=True),
    },
    rules={
        "evr1": by_ours,
        "official": by_authors,
        "easyvideor1": easyvideor1.rule(as_reference),
        "lmms_eval": by_authors,
        "streamforest": by_streamforest,
    },
    aggregates=dict.fromkeys(
        ("evr1", "official", "easyvideor1", "lmms_eval", "streamforest"), aggregate
    ),
    facts={
        ("prompt", "official"): fingerprint,
        ("prompt", "easyvideor1"): easyvideor1.fingerprint,
        ("aggregate", "official"): printed,
        ("public_file", "official"): printed,
        ("aggregate", "lmms_eval"): mean_of_tasks,
        ("aggregate", "streamforest"): streamforest.answered_percent,
        ("case", "lmms_eval"): by_lmms_eval,
        ("case", "streamforest"): by_streamforest_call,
    },
    differs=KIT_STOPS
    | {
        "released_responses": "the row is about responses that the authors have released, and "
        "that are in a file of their repository"
    },
)

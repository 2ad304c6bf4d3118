"""Tells what a benchmark is, from its declaration and an example."""

import argparse
import contextlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evr1.evals import presets
from evr1.evals.examples import EXAMPLES
from evr1.evals.tasks import TASK_HELP, find, metrics
from evr1.evals.tasks.base import Doc, Part, Record, Sample, Show, Subtitles, Task

# Where rows have the right answer; the first that is there and not empty.
_GOLD = ("answer", "Answer", "ground_truth", "gt", "correct_choice", "timestamp")
_GOLD += ("mc_answer", "test_info")


def describe(task: Task, sample: Sample | None = None) -> Iterator[str]:
    """Yields the lines that tell what a task is.

    Args:
        task: the benchmark.
        sample: a question to show prompts of; None: the made-up one.
    """
    sample = sample or EXAMPLES.get(task.name)
    source = task.source
    about = task.about or inspect.getdoc(inspect.getmodule(task.load)) or ""
    yield f"# {task.name}"
    yield about
    yield ""
    yield f"hub: {', '.join(source.hub)}"
    yield f"questions: {source.n}"
    for tag, labels in source.counts.items():
        yield f"  {tag}: {', '.join(f'{label} {count}' for label, count in labels.items())}"
    yield f"chance: {'has no meaning' if source.chance is None else f'{source.chance:g} %'}"
    yield f"metric: {source.metric}"
    if sample is not None:
        yield f"sub-scores: {', '.join(sub_scores(task, sample)) or 'this row cannot be scored'}"
    yield f"frames: {_preset(presets.find(source.frames))}"
    yield f"judge: {source.judge or 'none'}"
    yield f"licence: {source.licence or 'see its page'}"
    yield from _rules(task)
    if sample is None:
        yield f"prompts: {', '.join(task.prompts)} (--data DIR shows them for its first question)"
        return
    for place, (name, prompt) in enumerate(task.prompts.items()):
        yield ""
        yield f"## prompt {name}{' (default)' if place == 0 else ''}"
        yield render(prompt(sample), sample)
        if choices := task.choices.get(name):
            texts = ", ".join(text.strip() for text in choices.continuations)
            yield f"reply: {choices.begin} and the likeliest of {texts}"


def _preset(preset: presets.Preset) -> str:
    return (
        f"{preset.name}: {preset.fps:g} fps, at most {preset.max_frames} frames of "
        f"{preset.max_pixels} pixels, {preset.max_video_tokens} visual tokens a video"
    )


def _rules(task: Task) -> Iterator[str]:
    """Yields a line for each rule, and one for each difference from a kit that is meant."""
    yield "rules:"
    for name, rule in task.rules.items():
        yield f"  {name}: {_first_line(rule)}"
        if name in task.judges:
            yield f"    judge: {_first_line(task.judges[name])}"
        if name in task.aggregates:
            yield f"    {_first_line(task.aggregates[name])}"
    for name, reason in task.differs.items():
        yield f"  differs, {name}: {reason}"


def _first_line(function: Any) -> str:
    return (inspect.getdoc(function) or function.__name__).partition("\n")[0]


def sub_scores(task: Task, sample: Sample) -> list[str]:
    """Returns the names of a result's scores, the headline first; * stands for the labels.

    [] where the row is such that the rule fails.
    """
    profile = next(iter(task.rules))
    aggregate = task.aggregates.get(profile, metrics.overall)
    try:
        means = aggregate([Record(sample, task.rules[profile](sample.doc, ""))])
    except Exception:  # noqa: BLE001  as in scoring
        return []
    labels = {
        f"{tag}/{label}": f"{tag}/*"
        for tag, value in sample.tags.items()
        for label in ((value,) if isinstance(value, str) else value)
    }
    names = {}
    for name in means:
        known = next((known for known in labels if name.endswith(known)), "")
        names[name.removesuffix(known) + labels.get(known, "")] = None
    return list(names)


def asked(task: Task, profile: str, sample: Sample) -> str:
    """Returns `render` of a prompt; "" where the task has none of this name, or it fails."""
    with contextlib.suppress(ValueError):
        if profile in task.prompts:
            return render(task.prompts[profile](sample), sample)
    return ""


def render(parts: tuple[Part, ...], sample: Sample) -> str:
    """Returns a prompt as text, with its media and subtitles in angle brackets.

    Raises:
        ValueError: it shows a medium that the sample has not.
    """
    texts = []
    for part in parts:
        if isinstance(part, Show):
            if not 0 <= part.medium < len(sample.media):
                raise ValueError(
                    f"{sample.id}: its prompt shows medium {part.medium}, counted from 0, of "
                    f"{len(sample.media)}; correct the prompt"
                )
            medium = sample.media[part.medium]
            texts.append(f"<{medium.kind} {medium.path}>\n")
        elif isinstance(part, Subtitles):
            lines = "of the frames" if part.shown_only else "all"
            lines = "between the frames" if part.between_frames else lines
            texts.append(f"{part.start}<subtitle lines, {lines}>{part.end}")
        else:
            texts.append(part)
    return "".join(texts)


def gold(doc: Doc) -> str:
    """Returns the right answer as the row has it; "" where the row holds none, as of a plan.

    >>> gold({"answer": "B"}), gold({"timestamp": [1.5, 4]}), gold({"states": []})
    ('B', '[1.5, 4]', '')
    """
    if doc.get("qa"):
        doc = doc["qa"][0]
    if "boxes" in doc and "span" in doc:
        return json.dumps({"span": doc["span"], "boxes": doc["boxes"]})
    values = (doc[name] for name in _GOLD if doc.get(name) not in (None, ""))
    value = next(values, "")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def add_command(commands: Any) -> None:
    """Adds `show` to the commands."""
    command = commands.add_parser("show", help="what a task is")
    command.add_argument("task", help=TASK_HELP)
    command.add_argument("--data", help="show the prompts of this folder's first question")
    command.set_defaults(run=run)


def run(flags: argparse.Namespace) -> None:
    """Prints what a task is."""
    task = find(flags.task)
    sample = None
    if flags.data:
        sample = next(iter(task.load(Path(flags.data))), None)
        if sample is None:
            raise ValueError(f"{flags.data} holds no question of {task.name}")
    print("\n".join(describe(task, sample)))

"""`logs/<task>.eval` of a scored run, which `inspect view` opens; written by inspect-ai.

A response is a sample there (of k, the second one is its epoch 2), and a scoring profile a scorer.
"""

import datetime
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals import results, samples, scoring, show
from evr1.evals.results import TaskResults
from evr1.evals.samples import Answer
from evr1.evals.scoring import Result
from evr1.evals.tasks.base import Task, Verdict

FOLDER = "logs"
_STOPS = {"stop": "stop", "length": "max_tokens"}  # our names of why a response ends, and theirs


def is_available() -> bool:
    """Returns whether inspect-ai is installed; it is the extra `inspect`."""
    return importlib.util.find_spec("inspect_ai") is not None


def write(
    folder: Path,
    scored: Sequence[TaskResults],
    manifest: Mapping[str, Any],
    date: datetime.datetime | None = None,
) -> list[Path]:
    """Writes a log for each task, over an older one; returns their paths.

    Args:
        folder: of the run.
        scored: tasks.
        manifest: of the run.
        date: of the logs; default: now.
    """
    date = date or datetime.datetime.now(datetime.UTC)
    (folder / FOLDER).mkdir(exist_ok=True)
    paths = []
    for each in scored:
        path = folder / FOLDER / f"{each.task.name}.eval"
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")  # as in rewards.files
        try:
            _log().write_eval_log(to_log(each, manifest, date), str(part), format="eval")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        paths.append(path)
    return paths


@functools.cache
def _log() -> Any:
    return importlib.import_module("inspect_ai.log")  # 1.5 s, and most commands need no log


@functools.cache
def _model() -> Any:
    return importlib.import_module("inspect_ai.model")


def to_log(each: TaskResults, manifest: Mapping[str, Any], date: datetime.datetime) -> Any:
    """Returns an `inspect_ai.log.EvalLog` of a task; one of a partial run has status "error".

    Args:
        each: the scores of the task.
        manifest: of the run.
        date: of the log.
    """
    log, first = _log(), each.results[0]
    model = str(manifest.get("model") or "unknown")
    partial = f"partial: {first.scored.n_scored} of {first.n_expected} samples are scored"
    if each.results[0].failure:
        partial += f"; {first.failure}"
    return log.EvalLog(
        status="error" if first.is_partial else "success",
        error=_error(partial) if first.is_partial else None,
        eval=_spec(each, manifest, model, date),
        results=log.EvalResults(
            total_samples=first.n_expected * each.settings.repeats,
            completed_samples=sum(len(answer.responses) for answer in each.answers),
            scores=[_scores(result) for result in each.results],
        ),
        stats=log.EvalStats(model_usage={model: _usage(each.answers)}),
        samples=list(_samples(each, model)),
    )


def _spec(
    each: TaskResults, manifest: Mapping[str, Any], model: str, date: datetime.datetime
) -> Any:
    log, version = _log(), importlib.metadata.version("evr1")
    mark = scoring.fingerprint(each.answers)
    return log.EvalSpec(
        run_id=mark[:22],  # equal answers have equal names
        eval_id=mark[:22],
        task_id=mark[:22],
        created=date.isoformat(),
        task=each.task.name,
        task_version=version,
        task_file=each.task.file or None,
        task_args={"prompt": each.settings.prompt, "preset": each.settings.preset},
        dataset=log.EvalDataset(
            name=each.task.source.hub[0],
            samples=each.results[0].n_expected,
            sample_ids=[answer.sample.id for answer in each.answers],
        ),
        model=model,
        config=log.EvalConfig(epochs=each.settings.repeats),
        packages={"evr1": version},
        metadata={"seed": manifest.get("seed"), "git_hash": manifest.get("git_hash")},
    )


def _scores(result: Result) -> Any:
    """Returns the metrics of a profile; the headline's standard error stands beside it."""
    log, scored, metrics = _log(), result.scored, {}
    for place, (name, own) in enumerate(results.names(result).items()):
        metric = result.metrics[own]
        if not math.isfinite(metric.value):
            continue
        spread = {k: v for k, v in metric._asdict().items() if k != "value" and math.isfinite(v)}
        metrics[name] = log.EvalMetric(name=name, value=metric.value, metadata=spread)
        if place == 0 and "stderr" in spread:
            metrics["stderr"] = log.EvalMetric(name="stderr", value=metric.stderr)
    return log.EvalScore(
        name=scored.profile,
        scorer=scored.profile,
        scored_samples=scored.n_scored,
        unscored_samples=scored.n_error + scored.n_unjudged,
        metrics=metrics,
        metadata=results.counts(result),
    )


def _usage(answers: Sequence[Answer]) -> Any:
    tokens = sum(sum(answer.tokens) for answer in answers)
    return _model().ModelUsage(output_tokens=tokens, total_tokens=tokens)


def _error(message: str) -> Any:
    return _log().EvalError(message=message, traceback="", traceback_ansi="")


def _samples(each: TaskResults, model: str) -> Iterator[Any]:
    log, theirs = _log(), _model()
    verdicts = {
        (record.sample.id, epoch, result.scored.profile): record.verdict
        for result in each.results
        for epoch, records in enumerate(result.scored.rounds)
        for record in records
    }
    profiles = [result.scored.profile for result in each.results]
    for answer in sorted(each.answers, key=lambda answer: answer.sample.id):
        id, text = answer.sample.id, show.asked(each.task, answer.prompt, answer.sample)
        common = {
            "id": id,
            "input": text,
            "target": show.gold(answer.sample.doc),
            "metadata": _metadata(answer),
            "total_time": answer.seconds,
        }
        asked = theirs.ChatMessageUser(content=text)
        if answer.reason:
            error = _error(f"{answer.reason}: {answer.detail}".removesuffix(": "))
            yield log.EvalSample(epoch=1, messages=[asked], error=error, **common)
        for epoch, response in enumerate(answer.responses):
            stop = _STOPS[answer.finishes[epoch]]
            output = theirs.ModelOutput.from_content(model, response, stop)
            tokens = answer.tokens[epoch]
            output.usage = theirs.ModelUsage(output_tokens=tokens, total_tokens=tokens)
            scores = {name: verdicts.get((id, epoch, name)) for name in profiles}
            yield log.EvalSample(
                epoch=epoch + 1,
                messages=[asked, output.message],
                output=output,
                scores={
                    name: to_score(each.task, v) for name, v in scores.items() if v is not None
                },
                **common,
            )


def _metadata(answer: Answer) -> dict[str, Any]:
    """Returns what a line of our samples holds beside the responses."""
    row = json.loads(samples.encode(answer))
    left_out = ("id", "task", "responses", "tokens", "seconds")
    return {name: value for name, value in row.items() if name not in left_out}


def to_score(task: Task, verdict: Verdict) -> Any:
    """Returns an `inspect_ai.scorer.Score`: NaN, which is in no mean, where the rule gives none.

    Args:
        task: the benchmark.
        verdict: of one of its rules.
    """
    read = _text(verdict.extracted)
    told = [f"read: {read}" if read else "nothing was read"]
    if verdict.score is None:
        told.append("the rule gives no score")
    if verdict.differs:
        told.append(f"differs from the kit: {task.differs.get(verdict.differs, verdict.differs)}")
    return importlib.import_module("inspect_ai.scorer").Score(
        value=math.nan if verdict.score is None else verdict.score,
        answer=read or None,
        explanation="; ".join(told),
    )


def _text(extracted: Any) -> str:
    if isinstance(extracted, str):
        return extracted
    is_empty = extracted is None or extracted in ([], ())
    return "" if is_empty else json.dumps(extracted, ensure_ascii=False, default=str)

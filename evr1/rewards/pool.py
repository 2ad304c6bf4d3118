"""Scoring in processes of its own, so that a rollout batch is scored while the next one is made."""

import concurrent.futures
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evr1.formats import problem_types
from evr1.rewards import find_scorer, parse
from evr1.rewards.base import (
    DEFAULT_WEIGHTS,
    RowLike,
    Score,
    Status,
    Task,
    Weights,
    make_task,
)
from evr1.rewards.extra import absolute, all_scorers
from evr1.rewards.formulas import symbolic
from evr1.rewards.worker import READY

CHUNK = 32  # items a worker gets at once
START_TIMEOUT_S = 60.0


class RewardPool:
    """Worker processes that score responses; one that hangs or dies is replaced.

    Use as a context manager, or call `close`. Safe to call from any thread.
    """

    def __init__(
        self,
        workers: int = 2,
        timeout_s: float = 2.0,
        weights: Weights = DEFAULT_WEIGHTS,
        extra: str = "",
        box_scale: str = "",
        think_open: bool = False,
    ) -> None:
        """Starts the workers and waits until they serve.

        Args:
            workers: number of processes.
            timeout_s: an item that takes longer gets status `timeout`.
            weights: of accuracy and format in the overall score.
            extra: a user's file of further scorers, see `evr1.rewards.extra`.
            box_scale: the frame that boxes are asked in; empty: the one of the ground truth.
            think_open: prompts leave a think block open, see `evr1.rewards.score`.

        Raises:
            ValueError: an argument is out of range, or the user's file cannot be used.
            ChildProcessError: a worker does not start.
        """
        if workers < 1 or timeout_s <= 0:
            raise ValueError(
                f"rewards.workers={workers} must be at least 1 and rewards.timeout_s={timeout_s} "
                "above 0"
            )
        weights.check()
        self._scorers = all_scorers(extra)
        self._box_scale, self._think_open = box_scale, think_open
        self._chunks: queue.SimpleQueue[_Chunk | None] = queue.SimpleQueue()
        self._workers = [_Worker(self._chunks, timeout_s, weights, extra) for _ in range(workers)]
        for worker in self._workers:
            worker.started.result(timeout=START_TIMEOUT_S)

    def submit(
        self, responses: Sequence[str | None], rows: Sequence["RowLike | Mapping[str, Any]"]
    ) -> "concurrent.futures.Future[list[Score]]":
        """Starts scoring responses[i] against rows[i]; the future gives the scores in order.

        Raises:
            ValueError: lengths differ, a row has no scorer, or an answer that is no JSON.
        """
        tasks = [make_task(row, self._box_scale, self._canonical, self._think_open) for row in rows]
        if len(responses) != len(tasks):
            raise ValueError(f"{len(responses)} responses for {len(tasks)} rows; give one row each")
        for problem_type in {t.problem_type for t in tasks}:
            find_scorer(problem_type, self._scorers)
        batch = _Batch(len(tasks))
        items = [_encode(response, task) for response, task in zip(responses, tasks, strict=True)]
        for start in range(0, len(items), CHUNK):
            self._chunks.put(_Chunk(batch, start, items[start : start + CHUNK]))
        return batch.future

    def score_batch(
        self, responses: Sequence[str | None], rows: Sequence["RowLike | Mapping[str, Any]"]
    ) -> list[Score]:
        """Returns the scores of responses[i] against rows[i], in order.

        Raises:
            ValueError: lengths differ, or a row has no scorer.
        """
        return self.submit(responses, rows).result()

    def _canonical(self, problem_type: object) -> str:
        return problem_types.canonical(problem_type, self._scorers)

    def close(self) -> None:
        """Ends the workers once the submitted work is done."""
        for _ in self._workers:
            self._chunks.put(None)
        for worker in self._workers:
            worker.thread.join()

    def __enter__(self) -> "RewardPool":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Batch:
    """The scores of one submission as they come in."""

    def __init__(self, size: int) -> None:
        self.future: concurrent.futures.Future[list[Score]] = concurrent.futures.Future()
        self._scores: list[Score | None] = [None] * size
        self._missing = size
        self._lock = threading.Lock()
        if size == 0:
            self.future.set_result([])

    def fail(self, error: Exception) -> None:
        with self._lock:
            if not self.future.done():
                self.future.set_exception(error)

    def put(self, start: int, scores: Sequence[Score]) -> None:
        with self._lock:
            self._scores[start : start + len(scores)] = scores
            self._missing -= len(scores)
            is_complete = self._missing == 0 and not self.future.done()
        if is_complete:
            self.future.set_result([s for s in self._scores if s is not None])


class _Chunk:
    """Some items of a batch, scored by one worker."""

    def __init__(self, batch: _Batch, start: int, items: list[str]) -> None:
        self.batch = batch
        self.start = start
        self.items = items


class _Worker:
    """A thread that feeds one process and replaces it when it dies."""

    def __init__(
        self,
        chunks: "queue.SimpleQueue[_Chunk | None]",
        timeout_s: float,
        weights: Weights,
        extra: str,
    ) -> None:
        self._chunks = chunks
        self._timeout_s = timeout_s
        self._weights = json.dumps(weights)
        self._extra = [absolute(extra)] if extra else []
        self.started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.thread = threading.Thread(target=self._run, name="rewards", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._process = self._start()
        except OSError as e:
            self.started.set_exception(e)
            return
        self.started.set_result(None)
        while (chunk := self._chunks.get()) is not None:
            try:
                scores: list[Score] = []
                while len(scores) < len(chunk.items):
                    scores += self._attempt(chunk.items[len(scores) :])
            except (OSError, ValueError) as e:
                chunk.batch.fail(e)  # whoever waits for the scores is told
                continue
            chunk.batch.put(chunk.start, scores)
        self._process.communicate()

    def _attempt(self, items: list[str]) -> Iterator[Score]:
        """Yields scores of the items up to and with the first that the process does not survive."""
        request = f'{{"weights": {self._weights}, "items": [{", ".join(items)}]}}\n'
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        try:
            stdin.write(request)
            stdin.flush()
        except BrokenPipeError:
            pass  # it died while idle: reading tells how
        for _ in items:
            line = stdout.readline()
            if not line.endswith("\n"):
                yield self._replace()
                return
            overall, accuracy, form, status, extracted, detail, _ = json.loads(line)
            yield Score(overall, accuracy, form, Status(status), extracted, detail)

    def _replace(self) -> Score:
        """Starts a new process; returns the score of the item that ended the old one."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):  # stdin may hold a request unsent
                assert pipe
                pipe.close()
        self._process = self._start()
        if code == -signal.SIGALRM:
            return Score(0.0, 0.0, 0.0, Status.TIMEOUT, detail=f"over {self._timeout_s} s")
        return Score(0.0, 0.0, 0.0, Status.ERROR, detail=f"the scoring process ended with {code}")

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "evr1.rewards.worker", str(self._timeout_s), *self._extra],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="surrogatepass",
            env=_environment() if self._extra else symbolic.child_environment(),
            start_new_session=True,  # an interrupt at the terminal is the trainer's to handle
        )
        assert process.stdout
        if process.stdout.readline() != READY:
            process.communicate()
            raise ChildProcessError(
                f"a scoring process ended with {process.returncode} at its start; see its message "
                "above"
            )
        return process


def _environment() -> dict[str, str]:
    """Returns the environment of a worker that finds the same modules as this process."""
    env = symbolic.child_environment()
    path = [env["PYTHONPATH"], *(str(Path(entry).resolve()) for entry in sys.path)]
    return {**env, "PYTHONPATH": os.pathsep.join(path)}


def _encode(response: str | None, task: Task) -> str:
    """Returns an item as JSON: the response, the task without its extra fields, and these."""
    seen, think_open = parse.last_part(response, task.think_open)
    try:
        item = json.dumps((seen, task._replace(think_open=think_open)[:-1]), default=_number)
    except TypeError as e:
        raise ValueError(f"the answer {task.answer!r} cannot be written as JSON; correct it") from e
    extra = json.dumps(dict(task.extra), default=lambda value: _number(value, str))
    return f"{item[:-1]}, {extra}]"


def _number(value: Any, otherwise: Callable[[Any], Any] | None = None) -> Any:
    """Returns arrays and NumPy numbers, which rows from Parquet hold, as lists and numbers."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if otherwise is None:
        raise TypeError(f"a {type(value).__name__}")
    return otherwise(value)

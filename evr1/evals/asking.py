"""Asks a judge about the responses of a run that rules leave to one, prompt by prompt."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from evr1.evals import judgements, scoring
from evr1.evals.judgements import Judgement, Open, Said
from evr1.evals.samples import Answer, Run
from evr1.evals.tasks.base import Task, Verdict
from evr1.rewards.base import Status
from evr1.rewards.judging.chat import Chat, Prompt, Reply

_MAX_ALIKE = 32  # failures in a row, for the same reason: then nothing will come


class Question(NamedTuple):
    """A response that a rule leaves to a judge."""

    task: Task
    profile: str
    answer: Answer
    place: int  # of the response

    def settle(self, name: str, said: Said) -> Verdict | Open:
        """Returns what a judge makes of the response, or the prompt that it waits for.

        Raises:
            ValueError: the row cannot be judged.
        """
        response = scoring.seen(self.answer, self.profile)[self.place]
        judge, doc = self.task.judges[self.profile], self.answer.sample.doc
        try:
            return judgements.settle(judge, doc, response, name, said.replies)
        except Exception as error:  # a judge may be a user's: it may fail in any way
            where = f"{self.task.name}: {self.profile} cannot ask about {self.answer.sample.id}"
            raise ValueError(
                f"{where}: {error!r}; its doc is no row of the official file"
            ) from error


def find_questions(
    run: Run, tasks: Sequence[str] = (), profiles: Sequence[str] = ()
) -> list[Question]:
    """Returns the responses of a run that rules leave to a judge.

    Args:
        run: see samples.read_run.
        tasks: of the run; none: all of it.
        profiles: of rules; none: all that ask a judge.

    Raises:
        ValueError: the run has no such task, or no task such a profile that asks a judge.
    """
    for name in tasks:
        if name not in run.tasks:
            raise ValueError(f"the run has no task {name!r}; it has {', '.join(run.tasks)}")
    chosen = [scoring.task_of(name, run.manifest) for name in tasks or run.tasks]
    known = {profile for task in chosen for profile in task.judges}
    for profile in profiles:
        if profile not in known:
            there = ", ".join(sorted(known)) or "none"
            raise ValueError(f"no profile {profile!r} asks a judge in these tasks; {there} do")
    return [
        Question(task, profile, answer, place)
        for task in chosen
        for profile in task.judges
        if profile in (profiles or known)
        for answer, verdicts in scoring.verdicts_of(task, profile, run.tasks[task.name].answers)
        for place, verdict in enumerate(verdicts)
        if scoring.is_left(verdict)
    ]


class Docket:
    """Responses before a judge: what it has ruled, and what it is still to be asked."""

    def __init__(self, questions: Sequence[Question], name: str, said: Said):
        """Settles what the judge's replies so far settle.

        Args:
            questions: see find_questions.
            name: of the judge.
            said: its replies so far; new ones are added.

        Raises:
            ValueError: a row cannot be judged.
        """
        self._questions = questions
        self._name = name
        self._said = said
        self._states = [question.settle(name, said) for question in questions]

    @property
    def is_open(self) -> bool:
        """Whether a response waits for a reply."""
        return any(isinstance(state, Open) for state in self._states)

    def counts(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Returns how many responses are judged, and how many there are, by task and profile."""
        out: dict[tuple[str, str], tuple[int, int]] = {}
        for question, state in zip(self._questions, self._states, strict=True):
            pair = question.task.name, question.profile
            judged, total = out.get(pair, (0, 0))
            out[pair] = judged + isinstance(state, Verdict), total + 1
        return out

    def ask(
        self, chat: Chat, keep: Callable[[Judgement], None], limit: int | None = None
    ) -> tuple[int, Counter[str]]:
        """Asks until no prompt is left that was not asked in this call.

        Args:
            chat: the judge.
            keep: takes what it replies, as it comes.
            limit: prompts that are asked at most; None: any number.

        Returns:
            How many prompts were asked, and why some have no reply that can be read.

        Raises:
            ValueError: the judge fails again and again.
        """
        asked: set[str] = set()
        failures: Counter[str] = Counter()
        while limit is None or len(asked) < limit:
            left = self._left(asked)
            keys = list(left)[: None if limit is None else limit - len(asked)]
            if not keys:
                break
            asked.update(keys)
            prompts = [Prompt(left[key][1]) for key in keys]
            for place, reply in _replies(chat, prompts):
                problem = _failure(reply)
                if not problem:
                    judgement = self._judgement(keys[place], left[keys[place]][0], reply.text)
                    keep(judgement)
                    problem = judgement.problem and f"unreadable: {judgement.problem}"
                if problem:
                    failures[problem] += 1
            self._settle(set(keys))
        return len(asked), failures

    def _left(self, asked: set[str]) -> dict[str, tuple[Question, str]]:
        """Returns the prompts that were not asked yet, by key, each with the first to ask it."""
        left: dict[str, tuple[Question, str]] = {}
        for question, state in zip(self._questions, self._states, strict=True):
            if isinstance(state, Open):
                key = judgements.key(self._name, state.prompt)
                if key not in asked:
                    left.setdefault(key, (question, state.prompt))
        return left

    def _settle(self, keys: set[str]) -> None:
        for place, (question, state) in enumerate(zip(self._questions, self._states, strict=True)):
            if isinstance(state, Open) and judgements.key(self._name, state.prompt) in keys:
                self._states[place] = question.settle(self._name, self._said)

    def _judgement(self, key: str, question: Question, reply: str) -> Judgement:
        self._said.replies[key] = reply
        state = question.settle(self._name, self._said)
        is_open = isinstance(state, Open)
        return Judgement(
            key=key,
            judge=self._name,
            model=self._said.model,
            task=question.task.name,
            id=question.answer.sample.id,
            profile=question.profile,
            response=question.place,
            reply=reply,
            extracted=None if is_open else state.extracted,
            score=None if is_open else state.score,
            problem=state.problem if is_open else "",
        )


def _failure(reply: Reply) -> str:
    """Returns why a reply is none; "": it is one."""
    if reply.status is not Status.OK:
        return f"{reply.status.value}: {reply.reason}"
    return "the reply was cut off; raise --max-tokens" if reply.is_cut else ""


def _replies(chat: Chat, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Reply]]:
    """Yields replies with a progress bar; stops where all fail alike.

    Raises:
        ValueError: so many in a row failed for the same reason.
    """
    console = Console(stderr=True)
    alike, reason = 0, ""
    with (
        Progress(console=console, disable=not console.is_terminal, transient=True) as bar,
        contextlib.closing(chat.replies(prompts)) as replies,
    ):
        task = bar.add_task("judging", total=len(prompts))
        for place, reply in replies:
            yield place, reply
            bar.update(task, advance=1)
            alike = alike + 1 if reply.reason and reply.reason == reason else bool(reply.reason)
            reason = reply.reason
            if alike == _MAX_ALIKE:
                raise ValueError(
                    f"the judge failed {alike} times in a row ({reason}); mend it, and the same "
                    "command goes on"
                )

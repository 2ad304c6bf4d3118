"""A judge that is a model of our own, sampled greedily on this run's devices."""

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import jax

from evr1.batch.shapes import shapes_of_text
from evr1.config import JudgeSettings
from evr1.data.errors import MediaError
from evr1.data.processor import Processor
from evr1.data.records import Example, Row
from evr1.formats import think_block
from evr1.models.io import hf
from evr1.rewards.base import Status
from evr1.rewards.judging.chat import Prompt, Reply
from evr1.rewards.judging.judge_prompt import Question, Ruling, make_prompt, read_reply
from evr1.sampler.actor import open_actor

_SLOTS_AT_A_TIME = 4  # prompts that are drawn in one go, in slots
_MIN_ANSWER_CHARS = 200  # a prompt that is too long even then is the row's fault


class SampledChat:
    """A model of a HF or Orbax directory that replies to texts, greedily."""

    def __init__(
        self,
        directory: str,
        *,
        dtype: str,
        max_tokens: int,
        max_prompt_tokens: int,
        slots: int,
        mesh: jax.sharding.Mesh | None = None,
    ) -> None:
        """Reads the model.

        Args:
            directory: of the model.
            dtype: of the computation.
            max_tokens: of a reply.
            max_prompt_tokens: of a text with the chat template round it.
            slots: texts that are replied to at the same time.
            mesh: devices to spread the model over; None: the default device.

        Raises:
            ValueError: the directory is no model that evr1 knows.
        """
        self._identity = identity_of(directory)
        processor = Processor.from_hf(str(hf.side_dir(directory)))
        self._actor = open_actor(
            directory,
            processor,
            dtype=dtype,
            mesh=mesh,
            slots=slots,
            window=min(16, max_tokens),
            shapes=shapes_of_text(max_prompt_tokens, processor.geometry, max_tokens),
        )
        self._params = self._actor.load(directory)
        self.max_prompt_tokens = max_prompt_tokens
        self._sampling = self._actor.sampling(temperature=0.0, max_tokens=max_tokens)

    @property
    def identity(self) -> str:
        """The model directory's content, by the sizes and times of its files."""
        return self._identity

    def replies(self, prompts: Sequence[Prompt]) -> Generator[tuple[int, Reply]]:
        """Yields the place of each prompt with its reply, some slots' worth at a time."""
        size = _SLOTS_AT_A_TIME * self._actor.slots
        for start in range(0, len(prompts), size):
            part = [self.encode(prompt.text) for prompt in prompts[start : start + size]]
            yield from ((start + i, reply) for i, reply in self.answers(part))

    def encode(self, text: str) -> Example:
        """Returns a text as a prompt, without special tokens of its own."""
        example = self._actor.encode(
            _row(without_special_tokens(text, self._actor.processor)), raw=True
        )
        assert not isinstance(example, MediaError)  # there are no media
        return example

    def answers(self, examples: Sequence[Example]) -> Iterator[tuple[int, Reply]]:
        """Yields the place of each encoded prompt with its reply; those that are too long first."""
        fit = []
        for place, example in enumerate(examples):
            if len(example.tokens) <= self.max_prompt_tokens:
                fit.append(place)
                continue
            reason = (
                f"a prompt of {len(example.tokens)} tokens is over "
                f"max_prompt_tokens={self.max_prompt_tokens}; raise it or shorten the row"
            )
            yield place, Reply(Status.ERROR, reason=reason)
        rollouts = self._actor.generate(
            self._params, [examples[i] for i in fit], fit, self._sampling
        )
        opening = think_block.OPENING * self._actor.processor.think_open
        texts = self._actor.texts(rollouts)
        states = zip(rollouts.finished.ravel(), rollouts.is_finite.ravel(), strict=True)
        for place, text, (finished, is_finite) in zip(fit, texts, states, strict=True):
            if is_finite:
                yield place, Reply(Status.OK, opening + text, is_cut=not finished)
            else:
                yield place, Reply(Status.ERROR, reason="the judge's logits are not finite")


class SamplerJudge:
    """A judge that asks a model of a HF or Orbax directory, greedily."""

    def __init__(
        self, settings: JudgeSettings, dtype: str, mesh: jax.sharding.Mesh | None = None
    ) -> None:
        """Reads the model.

        Args:
            settings: of the judge; `model` is the directory.
            dtype: of the computation.
            mesh: devices to spread the model over; None: the default device.

        Raises:
            ValueError: the directory is no model that evr1 knows.
        """
        self._chat = SampledChat(
            settings.model,
            dtype=dtype,
            max_tokens=settings.max_tokens,
            max_prompt_tokens=settings.max_prompt_tokens,
            slots=settings.slots,
            mesh=mesh,
        )

    @property
    def identity(self) -> str:
        """The model directory's content, by the sizes and times of its files."""
        return self._chat.identity

    def __call__(self, questions: Sequence[Question]) -> list[Ruling]:
        """Returns one ruling for each question, in order."""
        replies = dict(self._chat.answers([self.encode(question) for question in questions]))
        return [
            read_reply(replies[i].text, question.is_graded)
            if replies[i].status is Status.OK
            else Ruling(replies[i].status, reason=replies[i].reason)
            for i, question in enumerate(questions)
        ]

    def encode(self, question: Question) -> Example:
        """Returns the question as a prompt; its answer is halved until the prompt fits."""
        while True:
            example = self._chat.encode(make_prompt(question))
            if (
                len(example.tokens) <= self._chat.max_prompt_tokens
                or len(question.answer) < 2 * _MIN_ANSWER_CHARS
            ):
                return example
            question = question._replace(answer=question.answer[: len(question.answer) // 2])


def without_special_tokens(text: str, processor: Processor) -> str:
    """Returns the text with a space inside of whatever the tokenizer would read as one added token.

    The prompt's own cleaning knows how such tokens are usually written; this knows the tokenizer.
    """
    added = [t.content for t in processor.tokenizer.get_added_tokens_decoder().values()]
    for token in (t for t in added if len(t) > 1 and not t.isspace()):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _row(text: str) -> Row:
    """Returns a row without media that asks a text as it is."""
    return Row(
        index=0,
        problem=text,
        answer="",
        problem_type="open-ended",
        data_type="text",
        images=(),
        videos=(),
        options=(),
        problem_id="judge",
        video_start=None,
        video_end=None,
        source="judge",
        extra={},
    )


def identity_of(directory: str) -> str:
    """Returns what tells a model's directory from others: the sizes and times of its files."""
    root = Path(directory)
    files = sorted(file for file in root.rglob("*") if file.is_file())
    stats = [(str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return f"model {hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:32]}"

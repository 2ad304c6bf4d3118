"""A judge behind an OpenAI-compatible endpoint."""

from collections.abc import Sequence
from typing import Any

from evr1.rewards.base import Status
from evr1.rewards.judging.chat import Prompt
from evr1.rewards.judging.endpoint import Endpoint
from evr1.rewards.judging.judge_prompt import (
    Question,
    Ruling,
    make_prompt,
    read_reply,
    reply_schema,
)


class HttpJudge:
    """A judge that asks an endpoint, several questions at a time; any thread may call it."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        json_schema: bool = False,
        deadline_s: float = 600.0,
        **options: Any,
    ) -> None:
        """Checks the arguments; connects to nothing yet.

        Args:
            url: base URL, to which /chat/completions is added.
            model: name of the model at the endpoint.
            json_schema: have the endpoint enforce the schema of the reply.
            deadline_s: for all questions of a call, retries and waits included.
            **options: further ones of `Endpoint`.

        Raises:
            ValueError: an argument is out of range, or the API key is not set.
        """
        self._endpoint = Endpoint(url, model, deadline_s=deadline_s, **options)
        self._json_schema = json_schema
        self._deadline_s = deadline_s

    @property
    def identity(self) -> str:
        """The endpoint and its model."""
        return self._endpoint.identity

    def __call__(self, questions: Sequence[Question]) -> list[Ruling]:
        """Returns one ruling for each question, in order, within the deadline."""
        prompts = [
            Prompt(make_prompt(q), reply_schema(q.is_graded) if self._json_schema else None)
            for q in questions
        ]
        replies = dict(self._endpoint.replies(prompts, self._deadline_s))
        return [
            read_reply(replies[i].text, question.is_graded)
            if replies[i].status is Status.OK
            else Ruling(replies[i].status, reason=replies[i].reason)
            for i, question in enumerate(questions)
        ]

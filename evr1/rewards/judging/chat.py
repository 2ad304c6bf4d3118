"""What passes between evr1 and a model that judges: a text, and the reply to it."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from evr1.rewards.base import Status


class Prompt(NamedTuple):
    """A text for a model, and the form of its reply where that is asked for."""

    text: str
    schema: Mapping[str, Any] | None = None  # JSON schema that an endpoint may enforce


class Reply(NamedTuple):
    """What a model said, or why it said nothing.

    `status` is ok, timeout or error.
    """

    status: Status
    text: str = ""
    is_cut: bool = False  # by the limit of tokens
    reason: str = ""  # what went wrong


class Chat(Protocol):
    """A model that replies to texts."""

    @property
    def identity(self) -> str:
        """What the model is: another identity is another model."""
        ...

    def replies(self, prompts: Sequence[Prompt]) -> Generator[tuple[int, Reply]]:
        """Yields the place of each prompt with its reply, as they come."""
        ...

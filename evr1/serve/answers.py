"""Responses as OpenAI's reference has them."""

from collections.abc import Sequence
from typing import Any

from evr1.serve.text import Answer, Token


def usage(prompt_tokens: int, answers: Sequence[Answer]) -> dict[str, int]:
    """Returns how many tokens a request took; those of a prompt count once."""
    drawn = sum(len(answer.ids) for answer in answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": drawn,
        "total_tokens": prompt_tokens + drawn,
    }


def completion(about: dict[str, Any], answers: Sequence[Answer], prompt_tokens: int) -> dict:
    """Returns the response to a request that is not streamed.

    Args:
        about: id, created, model and system_fingerprint.
        answers: that are finished.
        prompt_tokens: of the prompt.
    """
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": _logprobs(answer, answer.entries),
            "finish_reason": answer.finish,
        }
        for index, answer in enumerate(answers)
    ]
    return {
        **about,
        "object": "chat.completion",
        "choices": choices,
        "usage": usage(prompt_tokens, answers),
    }


def chunk(
    about: dict[str, Any], index: int, delta: dict[str, Any], answer: Answer, told: Sequence[Token]
) -> dict[str, Any]:
    """Returns a part of a streamed response; the last one of an answer has no delta."""
    choice = {
        "index": index,
        "delta": delta,
        "logprobs": _logprobs(answer, told) if delta else None,
        "finish_reason": None if delta else answer.finish,
    }
    return {**about, "object": "chat.completion.chunk", "choices": [choice]}


def last_chunk(about: dict[str, Any], answers: Sequence[Answer], prompt_tokens: int) -> dict:
    """Returns the part of a streamed response that tells the usage."""
    told = usage(prompt_tokens, answers)
    return {**about, "object": "chat.completion.chunk", "choices": [], "usage": told}


def models(name: str, created: int) -> dict[str, Any]:
    """Returns the list of models."""
    return {"object": "list", "data": [model(name, created)]}


def model(name: str, created: int) -> dict[str, Any]:
    """Returns what is said of a model."""
    return {"id": name, "object": "model", "created": created, "owned_by": "evr1"}


def _logprobs(answer: Answer, told: Sequence[Token]) -> dict[str, Any] | None:
    return {"content": list(told), "refusal": None} if answer.has_logprobs else None

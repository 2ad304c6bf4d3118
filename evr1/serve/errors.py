"""Refusals in the shape of OpenAI's errors."""

from collections.abc import Mapping
from typing import Any

TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}


class Refusal(Exception):
    """A request that gets no answer.

    Attributes:
        status: of HTTP.
        code: for programs, in snake case.
        param: field of the request that is wrong; None: no single one.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "invalid_value",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(_cut(" ".join(message.split()), 1000))
        self.status, self.code = status, code
        self.param = None if param is None else _cut(param, 200)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Returns the response."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {
            "error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        }


def _cut(text: str, most: int) -> str:
    """Returns a text that may hold what a client made up, and how much of it."""
    return text if len(text) <= most else f"{text[:most]}..."

"""Text out of tokens as they come: what may be said already, and where a stop text begins."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from evr1.data.processor import Processor
from evr1.sampler.live import Drawn

_HALF = "\ufffd"  # of a character whose other bytes are in the next token


class Token(dict):
    """An entry of `logprobs.content`."""


@dataclasses.dataclass
class Answer:
    """One answer while it is drawn.

    Attributes:
        processor: that turns tokens into text.
        stops: texts that end it, and are no part of it.
        tops: of the likeliest tokens told with each; 0: none.
        has_logprobs: log-probabilities are told.
        ids: tokens so far.
        text: of them.
        finish: why it ended; "": it did not.
        is_broken: the model's logits were not finite.
    """

    processor: Processor
    stops: tuple[str, ...] = ()
    tops: int = 0
    has_logprobs: bool = False
    ids: list[int] = dataclasses.field(default_factory=list)
    entries: list[Token] = dataclasses.field(default_factory=list)
    text: str = ""
    finish: str = ""
    is_broken: bool = False
    _said: int = 0
    _told: int = 0

    def add(self, drawn: Drawn) -> None:
        """Takes what was drawn."""
        if self.finish:
            return
        for at, (token, logprob) in enumerate(zip(drawn.tokens, drawn.logprobs, strict=True)):
            if not np.isfinite(logprob):
                self.is_broken, self.finish = True, "error"
                return
            self.ids.append(int(token))
            if self.has_logprobs:
                top = () if drawn.tops is None else [x[at][: self.tops] for x in drawn.tops]
                self.entries.append(self._entry(int(token), float(logprob), top))
        self.text = self.processor.decode(self.ids)
        if self.stops:
            self._cut()
        if drawn.is_done and not self.finish:
            self.finish = "stop" if self.ids[-1] in self.processor.end_ids else "length"

    def take(self) -> tuple[str, list[Token]]:
        """Returns text and entries that may be said and were not."""
        end = len(self.text)
        if not self.finish:
            end = len(self.text.rstrip(_HALF))
            end = min([end, *(self._may_begin(stop) for stop in self.stops)])
        text = self.text[self._said : max(end, self._said)]
        self._said = max(end, self._said)
        told, self._told = self.entries[self._told :], len(self.entries)
        return text, told

    def _may_begin(self, stop: str) -> int:
        """Returns where a stop text may have begun at the end of the text."""
        for size in range(min(len(stop) - 1, len(self.text)), 0, -1):
            if self.text.endswith(stop[:size]):
                return len(self.text) - size
        return len(self.text)

    def _cut(self) -> None:
        found = [at for stop in self.stops if (at := self.text.find(stop)) >= 0]
        if not found:
            return
        at = min(found)
        self.finish, whole = "stop", self.text
        self.text = whole[:at]
        low, high = 1, len(self.ids)  # the fewest tokens that spell it
        while low < high:
            middle = (low + high) // 2
            text = self.processor.decode(self.ids[:middle])
            low, high = (low, middle) if any(s in text for s in self.stops) else (middle + 1, high)
        del self.ids[low:], self.entries[low:]

    def _entry(self, token: int, logprob: float, top: Sequence[np.ndarray]) -> Token:
        said = self._spelled(token, logprob)
        likeliest = zip(*top, strict=True) if top else ()
        said["top_logprobs"] = [self._spelled(int(t), float(p)) for t, p in likeliest]
        return said

    def _spelled(self, token: int, logprob: float) -> Token:
        text = self.processor.tokenizer.decode([token], skip_special_tokens=False)
        return Token(
            token=text,
            logprob=max(logprob, -9999.0),
            bytes=None if _HALF in text else list(text.encode()),
        )

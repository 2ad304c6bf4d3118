"""From a request to what the worker draws for: tokens, and media that are decoded once."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence

from evr1.data import heads
from evr1.data.errors import MediaError
from evr1.data.media import patches, video_budget
from evr1.data.media.decode import DecodePool
from evr1.data.media.requests import Opener, Request
from evr1.data.processor import Processor
from evr1.data.records import Example, Media, MediaSize, Row
from evr1.formats import chat_template
from evr1.sampler.live import Ask, Head
from evr1.sampler.sampling import Sampling
from evr1.serve import prompts
from evr1.serve.errors import Refusal
from evr1.serve.media import MediaFolder, Medium
from evr1.serve.memo import Memo
from evr1.serve.prompts import Shown
from evr1.serve.schema import ChatRequest
from evr1.serve.settings import Limits, ServeSettings

TAIL_TOKENS = 512  # of a question; a longer one is no question, and shared with nobody
_SIZES, _PROCESSORS = 4096, 64


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A request that is ready.

    Attributes:
        asks: one for each answer.
        prompt_tokens: of the prompt.
        processor: that turns tokens into text.
    """

    asks: tuple[Ask, ...]
    prompt_tokens: int
    processor: Processor


class Preparer:
    """Makes requests ready; any thread may call it.

    Attributes:
        about: a line on how much of media is looked at.
    """

    def __init__(
        self,
        settings: ServeSettings,
        directory: str,
        processor: Processor,
        pool: DecodePool,
        folder: MediaFolder,
        is_kept: Callable[[bytes], bool],
    ):
        """Takes what it needs.

        Args:
            settings: of the server.
            directory: of the model's chat template.
            processor: of the model.
            pool: where media are decoded.
            folder: where they lie.
            is_kept: whether a head is prefilled and there.
        """
        self._settings, self._directory, self._processor = settings, directory, processor
        self._pool, self._folder, self._is_kept = pool, folder, is_kept
        budgets = video_budget.of_directory(settings.budgets, pathlib.Path(directory))
        self.about = video_budget.spell(budgets, processor.geometry)
        self._opener = Opener("", budgets, processor.geometry)
        self._sizes: Memo[MediaSize] = Memo(_SIZES, lambda _: 1)
        self._media: Memo[Media] = Memo(1 << 28, lambda medium: medium.frames.nbytes)
        self._examples: Memo[Example] = Memo(1 << 28, lambda example: example.patches.nbytes)
        self._processors: Memo[Processor] = Memo(_PROCESSORS, lambda _: 1)

    def __call__(
        self, request: ChatRequest, stack: contextlib.ExitStack, unwanted: threading.Event
    ) -> Prepared:
        """Returns a request as the worker takes it.

        Args:
            request: it.
            stack: forgets its media, once the answer is there.
            unwanted: nobody waits for it any more; looked at between two media.

        Raises:
            Refusal: it cannot be answered.
        """
        limits = self._settings.limits
        sampling = self._sampling(request)
        processor = self._with_variables(request)
        shown = prompts.shown(request)
        if len(shown) > limits.media:
            raise Refusal(400, f"messages: {len(shown)} media, over {limits.media}",
                          "too_many_media", "messages")  # fmt: skip
        row = prompts.row_of(request, shown)
        media = []
        for each in shown:
            _check_wanted(unwanted)
            media.append(stack.enter_context(self._folder.opened(each.kind, each.url, each.param)))
        wanted = [self._request(*pair) for pair in zip(media, shown, strict=True)]
        sizes, tokens = [], 0
        for each in zip(wanted, media, shown, strict=True):
            _check_wanted(unwanted)
            sizes.append(self._size(*each))
            tokens += self._tokens(sizes[-1].grid_thw)
            self._check_length(tokens, shown, "at least ")
        loads = list(zip(wanted, media, shown, strict=True))
        try:
            head, tail = heads.split(processor.pieces(row, _by_kind(sizes), raw=True))
            if not head or len(tail) > TAIL_TOKENS:
                head, tail = (*head, (tail[:-1], None)), tail[-1:]
            processor.check_ids(row, [i for ids, _ in head for i in ids] + list(tail))
        except ValueError as error:
            raise Refusal(400, f"messages: {error}", param="messages") from None
        length = heads.length(head)
        self._check_length(length + len(tail), shown)
        identity = [(m.digest, w.limits, w.start, w.end) for w, m, _ in loads]
        key = hashlib.blake2b(repr((head, identity)).encode(), digest_size=20).digest()
        if not self._settings.shares:
            key = secrets.token_bytes(20)

        def load() -> Example:
            return self._examples.get(key, lambda: self._example(processor, row, loads, length))

        if not self._is_kept(key):
            load()
        shared = Head(key, length, load)
        has_tops = bool(request.top_logprobs)
        asks = (Ask(shared, tail, sampling, draw, has_tops) for draw in range(request.n or 1))
        return Prepared(tuple(asks), length + len(tail), processor)

    def _sampling(self, request: ChatRequest) -> Sampling:
        limits = self._settings.limits
        most = request.max_completion_tokens or request.max_tokens
        name = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
        _check(limits.completion_tokens, most, name)
        _check(limits.choices, request.n, "n")
        seed = request.seed if request.seed is not None else secrets.randbits(32)
        return Sampling(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            top_k=max(0, request.top_k or 0),
            max_tokens=most or limits.completion_tokens,
            seed=seed % 2**32,
        )

    def _with_variables(self, request: ChatRequest) -> Processor:
        """Returns the processor whose chat template has the request's variables."""
        given = request.chat_template_kwargs
        if not given:
            return self._processor
        text = json.dumps(given, sort_keys=True)
        if len(text) > 4096:
            raise Refusal(400, "chat_template_kwargs: over 4096 characters",
                          param="chat_template_kwargs")  # fmt: skip

        def chosen() -> Processor:
            own = self._processor.chat_template, self._processor.special_tokens
            more = chat_template.variables_of(*own, pathlib.Path(self._directory), None, text)
            variables = {**self._processor.template_variables, **more}
            return dataclasses.replace(self._processor, template_variables=variables)

        try:
            return self._processors.get(text, chosen)
        except ValueError as error:
            reason = str(error).replace(self._directory, "the model")
            reason = reason.replace("data.template_variables", "chat_template_kwargs")
            raise Refusal(400, reason, param="chat_template_kwargs") from None

    def _request(self, medium: Medium, each: Shown) -> Request:
        """Returns how a medium is read, if that is within the limits."""
        limits = self._settings.limits
        request = prompts.request_of(medium, each)
        try:
            asked = self._opener.limits(request)
        except MediaError as error:
            raise _refused(each, error.reason, "invalid_value") from None
        if each.kind == "image":
            most = {"max_pixels": (asked.image_max_pixels, limits.frame_pixels)}
        else:
            most = {
                "max_frames": (asked.video_max_frames, limits.frames),
                "max_pixels": (asked.video_max_pixels, limits.frame_pixels),
                "total_pixels": (asked.video_total_pixels, limits.frames * limits.frame_pixels),
            }
        for word, (value, limit) in most.items():
            if value > limit:
                raise _refused(each, f"{word}={value} is over {limit}", "limit_exceeded")
        return request

    def _size(self, request: Request, medium: Medium, each: Shown) -> MediaSize:
        """Returns the size of a medium as the model sees it, which is decoded for that once."""
        key = medium.digest, medium.kind, request.limits, request.start, request.end

        def look() -> MediaSize:
            self._check_header(request, each)
            self._check_promise(request, each)
            media = self._decode(request, medium, each)
            t, h, w, _ = media.frames.shape
            grid = patches.grid_of(t, h, w, self._processor.geometry)
            return MediaSize(grid, media.timestamps.tolist(), media.is_video)

        return self._sizes.get(key, look)

    def _check_header(self, request: Request, each: Shown) -> None:
        """Refuses what would decode to more than there is room for, before it is decoded."""
        limits = self._settings.limits
        try:
            header = self._pool.header(self._opener.job(request))
        except MediaError as error:
            raise _unusable(each, error) from None
        height, width = header.source_size
        if height * width > limits.source_pixels:
            raise _refused(each, f"{width} x {height} pixels, over {limits.source_pixels}",
                           "limit_exceeded")  # fmt: skip
        if header.frames > limits.source_frames:
            raise _refused(each, f"{header.frames} frames, over {limits.source_frames}",
                           "limit_exceeded")  # fmt: skip

    def _check_promise(self, request: Request, each: Shown) -> None:
        """Refuses what would give more tokens than a prompt has, before it is decoded."""
        try:
            shape = self._pool.measure(self._opener.job(request))
        except MediaError as error:
            raise _unusable(each, error) from None
        size = shape.frames, shape.height, shape.width
        tokens = self._tokens(patches.grid_of(*size, self._processor.geometry))
        self._check_length(tokens, [each], "at least ")

    def _tokens(self, grid_thw: tuple[int, int, int]) -> int:
        t, h, w = grid_thw
        return t * h * w // self._processor.geometry.merge_size**2

    def _decode(self, request: Request, medium: Medium, each: Shown) -> Media:
        key = medium.digest, medium.kind, request.limits, request.start, request.end
        try:
            return self._media.get(key, lambda: self._pool.decode(self._opener.job(request)))
        except MediaError as error:
            raise _unusable(each, error) from None

    def _example(
        self,
        processor: Processor,
        row: Row,
        loads: Iterable[tuple[Request, Medium, Shown]],
        length: int,
    ) -> Example:
        media = [self._decode(*each) for each in loads]
        return heads.cut(processor.encode(row, _by_kind(media), raw=True), length)

    def _check_length(self, tokens: int, shown: Sequence[Shown], least: str = "") -> None:
        limit = self._settings.limits.prompt_tokens
        if tokens > limit:
            how = "; lower max_frames or max_pixels" if shown else ""
            raise Refusal(400, f"messages: a prompt of {least}{tokens} tokens is over {limit}{how}",
                          "context_length_exceeded", "messages")  # fmt: skip


def _check_wanted(unwanted: threading.Event) -> None:
    if unwanted.is_set():
        raise Refusal(503, "nobody waits for it", "cancelled")  # and so nobody hears it


def _by_kind(media: list) -> list:
    """Returns images before videos, each kind in its order, as the processor takes them."""
    return sorted(media, key=lambda each: each.is_video)


def _check(limit: int, value: int | None, name: str) -> None:
    if value is not None and value > limit:
        raise Refusal(400, f"{name}: {value} is over {limit}", "limit_exceeded", name)


def _refused(each: Shown, reason: str, code: str) -> Refusal:
    return Refusal(400, f"{each.param}: {reason}", code, each.param)


def _unusable(each: Shown, error: MediaError) -> Refusal:
    reason = error.reason.replace(error.path, "it").replace(os.path.basename(error.path), "it")
    return _refused(each, f"{error.kind}: {reason}", "media_undecodable")


__all__ = ["Limits", "Prepared", "Preparer"]

"""The requests that are understood: OpenAI's chat completions, as far as the engine goes.

A field that OpenAI has and this server does not is refused by its name, unless its value is the one
that asks for nothing.
"""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from evr1.serve.errors import Refusal

# Fields of OpenAI's, and of other servers', with the values that ask for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "metadata": ({},),
    "min_p": (0,),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (),
    "reasoning_effort": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
}
UNREAD = ("user", "prompt_cache_key", "prompt_cache_retention", "safety_identifier")
# Of the type that they say: 1 is no bool, true and "1" are no numbers.
Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**53, strict=True)]
LEAST_TEMPERATURE = 1e-6  # beside 0; logits over less are no finite numbers
MOST_DEPTH = 8  # of a variable of the chat template


class Model(BaseModel):
    """A part of a request; other fields than its own are an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Budgets(Model):
    """How much of media is looked at, in the words of rows."""

    fps: Number | None = Field(None, gt=0, le=1000)
    nframes: Count | None = None
    max_frames: Count | None = None
    min_pixels: Count | None = None
    max_pixels: Count | None = None
    total_pixels: Count | None = None

    def said(self) -> dict[str, float]:
        """Returns what is said, by the words."""
        words = Budgets.model_fields
        return {k: v for k in words if (v := getattr(self, k)) is not None}


class Url(Budgets):
    """Where a medium is; of a video also which part of it."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None
    video_start: Number | None = Field(None, ge=0)
    video_end: Number | None = Field(None, gt=0)


class TextPart(Model):
    """A text."""

    type: Literal["text"]
    text: str


class ImagePart(Budgets):
    """An image."""

    type: Literal["image_url"]
    image_url: Url


class VideoPart(Budgets):
    """A video."""

    type: Literal["video_url"]
    video_url: Url


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


class Said(Model):
    """A turn of text."""

    role: Literal["system", "developer", "assistant"]
    content: str | list[TextPart]
    name: str | None = Field(None, max_length=256)
    refusal: None = None


class Asked(Model):
    """A turn of the user."""

    role: Literal["user"]
    content: str | Annotated[list[Part], Field(min_length=1)]
    name: str | None = Field(None, max_length=256)


Message = Annotated[Said | Asked, Field(discriminator="role")]


class StreamOptions(Model):
    """What a stream tells besides the answer."""

    include_usage: Flag = False
    include_obfuscation: Flag = False


class VideoIo(Model):
    """How vLLM's clients ask for frames."""

    num_frames: int | None = Field(default=None, ge=-1, le=2**53, strict=True)
    fps: Number | None = Field(default=None, gt=0, le=1000)


class MediaIo(Model):
    """The same, by the kind of medium."""

    video: VideoIo = VideoIo()
    image: dict[str, Any] = Field({}, max_length=0)


class ChatRequest(Budgets):
    """A request for chat completions."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    n: Count | None = 1
    seed: int | None = Field(None, strict=True, ge=-(2**63), lt=2**64)
    temperature: Number | None = Field(1.0, ge=0, le=100)
    top_p: Number | None = Field(1.0, gt=0, le=1)
    top_k: int | None = Field(0, ge=-1, lt=2**31, strict=True)
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stop: str | list[str] | None = None
    logprobs: Flag | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20, strict=True)
    stream: Flag | None = False
    stream_options: StreamOptions | None = None
    chat_template_kwargs: dict[str, Any] = {}
    media_io_kwargs: MediaIo | None = None
    timeout_s: Number | None = Field(None, gt=0)

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop)


def read(fields: Any) -> ChatRequest:
    """Returns a request.

    Raises:
        Refusal: it is none, or asks for what is not there; names the field.
    """
    if not isinstance(fields, dict):
        raise Refusal(400, "the body is no JSON object", "invalid_json")
    for name, nothing in UNSUPPORTED.items():
        value = fields.get(name)
        if name in UNREAD or value is None or any(value == each for each in nothing):
            continue
        raise Refusal(400, f"{name}: not supported; leave it out", "unsupported_parameter", name)
    own = {k: v for k, v in fields.items() if k not in UNSUPPORTED and k not in UNREAD}
    try:
        request = ChatRequest.model_validate(own)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # Discriminators put the kind of a part into its place.
        place = ".".join(str(step) for step in first["loc"])
        is_unknown = first["type"] == "extra_forbidden"
        reason = "not known; leave it out" if is_unknown else first["msg"]
        code = "unknown_parameter" if is_unknown else "invalid_value"
        raise Refusal(400, f"{place}: {reason}", code, place) from None
    return _checked(request)


def _checked(request: ChatRequest) -> ChatRequest:
    if request.top_logprobs and not request.logprobs:
        raise Refusal(400, "top_logprobs: needs logprobs=true", param="top_logprobs")
    if 0 < (request.temperature or 0) < LEAST_TEMPERATURE:
        raise Refusal(400, f"temperature: give 0, or at least {LEAST_TEMPERATURE:g}",
                      param="temperature")  # fmt: skip
    if not _is_shallow(request.chat_template_kwargs, MOST_DEPTH):
        raise Refusal(400, f"chat_template_kwargs: values in values, over {MOST_DEPTH} deep",
                      param="chat_template_kwargs")  # fmt: skip
    if request.stream_options is not None and not request.stream:
        raise Refusal(400, "stream_options: needs stream=true", param="stream_options")
    if len(request.stops) > 16 or any(not 0 < len(stop) <= 256 for stop in request.stops):
        raise Refusal(400, "stop: give up to 16 texts of 1 to 256 characters", param="stop")
    if request.messages[-1].role != "user":
        raise Refusal(400, "messages: the last turn is to be the user's", param="messages")
    if request.fps is not None and request.nframes is not None:
        raise Refusal(400, "nframes: got it beside fps; give one of them", param="nframes")
    if (io := request.media_io_kwargs) is not None:
        asked = {"fps": io.video.fps, "nframes": io.video.num_frames}
        known = {k: v for k, v in asked.items() if v is not None and v > 0}
        if len(known) == 2 or (known and (request.fps or request.nframes)):
            raise Refusal(
                400, "media_io_kwargs: fps and frames, said twice", param="media_io_kwargs"
            )
        request = request.model_copy(update=known)
    return request


def _is_shallow(value: Any, depth: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_is_shallow(part, depth - 1) for part in parts)

"""What a server is told when it starts."""

import dataclasses

from evr1.data.records import Budgets


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Attributes:
        body_bytes: of a request.
        media_bytes: of one medium that is fetched.
        media: of a request.
        source_pixels: of an image, or of a frame of a video, as its header says.
        source_frames: of a video, likewise.
        frames: of a video, sampled.
        frame_pixels: of a sampled frame or an image, after resizing.
        prompt_tokens: with those of media.
        completion_tokens: of one answer.
        choices: answers to a request.
        timeout_s: from its first byte to the answer's last.
        body_s: in which a request has to be here.
    """

    body_bytes: int = 64 << 20
    media_bytes: int = 256 << 20
    media: int = 64
    source_pixels: int = 40_000_000
    source_frames: int = 1_000_000
    frames: int = 768
    frame_pixels: int = 1_048_576
    prompt_tokens: int = 16384
    completion_tokens: int = 1024
    choices: int = 16
    timeout_s: float = 600.0
    body_s: float = 60.0

    @property
    def characters(self) -> int:
        """Of a request's texts: more than a prompt of so many tokens is spelled with."""
        return 16 * self.prompt_tokens

    @property
    def turns(self) -> int:
        """Of a request: a turn is at least 4 tokens."""
        return max(1, self.prompt_tokens // 4)

    @property
    def values(self) -> int:
        """Of a request's JSON, by its commas and brackets."""
        return max(4096, 4 * self.prompt_tokens)


@dataclasses.dataclass(frozen=True)
class Access:
    """Where media may come from, and who may ask.

    Attributes:
        keys: of clients; empty: everybody may.
        media_dir: folder whose files requests may name; empty: none.
        allow_http: addresses of other machines are fetched.
        http_hosts: hosts that are fetched from though their addresses are private, and no others
            where `allow_http` is off.
    """

    keys: tuple[str, ...] = ()
    media_dir: str = ""
    allow_http: bool = False
    http_hosts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """All of them.

    Attributes:
        model: directory, run or checkpoint.
        name: that clients call it by.
        adapter: of a LoRA that is added; empty: none.
        follow: the model is a run, whose newest checkpoint is taken over.
        budgets: of media, where a request says nothing.
        slots: groups of rows that decode at the same time.
        rows: answers of a group.
        window: decode steps at a time.
        queue: requests that may wait, beside those that are being answered.
        prefix_bytes: of prompts that are kept on the device.
        shares: heads are kept and shared by requests.
        workers: processes that decode media.
        decode_s: for one medium.
        drain_s: that requests under way have when the server is asked to end.
        logs_requests: what requests hold is written to standard error.
        limits: of requests.
        access: where from, and who.
    """

    model: str
    name: str
    adapter: str = ""
    follow: bool = False
    dtype: str = "float32"
    tensor: int = 1
    sanitize: bool = True
    budgets: Budgets = Budgets()
    slots: int = 8
    rows: int = 4
    window: int = 8
    queue: int = 64
    prefix_bytes: int = 1 << 30
    shares: bool = True
    workers: int = 2
    decode_s: float = 120.0
    drain_s: float = 60.0
    logs_requests: bool = False
    limits: Limits = Limits()
    access: Access = Access()

"""The host-side records: a row of a data file, its decoded media, and the encoded prompt."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1.formats.video_size import VideoSize
from evr1.types import Visual


@dataclasses.dataclass(frozen=True)
class Turn:
    """An earlier turn of a chat; a user's may hold media markers."""

    role: str  # user or assistant
    content: str


@dataclasses.dataclass(frozen=True)
class MediaItem:
    """A medium of which a row says more than its path.

    Attributes:
        path: of a file, or of a folder of pictures that are one video; empty where `frames` are.
        frames: pictures that are one video, in order.
        fps: rate of these pictures; None: not said, or `times` are.
        times: seconds of these pictures, ascending.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.
        limits: what the row says instead of the run's budgets, by the row's words: fps, nframes,
            max_frames, min_pixels, max_pixels or total_pixels.
    """

    path: str = ""
    frames: tuple[str, ...] = ()
    fps: float | None = None
    times: tuple[float, ...] = ()
    start: float | None = None
    end: float | None = None
    limits: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return self.path or f"{self.frames[0]} and {len(self.frames) - 1} more frames"

    def entry(self) -> dict[str, Any]:
        """Returns what a row writes for it."""
        said = {"frames": list(self.frames), "path": self.path, "fps": self.fps}
        said |= {"times": list(self.times), "video_start": self.start, "video_end": self.end}
        return {k: v for k, v in said.items() if v not in (None, "", [])} | dict(self.limits)


Medium = str | MediaItem  # a path, where a row says no more


@dataclasses.dataclass(frozen=True)
class Row:
    """One validated question. `source` is "file:line"; `extra` carries every other field."""

    index: int
    problem: str
    answer: Any
    problem_type: str  # canonical, see evr1.formats.problem_types
    data_type: str  # video, image, text or mixed
    images: tuple[Medium, ...]
    videos: tuple[Medium, ...]
    options: tuple[str, ...]
    problem_id: str
    video_start: float | None  # seconds
    video_end: float | None
    source: str
    extra: Mapping[str, Any]
    system: str | None = None  # text of the system turn; None: the chat template's own, if any
    turns: tuple[Turn, ...] = ()  # of the chat before the question


@dataclasses.dataclass(frozen=True)
class Budgets:
    """Limits on the frames and pixels of media (EasyVideoR1's names; pixels are per frame)."""

    video_fps: float = 2.0
    video_max_frames: int = 128
    video_min_pixels: int = 3136
    video_max_pixels: int = 262144
    video_total_pixels: int = 0  # 0: the default of qwen-vl-utils
    image_min_pixels: int = 3136
    image_max_pixels: int = 1048576
    video_budget: str = "qwen_vl_utils"  # or hf, hf_capped: the pixels of a frame follow video_size
    video_size: VideoSize | None = None  # of the model's directory

    def of(self, kind: str) -> dict[str, Any]:
        """Returns the limits that a medium's pixels depend on.

        Args:
            kind: image or video.
        """
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k.startswith(kind)}
        if kind == "image":
            return fields
        unused = {"video_budget", "video_size"}
        if self.video_size is not None:
            unused = {"video_min_pixels", "video_max_pixels", "video_total_pixels"}
            fields["video_size"] = list(self.video_size[:4])  # but what the directory asks for
        return {k: v for k, v in fields.items() if k not in unused}


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The sizes by which a model family cuts pixels into patches, read from its HF directory."""

    patch_size: int
    temporal_patch_size: int
    merge_size: int

    @property
    def factor(self) -> int:
        """Pixels on a side of one visual token."""
        return self.patch_size * self.merge_size


@dataclasses.dataclass(frozen=True)
class Media:
    """One image or video, decoded, sampled and resized; the only form in which pixels travel.

    Attributes:
        frames: uint8[T, H, W, 3], H and W multiples of the geometry's factor; T = 1 for an image.
        timestamps: float64[T], seconds in the source; empty for an image.
        is_video: a one-frame video is still a video.
        sample_fps: T over the seconds of the clip; 0 for an image, or where it is not known.
        remarks: what may be wrong with what it shows, see `data.media.remarks`; not in shards.
        psnr: dB to what was decoded, of frames that shards keep with a loss; else infinite.
        source_size: (height, width) of the source, upright; not in shards, where it is (0, 0).
    """

    frames: np.ndarray
    timestamps: np.ndarray
    is_video: bool
    sample_fps: float = 0.0
    remarks: tuple[str, ...] = ()
    psnr: float = math.inf
    source_size: tuple[int, int] = (0, 0)


class MediaSize(NamedTuple):
    """The sizes that the number of prompt tokens depends on, known without decoding the medium."""

    grid_thw: tuple[int, int, int]  # patches before merging
    timestamps: Sequence[float]  # seconds of every sampled frame; empty for an image
    is_video: bool


@dataclasses.dataclass(frozen=True)
class Example:
    """A row ready for the model: prompt tokens, and patches of its media in order of appearance.

    Attributes:
        tokens: int32[P], placeholders expanded.
        is_visual: bool[P], true on the image and video placeholders.
        positions: int32[3, P], M-RoPE (t, h, w).
        next_position: position of the first completion token.
        patches: uint8[sum(t*h*w), C] in merge order; C is (channel, time, row, column) as in HF.
        grid_thw: int32[V, 3], patches per medium before merging.
        is_image: bool[V], which media are images.
        visual: features of the patches by a frozen vision tower, kept for one RL step; None: none.
        host: whose process has the pixels; on others they are zeros without memory.
    """

    row: Row
    tokens: np.ndarray
    is_visual: np.ndarray
    positions: np.ndarray
    next_position: int
    patches: np.ndarray
    grid_thw: np.ndarray
    is_image: np.ndarray
    visual: Visual | None = None
    host: int = 0


def elsewhere(row: Row, host: int) -> Example:
    """Returns what stands for an example of another host until it is known."""
    none = np.zeros(0, np.int32)
    return Example(
        row=row,
        tokens=none,
        is_visual=none.astype(bool),
        positions=np.zeros((3, 0), np.int32),
        next_position=0,
        patches=np.zeros((0, 0), np.uint8),
        grid_thw=np.zeros((0, 3), np.int32),
        is_image=none.astype(bool),
        host=host,
    )

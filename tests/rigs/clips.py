"""Small media files for tests, and a processor that needs no model."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from evr1.data.records import Budgets, Example, Geometry, Media, MediaSize, Row

GEOMETRY = Geometry(16, 2, 2)
BUDGETS = Budgets(video_max_frames=8, video_max_pixels=64 * 96, image_max_pixels=64 * 64)
GRAY_STEP = 4  # frame i of a clip is gray level GRAY_STEP * i, modulo 256


def write_clip(
    path: Path,
    frames: int = 60,
    *,
    fps: int = 30,
    size: tuple[int, int] = (64, 96),
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 2,
    rotation: int | None = None,
    matrix: tuple[int, ...] | None = None,
    times_ms: list[int] | None = None,
    turns: list[int] | None = None,
    movflags: str = "",
    muxer: dict[str, str] | None = None,
    coding: dict[str, str] | None = None,
) -> Path:
    """A video whose frames are plain gray, with a white square in the upper left quarter.

    They are `1 / fps` apart, at `times_ms`, or at the multiples `turns` of `1 / fps`.
    """
    height, width = size
    options = {"movflags": movflags} if movflags else muxer or {}
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", gop
        stream.bit_rate = 4_000_000
        stream.options = coding or {}
        if codec == "libx264":
            stream.codec_context.max_b_frames = b_frames
        if times_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        container.start_encoding()
        for i in range(frames):
            image = np.full((height, width, 3), GRAY_STEP * i % 256, np.uint8)
            image[: height // 2, : width // 2] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = times_ms[i] if times_ms else turns[i] if turns else i
            if times_ms:
                frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_image(path: Path, size: tuple[int, int] = (40, 50), gray: int = 80) -> Path:
    """A plain image of (height, width)."""
    Image.new("RGB", size[::-1], (gray, gray, gray)).save(path)
    return path


def gray_of(frames: np.ndarray) -> np.ndarray:
    """int[T]: the gray level in the lower right corner of each frame."""
    return frames[:, -4:, -4:].mean(axis=(1, 2, 3)).round().astype(int)


class CountingProcessor:
    """Stands in for the processor: one token per visual token, and ten more."""

    def plan(self, row: Row, sizes: list[MediaSize], raw: bool = False) -> int:
        """Prompt tokens."""
        return 10 + sum(t * h * w // 4 for (t, h, w), _, _ in sizes)

    def encode(self, row: Row, media: list[Media], raw: bool = False) -> Example:
        """An example whose tokens are the gray levels of the media's first frames."""
        first = [gray_of(m.frames)[0] for m in media]
        return Example(
            row=row,
            tokens=np.array(first, np.int32),
            is_visual=np.zeros(len(first), bool),
            positions=np.zeros((3, len(first)), np.int32),
            next_position=0,
            patches=np.zeros((0, 1536), np.uint8),
            grid_thw=np.zeros((0, 3), np.int32),
            is_image=np.zeros(0, bool),
        )

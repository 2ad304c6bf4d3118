"""Sizes from pixel budgets, and patches from frames, as qwen-vl-utils and HF's Qwen processors do.

Source: qwen-vl-utils 0.0.14 (`smart_resize`, `fetch_video`); transformers 5.24
`models/qwen3_vl/video_processing_qwen3_vl.py` and `models/qwen2_vl/image_processing_qwen2_vl.py`.
"""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from evr1.data.errors import MediaError
from evr1.data.media import files, remarks
from evr1.data.media.resize import resize
from evr1.data.records import Budgets, Geometry, Media
from evr1.formats.video_size import VideoSize

MAX_ASPECT_RATIO = 200
FRAME_MAX_TOKENS = 768  # of one frame, before two frames are merged into one
TOTAL_TOKENS = 0.9 * 128000  # of one video, before two frames are merged into one


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of a decoded medium, known without decoding it; fields as in `Media`."""

    frames: int
    height: int
    width: int
    timestamps: np.ndarray
    is_video: bool
    sample_fps: float = 0.0
    remarks: tuple[str, ...] = ()
    source_size: tuple[int, int] = (0, 0)


def fit(
    height: int,
    width: int,
    factor: int,
    min_pixels: float,
    max_pixels: float,
    thinnest: int = 1,
) -> tuple[int, int]:
    """Returns the nearest (height, width) in multiples of `factor` with an area in the given range.

    >>> fit(720, 1280, 32, 3136, 262144)
    (384, 672)

    Args:
        height: of the frame or image.
        width: of the same frame or image.
        factor: pixels on a side of one visual token.
        min_pixels: the smaller area.
        max_pixels: the larger area.
        thinnest: multiples that a side has at least before the areas are looked at; with 0, as in
            HF, an image that is thinner than half of one has no area and grows from its own size.

    Raises:
        ValueError: a side is more than 200 times the other, or the limits cross.
    """
    if min_pixels > max_pixels:
        raise ValueError(
            f"min_pixels={min_pixels} exceeds max_pixels={max_pixels}; lower the first"
        )
    _check_ratio(height, width)
    rows = max(thinnest, round(height / factor)) * factor
    columns = max(thinnest, round(width / factor)) * factor
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(1, math.floor(height / shrink / factor)) * factor
        columns = max(1, math.floor(width / shrink / factor)) * factor
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def _check_ratio(height: int, width: int) -> None:
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(
            f"{width}x{height} pixels: one side is over {MAX_ASPECT_RATIO} times the other; crop it"
        )


def video_size(
    n_frames: int, height: int, width: int, budgets: Budgets, geometry: Geometry
) -> tuple[int, int]:
    """Returns the (height, width) to which the `n_frames` sampled frames of a video are resized.

    >>> video_size(20, 720, 1280, Budgets(), Geometry(16, 2, 2))
    (384, 672)

    Raises:
        ValueError: see `fit`.
    """
    if budgets.video_size is not None:
        is_capped = budgets.video_budget == "hf_capped"
        return hf_size(n_frames, (height, width), budgets.video_size, geometry, is_capped)
    token = geometry.factor**2
    total = budgets.video_total_pixels or TOTAL_TOKENS * token
    share = total / n_frames * geometry.temporal_patch_size
    cap = max(min(FRAME_MAX_TOKENS * token, share), int(budgets.video_min_pixels * 1.05))
    return fit(
        height,
        width,
        geometry.factor,
        budgets.video_min_pixels,
        min(budgets.video_max_pixels, cap),
    )


def hf_size(
    n_frames: int,
    source: tuple[int, int],
    size: VideoSize,
    geometry: Geometry,
    is_capped: bool,
) -> tuple[int, int]:
    """Returns the (height, width) that transformers' video processor gives the frames of a video.

    >>> size = VideoSize(4096, 25165824, 768, is_volume=True)
    >>> hf_size(16, (1080, 1920), size, Geometry(16, 2, 2), is_capped=False)
    (928, 1664)
    >>> hf_size(16, (1080, 1920), size, Geometry(16, 2, 2), is_capped=True)
    (640, 1152)

    Args:
        n_frames: that are shown.
        source: (height, width) of the video.
        size: of the model's directory.
        geometry: of the model.
        is_capped: with `cap_pixels_per_frame`.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    (height, width), factor = source, geometry.factor
    temporal, most = geometry.temporal_patch_size, size.longest_edge
    if is_capped:
        most = size.capped(n_frames, factor, temporal)
    if not size.is_volume:
        return fit(height, width, factor, min(size.shortest_edge, most), most, thinnest=0)
    most *= n_frames if is_capped else 1
    if min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    _check_ratio(height, width)
    rows, columns = (round(side / factor) * factor for side in (height, width))
    volume = round(n_frames / temporal) * temporal * rows * columns
    if volume > most:
        shrink = math.sqrt((n_frames * height * width) / most)
        rows, columns = (
            max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)
        )
    elif volume < size.shortest_edge:
        grow = math.sqrt(size.shortest_edge / (n_frames * height * width))
        rows, columns = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return rows, columns


def image_size(height: int, width: int, budgets: Budgets, geometry: Geometry) -> tuple[int, int]:
    """Returns the (height, width) to which an image is resized.

    >>> image_size(10, 1000, Budgets(), Geometry(16, 2, 2))  # a thin one shrinks, as in HF
    (32, 576)

    Raises:
        ValueError: see `fit`.
    """
    low, high = budgets.image_min_pixels, budgets.image_max_pixels
    return fit(height, width, geometry.factor, low, high, thinnest=0)


def grid_of(n_frames: int, height: int, width: int, geometry: Geometry) -> tuple[int, int, int]:
    """Returns the patches (t, h, w) of a medium of that many frames and pixels, before merging.

    >>> grid_of(5, 64, 96, Geometry(16, 2, 2))
    (3, 4, 6)
    """
    return (
        -(-n_frames // geometry.temporal_patch_size),
        height // geometry.patch_size,
        width // geometry.patch_size,
    )


def patchify(media: Media, geometry: Geometry) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Returns the patches of a medium, uint8[t*h*w, C], and its grid (t, h, w).

    Patches stand frame by frame and, in a frame, merge block by merge block; C is (channel, time,
    row, column). The last frame is repeated where the temporal patch is not full (so an image
    fills its patch alone).
    """
    p, m, d = geometry.patch_size, geometry.merge_size, geometry.temporal_patch_size
    frames = media.frames
    missing = -len(frames) % d
    if missing:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    t, h, w = grid_of(len(frames), frames.shape[1], frames.shape[2], geometry)
    blocks = frames.reshape(t, d, h // m, m, p, w // m, m, p, 3)
    ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return ordered.reshape(t * h * w, 3 * d * p * p), (t, h, w)


def load_image(path: str | pathlib.Path, budgets: Budgets, geometry: Geometry) -> Media:
    """Returns an image as one resized frame, see `read_image`.

    Raises:
        MediaError: missing, not an image, or of an unusable shape.
    """
    frame = read_image(path)[None]
    with _usable(path), files.source(path) as source, Image.open(source) as image:
        height, width = image_size(frame.shape[1], frame.shape[2], budgets, geometry)
        about = (remarks.CLIPPED,) if _is_clipped(image) else ()
    resized = resize(frame, height, width)
    source = (frame.shape[1], frame.shape[2])
    return Media(resized, np.zeros(0), is_video=False, remarks=about, source_size=source)


def measure_image(path: str | pathlib.Path, budgets: Budgets, geometry: Geometry) -> Shape:
    """Returns the shape that `load_image` will give, read without decoding pixels.

    Raises:
        MediaError: missing, not an image, or of an unusable shape.
    """
    size = read_size(path)
    with _usable(path):
        height, width = image_size(*size, budgets, geometry)
    return Shape(1, height, width, np.zeros(0), is_video=False)


def read_image(path: str | pathlib.Path) -> np.ndarray:
    """Returns the pixels of an image, uint8[H, W, 3].

    It is upright by its EXIF tag; transparency becomes white; an animation gives its first frame.

    Raises:
        MediaError: missing or not an image.
    """
    with _usable(path), files.source(path) as source, Image.open(source) as image:
        return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))


def read_size(path: str | pathlib.Path) -> tuple[int, int]:
    """Returns the (height, width) that `read_image` will give, without decoding pixels.

    Raises:
        MediaError: missing or not an image.
    """
    with _usable(path), files.source(path) as source, Image.open(source) as image:
        exif = Image.Image.getexif(image)  # a PNG's own method decodes the pixels first
        turned = exif.get(0x0112, 1) >= 5  # orientations 5 to 8 swap the sides
        return (image.width, image.height) if turned else (image.height, image.width)


@contextlib.contextmanager
def _usable(path: str | pathlib.Path) -> Iterator[None]:
    """Gives errors about an image their type."""
    try:
        with files.reached(path):
            yield
    except MediaError:
        raise
    except FileNotFoundError:
        raise MediaError("missing", path, "no such image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError("undecodable", path, f"not a usable image ({_line(error)})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _is_clipped(image: Image.Image) -> bool:
    """Returns whether an image has levels over 255, which its conversion to RGB cuts off."""
    if image.mode[0] not in "IF":
        return False
    levels = np.asarray(image)
    return bool(levels.min() < 0 or levels.max() > 255)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

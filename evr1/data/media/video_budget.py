"""Who says how large the frames of a video are, and what another would say."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from evr1.data.media import patches, sampling
from evr1.data.media.requests import check_budgets
from evr1.data.records import Budgets, Geometry
from evr1.formats import processor_files, video_size

_TYPICAL = (240, 30.0, 1080, 1920)  # frames, their rate, height and width: eight seconds


def of_directory(budgets: Budgets, root: Path) -> Budgets:
    """Returns the budgets with the model's `size`, where they ask for it.

    Args:
        budgets: of the flags or the config.
        root: of the processor files.

    Raises:
        ValueError: the directory has no usable size, or budgets cross.
    """
    check_budgets(budgets)
    if budgets.video_budget != "qwen_vl_utils":
        size = video_size.read(root)
        if not _is_usable(size):
            raise ValueError(
                f"{root}: no whole shortest_edge and longest_edge in the video processor's size;"
                " correct it, or set data.video_budget=qwen_vl_utils"
            )
        budgets = dataclasses.replace(budgets, video_size=size)
    return budgets


def _is_usable(size: video_size.VideoSize) -> bool:
    return min(size.shortest_edge, size.longest_edge) > 0


def describe(budgets: Budgets, root: Path, geometry: Geometry) -> str:
    """Returns a line for scale: what a typical clip becomes, and what other budgets would make it.

    Args:
        budgets: of the run.
        root: of the model's processor files.
        geometry: of the model.
    """
    size = video_size.read(root)
    total, rate, height, width = _TYPICAL
    frames = len(sampling.sample_indices(total, rate, budgets.video_fps, budgets.video_max_frames))

    def sides(chosen: Budgets) -> tuple[int, int]:
        return patches.video_size(frames, height, width, chosen, geometry)

    def tokens(chosen: Budgets) -> str:
        t, h, w = patches.grid_of(frames, *sides(chosen), geometry)
        return f"{t * h * w // geometry.merge_size**2:,}"

    rows, columns = sides(budgets)
    said = (
        f"for scale: {total / rate:g} s of 1080p video become {frames} frames of {columns} x {rows}"
        f" pixels, {tokens(budgets)} visual tokens of the prompt; sizes of frames are by "
        f"data.video_budget={budgets.video_budget}"
    )
    if not _is_usable(size):
        return f"{said} (the model's directory has no size that the others could read)"
    names = {"qwen_vl_utils": None, "hf": False, "hf_capped": True}
    own = ", as transformers does with this model,"
    others = [
        f"with {name}{own * (is_capped == size.is_capped)} they would be "
        + tokens(dataclasses.replace(budgets, video_budget=name, video_size=size))
        for name, is_capped in names.items()
        if is_capped is not None and name != budgets.video_budget
    ]
    said += own[:-1] * (names[budgets.video_budget] == size.is_capped)
    return f"{said}; {', '.join(others)} tokens"


def spell(budgets: Budgets, geometry: Geometry) -> str:
    """Returns a line: the limits on media, and what a visual token is of.

    >>> spell(Budgets(), Geometry(16, 2, 2)).partition("; ")[0]
    'videos: 2 frames a second, at most 128, each of 3,136 to 262,144 pixels (56 x 56 to 512 x 512)'
    """
    b, size = budgets, budgets.video_size
    pixels = _between(b.video_min_pixels, b.video_max_pixels)
    if size is not None:
        pixels = _between(size.shortest_edge, size.longest_edge, is_square=not size.is_volume)
        pixels += " together" if size.is_volume else ""
        pixels += f", as the model's directory says ({b.video_budget})"
    elif b.video_total_pixels:
        pixels += f", {b.video_total_pixels:,} all together"
    each = "" if size is not None and size.is_volume else "each "
    t, side = geometry.temporal_patch_size, geometry.factor
    return (
        f"videos: {b.video_fps:g} frames a second, at most {b.video_max_frames}, {each}of {pixels}"
        f"; images: {_between(b.image_min_pixels, b.image_max_pixels)}; {side} x {side} pixels of "
        f"an image, or of {t} frames of a video, are one visual token"
    )


def _between(least: int, most: int, *, is_square: bool = True) -> str:
    """Returns bounds on pixels, with those of squares that have about as many.

    >>> _between(1024, 2304), _between(4096, 25165824, is_square=False)
    ('1,024 to 2,304 pixels (32 x 32 to 48 x 48)', '4,096 to 25,165,824 pixels')
    """
    low, high = (round(math.sqrt(n)) for n in (least, most))
    squares = f" ({low} x {low} to {high} x {high})" if is_square else ""
    return f"{least:,} to {most:,} pixels{squares}"


def exported(root: Path, budgets: Budgets, geometry: Geometry) -> dict[str, str]:
    """Returns the processor files of a model that was trained with these budgets, by name.

    transformers' processors then make the frames as large as the run did, but for two things that
    they cannot say: with qwen_vl_utils a video of Qwen3-VL has a least size of all frames together
    (not of each), and the most pixels of a frame are whole visual tokens.

    Args:
        root: of the files that the run began with.
        budgets: of the run.
        geometry: of the model.
    """
    video = _video_settings(video_size.read(root), budgets, geometry)
    image = {
        "size": {
            "shortest_edge": budgets.image_min_pixels,
            "longest_edge": budgets.image_max_pixels,
        }
    }
    nested, images, videos = (processor_files.read_json(root / name) for name in _FILES)
    out: dict[str, dict[str, Any]] = {}
    for name, change in (("image_processor", image), ("video_processor", video)):
        if isinstance(nested.get(name), dict):
            nested = {**nested, name: _changed(nested[name], change)}
            out[_FILES[0]] = nested
    if images:
        out[_FILES[1]] = _changed(images, image)
    if images or videos:
        shared = {k: v for k, v in images.items() if k != "image_processor_type"}
        out[_FILES[2]] = _changed(videos or shared, video)
    return {name: json.dumps(fields, indent=2) + "\n" for name, fields in out.items()}


_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")


def _changed(fields: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in fields.items() if k not in ("min_pixels", "max_pixels")}
    return {**kept, **change}


def _video_settings(
    size: video_size.VideoSize, budgets: Budgets, geometry: Geometry
) -> dict[str, Any]:
    """Returns the fields of transformers' video processor that say what the budgets say."""
    token, total = geometry.factor**2, budgets.video_total_pixels
    kind = "Qwen3VLVideoProcessor" if size.is_volume else "Qwen2VLVideoProcessor"
    fields = {
        "video_processor_type": kind,
        "fps": budgets.video_fps,
        "min_frames": sampling.MIN_FRAMES,
        "max_frames": budgets.video_max_frames,
    }
    if budgets.video_size is not None:
        shortest, longest, tokens = size.shortest_edge, size.longest_edge, size.max_tokens
        is_capped = budgets.video_budget == "hf_capped"
    else:
        most = min(budgets.video_max_pixels, patches.FRAME_MAX_TOKENS * token)
        shortest, is_capped = budgets.video_min_pixels, True
        if size.is_volume:
            total = total or int(patches.TOTAL_TOKENS * token)
            longest, tokens = total * geometry.temporal_patch_size, max(1, most // token)
        else:
            longest, tokens = most, round(total / (0.9 * token)) if total else 128000
    return fields | {
        "size": {"shortest_edge": shortest, "longest_edge": longest},
        "cap_pixels_per_frame": is_capped,
        "max_video_tokens": tokens,
    }

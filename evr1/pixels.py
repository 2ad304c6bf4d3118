"""What the processor files of a HF directory say of pixels before they enter the vision tower."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STATISTICS = ("image_mean", "image_std")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file.

    Raises:
        ValueError: the file holds something else.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as e:
        raise ValueError(f"{path}: not JSON ({e}); copy the file from the model again") from e
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds no JSON object; copy the file from the model again")
    return found


def settings(root: Path) -> dict[str, Mapping[str, Any]]:
    """What each file says of images and of videos; empty where it says nothing."""
    both = read_json(root / "processor_config.json")
    return {
        "preprocessor_config.json": read_json(root / "preprocessor_config.json"),
        "video_preprocessor_config.json": read_json(root / "video_preprocessor_config.json"),
        "processor_config.json image_processor": both.get("image_processor") or {},
        "processor_config.json video_processor": both.get("video_processor") or {},
    }


def statistics(root: Path) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of each channel, in units of full brightness; empty: the model's own.

    A model normalizes its pixels in the vision tower, images and videos alike.

    Args:
        root: HF directory.

    Raises:
        ValueError: a statistic is none, images and videos differ, or pixels enter in another way.
    """
    found: dict[str, tuple[float, ...]] = {}
    said: dict[str, str] = {}
    for file, source in settings(root).items():
        _check_scale(f"{root}/{file}", source)
        for name in STATISTICS:
            if source.get(name) is None:
                continue
            value = _channels(f"{root}/{file}: {name}", source[name])
            if found.setdefault(name, value) != value:
                raise ValueError(
                    f"{root}: {name} is {list(found[name])} in {said[name]} and {list(value)} in"
                    f" {file}; images and videos must have the same, correct one"
                )
            said.setdefault(name, file)
    return found


def spread(channels: Sequence[float], values: int) -> np.ndarray:
    """A number of each channel for every value of a patch, float32[1, 1, values].

    >>> spread((1, 2, 3), 6).tolist()
    [[[1.0, 1.0, 2.0, 2.0, 3.0, 3.0]]]
    """
    return np.repeat(np.array(channels, np.float32), values // len(channels))[None, None]


def _channels(what: str, value: Any) -> tuple[float, ...]:
    """One number a channel; a single one stands for all three."""
    values = value if isinstance(value, list) else [value] * 3
    is_usable = len(values) == 3 and all(type(x) in (int, float) for x in values)
    if not is_usable or (what.endswith("std") and min(values) <= 0):
        raise ValueError(
            f"{what}={value!r}; give a number for each of three channels, deviations over 0"
        )
    return tuple(float(x) for x in values)


def _check_scale(file: str, source: Mapping[str, Any]) -> None:
    for name in ("do_rescale", "do_normalize"):
        if source.get(name) is False:
            raise ValueError(f"{file}: {name}=false is not supported; set it to true")
    factor = source.get("rescale_factor") or 1 / 255
    if abs(factor * 255 - 1) > 1e-3:
        raise ValueError(f"{file}: rescale_factor={factor} is not supported; set it to 1/255")

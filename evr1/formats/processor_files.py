"""The pixel settings in the processor files of a HF directory."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

Channels = tuple[float, ...]


class Statistics(NamedTuple):
    """Mean and deviation of each channel, in units of full brightness."""

    image_mean: Channels
    image_std: Channels
    video_mean: Channels
    video_std: Channels

    @classmethod
    def read(cls, config: Mapping[str, Any], mean: Channels, std: Channels) -> "Statistics":
        """Returns the statistics in a config, or else the family's mean and std."""
        defaults = cls(mean, std, mean, std)
        return cls(*(config.get(k, v) for k, v in defaults._asdict().items()))


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; empty where there is no such file.

    Raises:
        ValueError: the file holds something else.
    """
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as e:
        raise ValueError(f"{path}: not JSON ({e}); copy the file from the model again") from e
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds no JSON object; copy the file from the model again")
    return value


def settings(root: Path) -> dict[str, Mapping[str, Any]]:
    """Returns the settings of images and of videos in each file; empty where a file has none."""
    both = read_json(root / "processor_config.json")
    for name in ("image_processor", "video_processor"):
        if not isinstance(both.get(name) or {}, dict):
            raise ValueError(f"{root}/processor_config.json: {name} is no object; copy it again")
    return {
        "preprocessor_config.json": read_json(root / "preprocessor_config.json"),
        "video_preprocessor_config.json": read_json(root / "video_preprocessor_config.json"),
        "processor_config.json image_processor": both.get("image_processor") or {},
        "processor_config.json video_processor": both.get("video_processor") or {},
    }


def statistics(root: Path) -> dict[str, Channels]:
    """Returns the fields of `Statistics` that the files give; the model has its own for the others.

    Videos have those of images where no file speaks of videos.

    Args:
        root: HF directory.

    Raises:
        ValueError: a statistic is none, two files differ, or pixels enter in another way.
    """
    files = settings(root)
    for file, source in files.items():
        _check_scale(f"{root}/{file}", source)
    videos = {file: source for file, source in files.items() if "video" in file}
    images = {file: source for file, source in files.items() if "video" not in file}
    return {
        f"{kind}_{name}": value
        for kind, sources in (("image", images), ("video", videos))
        for name in ("mean", "std")
        if (value := _agreed(root, sources if any(sources.values()) else images, f"image_{name}"))
    }


def _agreed(root: Path, sources: Mapping[str, Mapping[str, Any]], name: str) -> Channels | None:
    values: dict[str, Channels] = {}
    for file, source in sources.items():
        if source.get(name) is None:
            continue
        values[file] = value = _channels(f"{root}/{file}: {name}", source[name])
        first, agreed = next(iter(values.items()))
        if value != agreed:
            raise ValueError(
                f"{root}: {name} is {list(agreed)} in {first} and {list(value)} in {file}; correct"
                " one of them"
            )
    return next(iter(values.values()), None)


def _channels(what: str, value: Any) -> Channels:
    """Returns one number a channel; a single one stands for all three."""
    values = value if isinstance(value, list) else [value] * 3
    is_usable = len(values) == 3 and all(type(x) in (int, float) for x in values)
    if not is_usable or (what.endswith("std") and min(values) <= 0):
        raise ValueError(
            f"{what}={value!r}; give a number for each of three channels, deviations over 0"
        )
    return tuple(float(x) for x in values)


def _check_scale(file: str, source: Mapping[str, Any]) -> None:
    if source.get("resample", _BICUBIC) not in (_BICUBIC, None):
        raise ValueError(
            f"{file}: resample={source['resample']!r} is not supported; set it to {_BICUBIC}"
            " (bicubic)"
        )
    for name in ("do_rescale", "do_normalize"):
        if source.get(name) is False:
            raise ValueError(f"{file}: {name}=false is not supported; set it to true")
    factor = source.get("rescale_factor") or 1 / 255
    if abs(factor * 255 - 1) > 1e-3:
        raise ValueError(f"{file}: rescale_factor={factor} is not supported; set it to 1/255")


_BICUBIC = 3  # PIL's number

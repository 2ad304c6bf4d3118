"""The flags that say how much of a medium is looked at, of every command that reads media."""

import argparse
from collections.abc import Mapping
from types import MappingProxyType

from evr1.data.records import Budgets
from evr1.formats import video_size

# flag: the field of Budgets, and of the group `data` of a run's config
FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "fps": "video_fps",
        "max_frames": "video_max_frames",
        "min_pixels": "video_min_pixels",
        "max_pixels": "video_max_pixels",
        "total_pixels": "video_total_pixels",
        "video_budget": "video_budget",
        "image_min_pixels": "image_min_pixels",
        "image_max_pixels": "image_max_pixels",
    }
)


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    default, add = Budgets(), parser.add_argument
    add("--fps", type=float, default=default.video_fps, help="frames sampled per second")
    add("--max_frames", type=int, default=default.video_max_frames, help="of a video at most")
    add("--min_pixels", type=int, default=default.video_min_pixels, help="of a video frame")
    add("--max_pixels", type=int, default=default.video_max_pixels, help="of a video frame")
    add("--total_pixels", type=int, default=0, help="of a video; 0: default")
    add(
        "--video_budget",
        choices=video_size.BUDGETS,
        default=default.video_budget,
        help="who says how large frames are: the three flags before, as qwen-vl-utils reads them"
        " (default), or the size in the model's directory, as transformers reads it",
    )
    add("--image_min_pixels", type=int, default=default.image_min_pixels, help="of an image")
    add("--image_max_pixels", type=int, default=default.image_max_pixels, help="of an image")


def budgets(flags: argparse.Namespace) -> Budgets:
    """Returns what the flags say."""
    return Budgets(**{field: vars(flags)[name] for name, field in FIELDS.items()})

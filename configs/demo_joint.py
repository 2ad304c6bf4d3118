"""The demo with its clips and its images as two sources: one policy learns from both together.

    evr1 train --config=demo_joint --config.workdir=DIR

The rows are those of configs/demo.py, split by what they show.
"""

from evr1.config import named


def get_config():
    """Returns the joint demo's config."""
    c = named.load("demo")
    c.data.sources = (("train_video.jsonl", 0.5), ("train_image.jsonl", 0.5))  # in workdir/data
    return c

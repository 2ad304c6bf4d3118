"""The demo with its clips and its images as two sources: one policy learns from both together.

    python -m evr1.main --config=configs/demo_joint.py --config.workdir=DIR

The rows are those of configs/demo.py, split by what they show.
"""

from configs import demo


def get_config():
    """Returns the joint demo's config."""
    c = demo.get_config()
    c.data.sources = (("train_video.jsonl", 0.5), ("train_image.jsonl", 0.5))  # in workdir/data
    return c

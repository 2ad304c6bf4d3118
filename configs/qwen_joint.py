"""Joint image-video training of Qwen3-VL-8B: two sources, mixed by weight, each with its budgets.

Give the paths on the command line: --config.model --config.data.sources --config.data.eval
--config.data.media_dir --config.data.shards --config.workdir, for example
--config.data.sources='(("videos.jsonl", 0.6), ("images.jsonl", 0.4))'
"""

from evr1.config import named


def get_config():
    """Returns the joint config."""
    c = named.load("qwen_video")
    c.data.video_fps = 2.0
    c.data.video_max_frames = 128
    c.data.video_min_pixels = 3136  # of a frame
    c.data.video_max_pixels = 262144  # of a frame: 256 visual tokens for two frames
    c.data.image_min_pixels = 65536  # of an image: small ones are enlarged, for fine print
    c.data.image_max_pixels = 1048576  # four times a frame: 1024 visual tokens
    return c

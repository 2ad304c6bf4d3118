"""Random media and the keys under which shards hold them."""

import numpy as np

from evr1.data.records import Media


def medium(seed, frames=4, size=(64, 96), is_video=True):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (frames, *size, 3), np.uint8)
    return Media(pixels, np.arange(frames) / 3.0 if is_video else np.zeros(0), is_video)


def key(n):
    return f"{n:032x}"

"""Remarks about media that decode without an error and yet may not show what they should.

They are counted and named, and never an error: a slide that stays is a video, too.
"""

import numpy as np

SIZES = "frame size changes"  # the other sizes are fitted into the first
BLANK = "plain"  # one level everywhere
STILL = "every frame the same"
CLIPPED = "levels cut off"

BLANK_SPAN = 8  # levels between the darkest and the brightest value: noise of a codec
CLIPPED_SHARE = 0.99  # of values that are 0 or 255


def of_frames(frames: np.ndarray, is_video: bool) -> tuple[str, ...]:
    """Returns what there is to say about decoded frames, uint8[T, H, W, 3].

    >>> of_frames(np.zeros((4, 32, 32, 3), np.uint8), is_video=True)
    ('plain',)
    """
    if int(frames.max()) - int(frames.min()) <= BLANK_SPAN:
        return (BLANK,)
    remarks = ()
    if is_video and all((frame == frames[0]).all() for frame in frames[1:]):
        remarks += (STILL,)
    return remarks

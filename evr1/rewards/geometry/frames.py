"""A row's coordinates in the frame that the prompt asks for, so that scores do not depend on it."""

from evr1.formats import box_frames
from evr1.rewards.base import Task


def to_asked(task: Task) -> tuple[float, float]:
    """Returns the factors of x and y from the ground truth's frame to the asked frame.

    A ground truth whose row names no frame (`box_scale`) is in the asked one.

    Raises:
        ValueError: the row's frame or size is wrong, or its size is missing where it is needed.
    """
    frame, size = box_frames.frame_of(task.extra), box_frames.size_of(task.extra)
    if not frame or not task.box_scale:
        return 1.0, 1.0
    return box_frames.factors(frame, task.box_scale, size)


def scale_box(
    box: tuple[float, float, float, float], factors: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Returns the box with its x and y multiplied.

    >>> scale_box((1, 2, 3, 4), (10, 100))
    (10, 200, 30, 400)
    """
    x, y = factors
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y

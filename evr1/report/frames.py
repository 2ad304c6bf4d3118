"""What the model saw, as small pictures inside the page."""

import base64
import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from evr1.report.spread import spread

Frames = Callable[[str, str], Sequence[np.ndarray]]  # (split, problem_id) -> each uint8[H, W, 3]

# (frames a prompt, pixels of the longer side): the first that fits the budget is taken
SIZES = ((16, 224), (8, 192), (8, 128), (4, 112), (3, 96))
_SAMPLE = 12  # prompts whose frames are tried at every size


def embed_frames(
    frames: Frames, prompts: Sequence[tuple[str, str]], max_bytes: int
) -> dict[str, list[str]]:
    """Returns data URIs of each prompt's frames, as many and as large as the budget lets.

    The size is settled on a few prompts. Where even the smallest is too much, prompts spread evenly
    over the sequence get frames and the others none: frames may have to be decoded from video, so
    no more are asked for than fit.

    Args:
        frames: gives the frames of a prompt; none where it has none.
        prompts: (split, problem_id) of each.
        max_bytes: of all data URIs together.

    Returns:
        By "split/problem_id"; prompts without frames are left out.
    """
    if not prompts:
        return {}
    order = spread(len(prompts))
    decoded = [frames(*prompts[i]) for i in order[:_SAMPLE]]
    count, side = SIZES[-1]
    for count, side in SIZES:
        used = sum(len(uri) for f in decoded for uri in encode(f, count, side))
        if used / len(decoded) * len(prompts) <= max_bytes:
            break
    out: dict[str, list[str]] = {}
    for i in order:
        uris = encode(frames(*prompts[i]), count, side)
        max_bytes -= sum(map(len, uris))
        if max_bytes < 0:
            break
        if uris:
            out["/".join(prompts[i])] = uris
    return out


def encode(frames: Sequence[np.ndarray], count: int, side: int) -> list[str]:
    """Returns JPEG data URIs of at most `count` frames, spread evenly.

    Args:
        frames: each uint8[H, W, 3].
        count: of them at most.
        side: pixels of the longer side at most.
    """
    if len(frames) > count:
        frames = [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]
    uris = []
    for frame in frames:
        image = Image.fromarray(frame)
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=75, optimize=True)
        uris.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
    return uris

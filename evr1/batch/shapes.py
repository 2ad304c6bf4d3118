"""The few shapes that batches have: every bucket that evr1 pads to is planned here."""

import bisect
import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from evr1.batch import vision_rows
from evr1.config import ShapeSettings
from evr1.data.records import Example, Geometry

_MOST_VISION_ROWS = 2**14  # of a prompt; each holds a frame or more
MAX_BUCKETS = 4  # shapes of each kind that are derived where the config gives none


@dataclasses.dataclass(frozen=True)
class ShapeTable:
    """The few shapes that batches may have; everything is padded up to the next one.

    `prompt_tokens` and `vision_rows` are ascending. `row_patches` is S, at least the patches of
    the largest frame.
    """

    prompt_tokens: tuple[int, ...]
    vision_rows: tuple[int, ...]
    row_patches: int
    completion_tokens: int

    def prompt_bucket(self, tokens: int) -> int:
        """Returns the smallest prompt length that holds `tokens`.

        Raises:
            ValueError: the prompt is longer than the largest bucket.
        """
        return _bucket(self.prompt_tokens, tokens, "prompt tokens", "shapes.prompt_tokens")

    def vision_bucket(self, rows: int) -> int:
        """Returns the smallest number of vision rows that holds `rows`.

        Raises:
            ValueError: more rows than the largest bucket.
        """
        return _bucket(self.vision_rows, rows, "vision rows", "shapes.vision_rows")

    def misfit(self, example: Example) -> str:
        """Returns why an example fits no bucket; "" where it does."""
        try:
            self.prompt_bucket(len(example.tokens))
            self.vision_bucket(vision_rows.count(example.grid_thw, self.row_patches))
        except ValueError as error:
            return str(error)
        return ""


def plan_shapes(
    settings: ShapeSettings,
    lengths: np.ndarray,
    grids: Sequence[np.ndarray],
    *,
    merge_size: int,
    max_prompt_tokens: int,
    completion_tokens: int,
) -> ShapeTable:
    """Returns the shapes of a run: those of its config, and derived ones where it gives none.

    Args:
        settings: the config's.
        lengths: int[rows], prompt tokens of every row that is used.
        grids: int[media, 3] of each of them, patches before merging.
        merge_size: patches on a side of a visual token.
        max_prompt_tokens: the limit of a prompt; long ones have coarser buckets on TPUs.
        completion_tokens: the limit of a completion.

    Raises:
        ValueError: a row exceeds the config's buckets.
    """
    frames = [int(vision_rows.units(grid).max()) for grid in grids if len(grid)]
    whole = merge_size**2
    row_patches = settings.row_patches or max(frames, default=whole)
    rows = [vision_rows.count(grid, row_patches) for grid in grids]
    table = ShapeTable(
        prompt_tokens=settings.prompt_tokens or _spaced(lengths, _prompt_step(max_prompt_tokens)),
        vision_rows=settings.vision_rows or _spaced(np.array(rows), 1),
        row_patches=row_patches,
        completion_tokens=completion_tokens,
    )
    table.prompt_bucket(int(lengths.max()))  # what does not fit is said now, not at its turn
    table.vision_bucket(max(rows))
    if row_patches % whole:
        raise ValueError(
            f"shapes.row_patches={row_patches} is not a multiple of merge_size**2={whole}; round "
            "it up"
        )
    return table


def shapes_of_examples(
    examples: Sequence[Example], geometry: Geometry, completion_tokens: int
) -> ShapeTable:
    """Returns buckets for these examples, rounded up so that other examples share them."""
    frames = [int(vision_rows.units(e.grid_thw).max(initial=0)) for e in examples]
    row_patches = round_up(max(frames, default=0), geometry.merge_size**2)
    rows = [vision_rows.count(e.grid_thw, row_patches) for e in examples]
    return ShapeTable(
        prompt_tokens=tuple(sorted({round_up(len(e.tokens), 32) for e in examples})),
        vision_rows=tuple(sorted({round_up(n, 1) if n else 0 for n in rows})),
        row_patches=row_patches,
        completion_tokens=completion_tokens,
    )


def shapes_of_text(
    max_prompt_tokens: int, geometry: Geometry, completion_tokens: int
) -> ShapeTable:
    """Returns buckets for prompts without media: powers of two from 512, and the limit.

    >>> shapes_of_text(3000, Geometry(16, 2, 2), 256).prompt_tokens
    (512, 1024, 2048, 3000)
    """
    powers = [2**k for k in range(9, 31) if 2**k < max_prompt_tokens]
    return ShapeTable(
        prompt_tokens=(*powers, max_prompt_tokens),
        vision_rows=(0,),
        row_patches=geometry.merge_size**2,
        completion_tokens=completion_tokens,
    )


def shapes_alike(prompt_tokens: int, row_patches: int, completion_tokens: int) -> ShapeTable:
    """Returns buckets for prompts of one size whose media may be of several."""
    return ShapeTable(
        prompt_tokens=(prompt_tokens,),
        vision_rows=(0, *sorted({round_up(n, 1, 4) for n in range(1, _MOST_VISION_ROWS + 1)})),
        row_patches=row_patches,
        completion_tokens=completion_tokens,
    )


def completion_bucket(tokens: int, limit: int) -> int:
    """Returns the smallest quarter of the limit that holds `tokens`.

    >>> completion_bucket(33, 100)
    50
    """
    quarters = [math.ceil(limit * i / 4) for i in range(1, 5)]
    return next(q for q in quarters if q >= tokens)


def round_up(size: int, multiple: int, steps: int = 2) -> int:
    """Returns the next of few sizes: `multiple` times 1, 2, 3, 4, 6, 8, 12, ...

    Args:
        size: what is to fit.
        multiple: the smallest size.
        steps: sizes between a power of two and the next, itself a power of two. With 2 at most a
            third of a size is padding, with 4 a fifth, with 8 a ninth.

    >>> [round_up(n, 32) for n in (1, 33, 100, 130, 200)]
    [32, 64, 128, 192, 256]
    >>> [round_up(n, 1, steps=4) for n in (3, 5, 9, 13, 17)]
    [3, 5, 10, 14, 20]
    """
    need = max(1, -(-size // multiple))
    step = max(1, (1 << (need - 1).bit_length()) // (2 * steps))
    return multiple * (-(-need // step) * step)


def groups_per_part(
    size: np.ndarray, n: int, max_tokens: int, total: int, group_multiple: int
) -> int:
    """Returns how many groups a microbatch holds: what fits, evened out over all microbatches.

    Args:
        size: int[2] or more, padded prompt and completion tokens of a group.
        n: completions of a group.
        max_tokens: padded tokens of a microbatch, all devices together.
        total: groups of the minibatch.
        group_multiple: number of devices that groups are spread over.

    Raises:
        ValueError: `group_multiple` groups exceed `max_tokens`.
    """
    p, r = int(size[0]), int(size[1])
    fits = max_tokens // (p + n * r) // group_multiple * group_multiple
    if not fits:
        raise ValueError(
            f"{group_multiple} groups of {p} prompt and {n} x {r} completion tokens are "
            f"{group_multiple * (p + n * r)} tokens, over train.microbatch_tokens={max_tokens}; "
            "raise it, or lower data.max_prompt_tokens or rollout.max_completion_tokens"
        )
    even = math.ceil(total / math.ceil(total / fits))
    return math.ceil(even / group_multiple) * group_multiple


def _prompt_step(max_prompt_tokens: int) -> int:
    """Returns what buckets of prompts are multiples of: on TPUs what the attention kernel pads long
    ones to."""
    import jax  # seconds, which --help need not wait for

    return 128 if max_prompt_tokens > 1024 and jax.default_backend() == "tpu" else 32


def _spaced(sizes: np.ndarray, multiple: int) -> tuple[int, ...]:
    """Returns up to MAX_BUCKETS multiples of `multiple`, evenly spaced, that hold all of `sizes`.

    >>> _spaced(np.array([90, 300, 470]), 32)
    (128, 256, 384, 480)
    """
    low, high = int(sizes.min(initial=sizes.max(initial=0))), int(sizes.max(initial=0))
    targets = np.linspace(0, high, MAX_BUCKETS + 1)[1:]
    rounded = {-(-math.ceil(s) // multiple) * multiple for s in targets}
    first = min(b for b in rounded if b >= low)
    return tuple(sorted(b for b in rounded if b >= first))


def _bucket(buckets: tuple[int, ...], need: int, what: str, field: str) -> int:
    i = bisect.bisect_left(buckets, need)
    if i == len(buckets):
        raise ValueError(
            f"{need} {what} are over the largest bucket {buckets[-1]}; "
            f"raise {field} or lower the pixel budget"
        )
    return buckets[i]

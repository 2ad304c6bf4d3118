"""The few shapes that batches have: every bucket that evr1 pads to is planned here."""

import bisect
import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from evr1.batch import few, vision_rows
from evr1.config import ShapeSettings
from evr1.data.records import Example, Geometry

_MOST_VISION_ROWS = 2**14  # of a prompt; each holds a frame or more
MAX_BUCKETS = 8  # sizes of each kind that are derived where the config gives none
MAX_PAIRS = 3  # of these, prompt tokens with vision rows, that have programs
MAX_PARTS = 4  # shapes of microbatches
PAIR_GAIN = PART_GAIN = 0.1  # share of all tokens that a further shape must save
_TOWER = 0.5  # what a visual token costs in the tower, in tokens of the language model


@dataclasses.dataclass(frozen=True)
class ShapeTable:
    """The few shapes that batches may have; everything is padded up to the next one.

    `prompt_tokens` and `vision_rows` are ascending. `row_patches` is S, at least the patches of
    the largest frame.

    Where it is planned for a data set, programs are foreseen: `pairs` are the prompt tokens and
    vision rows that a batch may have, and `parts` the prompt tokens, completion tokens and vision
    rows of the groups of a microbatch; the last one holds all. Empty: any bucket with any other.
    `minibatch_groups` are those of a whole minibatch, for which microbatches are evened out, so
    that all have the same shapes; 0: those that there are.
    """

    prompt_tokens: tuple[int, ...]
    vision_rows: tuple[int, ...]
    row_patches: int
    completion_tokens: int
    pairs: tuple[tuple[int, ...], ...] = ()
    parts: tuple[tuple[int, ...], ...] = ()
    minibatch_groups: int = 0

    @property
    def largest(self) -> tuple[int, int]:
        """Prompt tokens and vision rows that hold every prompt."""
        return self.prompt_tokens[-1], self.vision_rows[-1]

    def pair(self, tokens: int, rows: int) -> tuple[int, int]:
        """Returns the prompt tokens and vision rows of a batch that holds so many.

        Raises:
            ValueError: more than the largest buckets.
        """
        p, f = self.prompt_bucket(tokens), self.vision_bucket(rows)
        if self.pairs:
            p, f = few.first_that_holds(self.pairs, (p, f))
        return p, f

    def part(self, tokens: int, completion: int, rows: int, limit: int) -> tuple[int, ...]:
        """Returns prompt tokens, completion tokens and vision rows of groups that hold so many.

        Args:
            tokens: of the prompt.
            completion: tokens of the longest completion.
            rows: of the prompt's media.
            limit: of a completion.

        Raises:
            ValueError: more than the largest buckets.
        """
        p, f = self.prompt_bucket(tokens), self.vision_bucket(rows)
        if self.parts and limit == self.parts[-1][1]:
            return few.first_that_holds(self.parts, (p, completion, f))
        return p, completion_bucket(completion, limit), f

    def cache_tokens(self, tokens: int) -> int:
        """Returns the room for prompts in a cache, where the longest has so many tokens."""
        return self.largest[0] if self.pairs else self.prompt_bucket(tokens)

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
    # Where the config gives all buckets, each pair that rows have is used.
    is_given = bool(settings.prompt_tokens and settings.vision_rows)
    pairs = few.choose(
        _needs(table, lengths, grids),
        functools.partial(_pair_cost, table.row_patches / whole),
        most=len(lengths) + 1 if is_given else MAX_PAIRS,
        gain=0 if is_given else PAIR_GAIN,
    )
    return dataclasses.replace(table, pairs=pairs)


def with_parts(
    table: ShapeTable,
    lengths: np.ndarray,
    grids: Sequence[np.ndarray],
    *,
    group: tuple[int, int],
    minibatch_groups: int,
) -> ShapeTable:
    """Returns the planned shapes with those of the microbatches of a training.

    Args:
        table: of `plan_shapes`.
        lengths: see `plan_shapes`.
        grids: likewise.
        group: completions of a group, and the limit of their tokens.
        minibatch_groups: see `ShapeTable`.
    """
    n, limit = group
    needs = _needs(table, lengths, grids)

    def cost(shapes: np.ndarray) -> np.ndarray:
        return _pair_cost(table.row_patches / 4, shapes[:, [0, 2]]) + n * shapes[:, 1]

    # How long completions will be is not known: all quarters of the limit alike.
    quarters = sorted({completion_bucket(max(1, limit * i // 4), limit) for i in range(1, 5)})
    needs = np.concatenate([np.insert(needs, 1, tokens, axis=1) for tokens in quarters])
    parts = few.choose(needs, cost, most=max(MAX_PARTS, len(table.pairs)), gain=PART_GAIN)
    return dataclasses.replace(table, parts=parts, minibatch_groups=minibatch_groups)


def _needs(table: ShapeTable, lengths: np.ndarray, grids: Sequence[np.ndarray]) -> np.ndarray:
    """Returns int[rows + 1, 2], prompt tokens and vision rows of the buckets of every row, and the
    largest ones."""
    rows = [vision_rows.count(grid, table.row_patches) for grid in grids]
    needs = zip(
        map(table.prompt_bucket, lengths.tolist()), map(table.vision_bucket, rows), strict=True
    )
    return np.array([*needs, table.largest])


def _pair_cost(row_tokens: float, shapes: np.ndarray) -> np.ndarray:
    """Returns about what prompts of these tokens and vision rows cost, in tokens."""
    return shapes[:, 0] + _TOWER * shapes[:, 1] * row_tokens


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

    >>> _spaced(np.array([190, 300, 470]), 32)
    (192, 256, 320, 384, 416, 480)
    >>> _spaced(np.array([0, 3]), 1)
    (0, 1, 2, 3)
    """
    low, high = int(sizes.min(initial=sizes.max(initial=0))), int(sizes.max(initial=0))
    targets = np.linspace(0, high, MAX_BUCKETS + 1)[1:]
    rounded = {-(-math.ceil(s) // multiple) * multiple for s in targets}
    rounded |= {0} if low == 0 else set()  # without media
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

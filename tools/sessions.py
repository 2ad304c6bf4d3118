"""A model with its processor, and rows made ready for it: what commands that run a model share.

Not a command of its own. Importing it is quick: jax comes with `open_session`.
"""

import argparse
import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING

import inference

from evr1.data import batch, media, positions
from evr1.data.decode import DecodePool
from evr1.data.errors import MediaError
from evr1.data.processor import Processor
from evr1.data.records import Example, Geometry, Row
from evr1.types import Params, ShapeTable

if TYPE_CHECKING:
    from evr1.models import Model


@dataclasses.dataclass(frozen=True)
class Session:
    """A model, its processor and where media come from."""

    model: "Model"
    params: Params
    processor: Processor
    source: media.MediaSource
    raw: bool
    workers: int

    @property
    def pos_grid(self) -> int:
        """Side of the model's learned position table."""
        return math.isqrt(self.model.config.vision.table)

    @property
    def geometry(self) -> Geometry:
        """How pixels are cut into patches."""
        return self.processor.geometry

    def encode(self, row: Row) -> Example | MediaError:
        """The row ready for the model, or why its media cannot be used."""
        try:
            loaded = [self.source.load(request) for request in media.requests(row)]
        except MediaError as error:
            return error
        return self.processor.encode(row, loaded, raw=self.raw)

    def sampler(self, examples: Sequence[Example], flags: argparse.Namespace, n: int, slots: int):
        """A sampler of n completions of each example, up to --max_tokens."""
        from evr1.sampler.driver import Sampler  # as in open_session

        return Sampler(
            self.model,
            shapes=shape_table(examples, self.geometry, flags.max_tokens),
            geometry=self.geometry,
            pos_grid=self.pos_grid,
            n=n,
            slots=slots,
            window=flags.window,
            pad_id=self.processor.pad_id,
        )

    def chunks(
        self, todo: Sequence[Row], size: int
    ) -> Iterator[tuple[list[Row], list[Example | MediaError]]]:
        """Encoded rows, `size` at a time; the next ones are decoded meanwhile."""
        with futures.ThreadPoolExecutor(self.workers) as pool:
            waiting: tuple[list[Row], list] | None = None
            for at in range(0, len(todo) + size, size):  # one more than there are, to end with
                chunk = list(todo[at : at + size])
                coming = chunk, [pool.submit(self.encode, row) for row in chunk]
                if waiting is not None and waiting[0]:
                    yield waiting[0], [one.result() for one in waiting[1]]
                waiting = coming


def open_session(flags: argparse.Namespace, stack: contextlib.ExitStack) -> Session:
    """Reads the model.

    Raises:
        ValueError: the directory is no model that evr1 knows, or budgets cross.
    """
    from evr1.models import hf, load_model  # seconds, which --help must not wait for

    processor = Processor.from_hf(
        str(hf.side_dir(flags.model)), flags.template, flags.thinking, flags.box_scale
    )
    model = load_model(flags.model, dtype=flags.dtype)
    pool = stack.enter_context(DecodePool(flags.workers, flags.timeout))
    source = media.MediaSource(
        budgets=inference.budgets(flags),
        geometry=processor.geometry,
        pool=pool,
        media_dir=flags.media_dir,
        mode="realtime_only",
    )
    params = hf.load_params(flags.model, model)
    return Session(model, params, processor, source, flags.prompt == "raw", flags.workers)


def shape_table(
    examples: Sequence[Example], geometry: Geometry, completion_tokens: int
) -> ShapeTable:
    """Buckets for these examples, rounded up so that other examples have the same ones."""
    whole = geometry.merge_size**2
    frames = [int(positions.units(e.grid_thw).prod(axis=1).max(initial=0)) for e in examples]
    row_patches = round_up(max(frames, default=0), whole)
    used = [batch.vision_rows(e.grid_thw, row_patches) for e in examples]
    return ShapeTable(
        prompt_tokens=tuple(sorted({round_up(len(e.tokens), 32) for e in examples})),
        vision_rows=tuple(sorted({round_up(n, 1) if n else 0 for n in used})),
        row_patches=row_patches,
        completion_tokens=completion_tokens,
    )


def round_up(size: int, multiple: int) -> int:
    """The next of few sizes: `multiple` times 1, 2, 3, 4, 6, 8, 12, ...

    >>> [round_up(n, 32) for n in (1, 33, 100, 130, 200)]
    [32, 64, 128, 192, 256]
    """
    need = max(1, -(-size // multiple))
    power = 1 << (need - 1).bit_length()
    return multiple * (power * 3 // 4 if power >= 4 and need <= power * 3 // 4 else power)

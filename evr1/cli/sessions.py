"""An actor with its weights, and rows made ready for it: what commands that run a model share.

Not a command of its own. Importing it is quick: jax comes with `open_session`.
"""

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING

from evr1.cli import inference
from evr1.data import budget_flags
from evr1.data.errors import MediaError
from evr1.data.media import video_budget
from evr1.data.media.decode import DecodePool
from evr1.data.media.source import MediaSource, media_requests
from evr1.data.processor import Processor
from evr1.data.records import Example, Row
from evr1.types import Params

if TYPE_CHECKING:
    from evr1.sampler.actor import Actor


@dataclasses.dataclass(frozen=True)
class Session:
    """An actor, its weights, and how rows become prompts."""

    actor: "Actor"
    params: Params
    raw: bool
    workers: int
    source: MediaSource

    def chunks(
        self, rows: Sequence[Row], size: int
    ) -> Iterator[tuple[list[Row], list[Example | MediaError]]]:
        """Yields encoded rows, `size` at a time; the next ones are decoded meanwhile."""
        with futures.ThreadPoolExecutor(self.workers) as pool:
            waiting: tuple[list[Row], list] | None = None
            for at in range(0, len(rows) + size, size):  # one more than there are, to end with
                chunk = list(rows[at : at + size])
                coming = chunk, [pool.submit(self.actor.encode, row, raw=self.raw) for row in chunk]
                if waiting is not None and waiting[0]:
                    yield waiting[0], [one.result() for one in waiting[1]]
                waiting = coming

    def remarks(self, rows: Sequence[Row]) -> list[str]:
        """Returns lines about media of these rows that may show nothing."""
        media = {r: row.source for row in rows for r in media_requests(row)}
        found = ((r.name, source, self.source.remarks(r)) for r, source in media.items())
        return self.source.told.lines(found, len(media))


def open_rows(
    flags: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[Processor, MediaSource]:
    """Returns what makes a row's prompt, and where its pixels come from.

    Args:
        flags: of the command.
        stack: closes the decoding processes.

    Raises:
        ValueError: the directory is no model that evr1 knows, or budgets cross.
    """
    from evr1.models.io import hf  # seconds, which --help must not wait for

    side = hf.side_dir(flags.model)
    processor = Processor.from_hf(
        str(side),
        flags.template,
        flags.thinking,
        flags.box_scale,
        flags.template_variables,
        flags.sanitize,
    )
    source = MediaSource(
        budgets=video_budget.of_directory(budget_flags.budgets(flags), side),
        geometry=processor.geometry,
        pool=stack.enter_context(DecodePool(flags.workers, flags.timeout)),
        media_dir=flags.media_dir,
        shards=inference.shards(flags),
    )
    return processor, source


def open_session(
    flags: argparse.Namespace,
    stack: contextlib.ExitStack,
    rows: Sequence[Row],
    say: Callable[[str], None],
) -> Session:
    """Reads the model.

    Args:
        flags: of the command.
        stack: closes the decoding processes.
        rows: that will be shown.
        say: told what a typical clip costs, where neither a run nor shards have its frames.

    Raises:
        ValueError: the directory is no model that evr1 knows, budgets cross, or the mesh does not
            fit the devices.
    """
    from evr1.models.io import hf  # seconds, which --help must not wait for
    from evr1.parallel.mesh import make_mesh
    from evr1.sampler.actor import open_actor

    processor, source = open_rows(flags, stack)
    sizes = inference.mesh_sizes(flags.mesh)
    if not (flags.run or flags.shards) and any(row.videos for row in rows):
        side = hf.side_dir(flags.model)
        limits = video_budget.of_directory(budget_flags.budgets(flags), side)
        say(video_budget.describe(limits, side, processor.geometry))
    actor = open_actor(
        flags.model,
        processor,
        dtype=flags.dtype,
        mesh=make_mesh(**sizes) if sizes is not None else None,
        window=flags.window,
        source=source,
    )
    return Session(
        actor,
        actor.load(flags.model, flags.adapter),
        flags.prompt == "raw",
        flags.workers,
        source,
    )

"""The rows of a run with their media: what it trains on, and what is held out."""

import collections
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evr1.config import DataSettings, columns, urls
from evr1.data import left_out, rows
from evr1.data.errors import MediaError
from evr1.data.loader import Loader
from evr1.data.media import storage, video_budget
from evr1.data.media.decode import DecodePool
from evr1.data.media.place import Place, place_of
from evr1.data.media.preprocess import preprocess, progress_bar
from evr1.data.media.quarantine import Quarantine
from evr1.data.media.requests import Opener
from evr1.data.media.source import MediaSource, media_requests
from evr1.data.order import Source
from evr1.data.processor import Processor
from evr1.data.records import Budgets, Example, Geometry, Row
from evr1.data.remote.cache import FileCache
from evr1.data.share import Share
from evr1.data.shown import ShownRows
from evr1.data.sizes import Sizes
from evr1.data.skip import find_rows


class RunRows(NamedTuple):
    """The rows of a run.

    Attributes:
        train: of `data.train`, or of all of `data.sources` in order.
        sources: how many of them each source has, and its weight; empty for a single file.
        heldout: of `data.eval`.
    """

    train: list[Row]
    sources: list[Source]
    heldout: list[Row]

    @property
    def all(self) -> list[Row]:
        """Training rows, then held-out ones."""
        return [*self.train, *self.heldout]


class Batches(NamedTuple):
    """The sizes and the order of batches.

    Attributes:
        groups: prompts of a training batch.
        prefetch: training batches to have ready.
        seed: of the order of the training rows.
        share: what of each batch this host loads.
    """

    groups: int
    prefetch: int
    seed: int
    share: Share = Share()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Rows, their media, and their loaders.

    Attributes:
        train: endless; yields lists of examples.
        heldout: makes a loader of the held-out rows, once through, in file order, from the prompts
            of a batch.
    """

    rows: RunRows
    source: MediaSource
    train: Loader
    heldout: Callable[[int], Loader]

    def example(self, source: str) -> Example:
        """Returns the example of a training row, by its file and line.

        Raises:
            ValueError: there is no such row, or its media cannot be used any more.
        """
        index = next((i for i, r in enumerate(self.rows.train) if r.source == source), None)
        example = None if index is None else self.train.load(index)
        if example is None:
            raise ValueError(
                f"{source}: a checkpoint holds completions of this row, which is gone or whose "
                "media cannot be used; restore them, or choose a new config.workdir"
            )
        return example

    @property
    def shown(self) -> ShownRows:
        """What the rows show to people."""
        return ShownRows(self.rows.train, self.rows.heldout, self.source)

    def fitting(self, misfit: Callable[[Example], str], tell: Callable[[str], None]) -> "Dataset":
        """Returns the data set with loaders that pass over examples without a place in batches.

        Args:
            misfit: see `Loader`.
            tell: see `Loader`; of the held-out rows.
        """
        self.train.misfit = misfit
        make = self.heldout

        def heldout(groups: int) -> Loader:
            loader = make(groups)
            loader.misfit, loader.tell = misfit, tell
            return loader

        return dataclasses.replace(self, heldout=heldout)

    def sizes(
        self, max_prompt_tokens: int, tell: Callable[[str], None] = lambda line: None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Returns `planned_sizes` of training rows, then of held-out ones.

        Args:
            max_prompt_tokens: longer rows are left out.
            tell: takes a line about rows that are left out.
        """
        lengths = [self.train.lengths]
        if self.rows.heldout:
            with self.heldout(1) as loader:
                lengths.append(loader.lengths)
        splits = {"training": self.rows.train, "held-out": self.rows.heldout}
        named = zip(splits, splits.values(), lengths, strict=False)  # there may be none held out
        for split, some, planned in named:
            for line in left_out.lines(some, planned, max_prompt_tokens, split):
                tell(line)
        return planned_sizes(self.rows.all, np.concatenate(lengths), self.source, max_prompt_tokens)


def read_rows(
    settings: DataSettings,
    canonical: Callable[[object], str],
    heldout_limit: int = 0,
    check: Callable[[Row], None] | None = None,
    note: Callable[[str], None] = lambda line: None,
    sizes: Sizes | None = None,
) -> RunRows:
    """Reads the data files.

    A problem_id that more than one source has gets the name of its file in front; where two files
    have the same name, their paths.

    Args:
        settings: names the files.
        canonical: problem type as a row spells it -> as evr1 does.
        heldout_limit: held-out rows to use; 0: all.
        check: raises ValueError for a row that no completion can be scored for.
        note: gets a line about what is passed over, or read otherwise than it stands there.
        sizes: fills in the sizes of media; None: rows stay as they are.

    Raises:
        ValueError: a bad row, by file, line and field.
    """
    schema = rows.Schema(
        canonical=canonical,
        columns=columns.parse(settings.columns),
        problem_type=settings.problem_type,
        max_bad_share=settings.max_bad_rows_share,
        media_dir=settings.media_dir,
        media_cache=settings.media_cache,
        check=check,
        complete=None if sizes is None else sizes.complete,
    )
    heldout = rows.load_rows(settings.eval, schema, note) if settings.eval else []
    heldout = heldout[: heldout_limit or None]
    if not settings.sources:
        return RunRows(rows.load_rows(settings.train, schema, note), [], heldout)
    files = [rows.load_rows(path, schema, note) for path, _ in settings.sources]
    uses = collections.Counter(i for file in files for i in {row.problem_id for row in file})
    train = []
    paths = [path for path, _ in settings.sources]
    stems = [Path(path).stem for path in paths]
    prefixes = stems if len(set(stems)) == len(stems) else paths
    for prefix, file in zip(prefixes, files, strict=True):
        for row in file:
            is_shared = uses[row.problem_id] > 1
            name = f"{prefix}/{row.problem_id}" if is_shared else row.problem_id
            train.append(dataclasses.replace(row, problem_id=name))
    parts = [Source(len(file), w) for (_, w), file in zip(settings.sources, files, strict=True)]
    return RunRows(train, parts, heldout)


def budgets(settings: DataSettings, side_dir: str | Path) -> Budgets:
    """Returns the limits on the frames and pixels of media.

    Args:
        settings: of the data.
        side_dir: of the model's processor files.

    Raises:
        ValueError: `data.video_budget` asks for a size that the model's directory does not have.
    """
    names = [field.name for field in dataclasses.fields(Budgets) if field.name != "video_size"]
    limits = Budgets(**{name: getattr(settings, name) for name in names})
    return video_budget.of_directory(limits, Path(side_dir))


def chooses_frames(settings: DataSettings, run_rows: Sequence[Row]) -> bool:
    """Returns whether frames of videos are chosen here, and not only read from shards."""
    is_read = settings.shards and settings.source != "realtime_only" and not settings.preprocess
    return not is_read and any(row.videos for row in run_rows)


def shards_of(settings: DataSettings) -> str | Place:
    """Returns the directory of shards, as it is now; empty: none is read.

    Raises:
        ValueError: it is in a bucket that cannot be read.
    """
    if settings.source == "realtime_only":
        return ""
    return place_of(settings.shards, FileCache(settings.shard_cache, settings.shard_cache_gib))


def row_sizes(
    settings: DataSettings,
    limits: Budgets,
    geometry: Geometry,
    box_scale: str,
    share: Share | None = None,
) -> Sizes:
    """Returns what gives rows of boxes the sizes of their media.

    Args:
        settings: of the data.
        limits: of `budgets`.
        geometry: of the model.
        box_scale: the frame that prompts ask for.
        share: which files this host opens; None: all.
    """
    return Sizes(
        Opener(settings.media_dir, limits, geometry),
        box_scale,
        "" if settings.preprocess and urls.is_bucket(settings.shards) else shards_of(settings),
        settings.workers,
        settings.decode_timeout_s,
        share or Share(),
    )


def fill_shards(
    settings: DataSettings,
    run_rows: Sequence[Row],
    limits: Budgets,
    geometry: Geometry,
    line: Callable[[str], None],
) -> None:
    """Decodes the media of these rows into `data.shards`, with a progress bar."""
    with progress_bar() as show:
        summary = preprocess(
            run_rows,
            settings.shards,
            budgets=limits,
            geometry=geometry,
            media_dir=settings.media_dir,
            workers=settings.workers,
            timeout_s=settings.decode_timeout_s,
            storage=settings.storage,
            on_progress=show,
        )
    for repair in summary.repairs:
        line(f"shards: {repair}")
    line(f"shards: {summary.line()}")  # what they show is told by describe_shards


def open_source(
    settings: DataSettings,
    limits: Budgets,
    geometry: Geometry,
    quarantine: Path,
    stack: contextlib.ExitStack,
) -> MediaSource:
    """Opens the source of pixels.

    Args:
        settings: of the data.
        limits: of `budgets`.
        geometry: of the model.
        quarantine: file that keeps what could not be decoded.
        stack: closes the decoding processes.

    Raises:
        ValueError: budgets that cross, or damaged shards.
    """
    shards = shards_of(settings)
    if settings.storage and os.path.isdir(shards):
        storage.agree(shards, settings.storage, is_new=False)
    pool = DecodePool(
        settings.workers, settings.decode_timeout_s, quarantine=Quarantine(quarantine)
    )
    source = MediaSource(
        budgets=limits,
        geometry=geometry,
        pool=stack.enter_context(pool),
        media_dir=settings.media_dir,
        shards=shards,
        mode=settings.source,
    )
    source.told.is_silent = settings.generate  # half of the demo's clips are to stand still
    return source


def open_dataset(
    settings: DataSettings,
    run_rows: RunRows,
    processor: Processor,
    source: MediaSource,
    batches: Batches,
    stack: contextlib.ExitStack,
) -> Dataset:
    """Plans the rows and starts to read ahead.

    Args:
        settings: of the data.
        run_rows: what to read.
        processor: of the model.
        source: of the media.
        batches: how large.
        stack: closes the loader.

    Raises:
        ValueError: bad rows or media, or prompts that are too long.
    """
    skipped = find_rows(settings.skip, run_rows.train)
    train = Loader(
        run_rows.train,
        processor,
        source,
        groups=batches.groups,
        seed=batches.seed,
        shuffle=settings.shuffle,
        curriculum=settings.curriculum,
        sources=run_rows.sources,
        skipped=skipped,
        prefetch_batches=batches.prefetch,
        share=batches.share,
        **_limits(settings),
    )
    stack.enter_context(train)
    heldout = functools.partial(
        heldout_loader,
        settings,
        run_rows.heldout,
        processor,
        source,
        share=batches.share,
    )
    return Dataset(run_rows, source, train, heldout)


def heldout_loader(
    settings: DataSettings,
    heldout: Sequence[Row],
    processor: Processor,
    source: MediaSource,
    groups: int,
    share: Share | None = None,
) -> Loader:
    """Returns a loader of the held-out rows, once through, in file order.

    Args:
        settings: of the data.
        heldout: the rows.
        processor: of the model.
        source: of the media.
        groups: prompts of a batch at most.
        share: what of each batch this host loads; None: everything.
    """
    groups = min(groups, max(len(heldout), 1))
    limits = _limits(settings)
    return Loader(
        heldout,
        processor,
        source,
        groups=groups,
        shuffle=False,
        epochs=1,
        share=share,
        **limits,
    )


def describe_shards(settings: DataSettings, dataset: Dataset, share: Share) -> list[str]:
    """Returns lines about how many media are in the shards, and which of them may show nothing.

    None where no shards are used. All hosts call it together: each looks for the files that it
    opens to plan.
    """
    if not settings.shards or settings.source == "realtime_only":
        return []
    rows = {r: row.source for row in dataset.rows.all for r in media_requests(row)}
    requests = rows.keys()
    own = [r for r in requests if share.owns(r.name)]
    counts = share.gather([dataset.source.count_cached(own), *dataset.source.without_files(own)])
    cached, alone = (sum(one[i] for one in counts) for i in (0, 1))
    nowhere = [path for one in counts for path in one[2]]
    lines = [f"shards: {cached} of {len(requests)} media are there with these budgets"]
    lines += [f"  {line}" for line in dataset.source.lost_shards]
    folder = f"{settings.media_dir} (data.media_dir)" if settings.media_dir else "their paths"
    if alone:
        lines.append(
            f"  the files of {alone} of these are not in {folder}: they are read from the shards "
            "alone, and with other budgets would be missing"
        )
    if nowhere:
        are = "medium is" if len(nowhere) == 1 else "media are"
        lines.append(
            f"  {len(nowhere)} {are} neither in the shards nor in {folder}, and the rows are left "
            f"out: {', '.join(nowhere[:3])}{' and others' * (len(nowhere) > 3)}"
        )
    if cached + len(nowhere) < len(requests):
        lines.append(
            "  the others are decoded at every use: run evr1 preprocess on all data "
            "files with the budgets of this config, or set data.preprocess"
        )
    about = dataset.source.remarked.items()
    found = [[r.name, rows[r], list(kinds)] for r, kinds in about if r in rows]
    everywhere = [each for one in share.gather(found) for each in one]
    told = dataset.source.told.lines(everywhere, len(requests))
    return lines + [f"  {line}" for line in told]


def planned_sizes(
    run_rows: Sequence[Row], lengths: np.ndarray, source: MediaSource, max_prompt_tokens: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the planned size of every row that is used.

    Args:
        run_rows: the rows.
        lengths: int[rows], their prompt tokens as loaders plan them.
        source: of the media.
        max_prompt_tokens: longer rows are left out.

    Returns:
        int[used] prompt tokens, and of each row int[media, 3], patches before merging.
    """
    used = np.flatnonzero((lengths >= 0) & (lengths <= max_prompt_tokens)).tolist()
    return lengths[used], [_grid(run_rows[i], source) for i in used]


def _limits(settings: DataSettings) -> dict[str, Any]:
    return {
        "max_prompt_tokens": settings.max_prompt_tokens,
        "overlong": "drop" if settings.filter_overlong else "refuse",
        "max_overlong_share": settings.max_overlong_share,
        "max_failed_share": settings.max_failed_share,
        "threads": settings.workers,
    }


def _grid(row: Row, source: MediaSource) -> np.ndarray:
    try:
        sizes = [source.size(request).grid_thw for request in media_requests(row)]
    except MediaError:
        sizes = []
    return np.array(sizes, np.int64).reshape(-1, 3)

"""What generate.py and score_completions.py share: flags, model, encoded rows, results that resume.

Not a command of its own.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from rich import console, progress

from evr1.data import batch, media, positions, rows
from evr1.data.decode import DecodePool
from evr1.data.errors import MediaError
from evr1.data.processor import Processor
from evr1.data.records import Budgets, Example, Geometry, Row
from evr1.models import Model, hf, load_model
from evr1.types import Params, ShapeTable


def main(name: str, parser: argparse.ArgumentParser, run: Callable, argv: list[str] | None) -> int:
    """Runs a command. Exit status: 0, or 1 with one line on standard error."""
    flags = parser.parse_args(argv)
    try:
        return run(flags)
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; run it again to go on", file=sys.stderr)
        return 130


def parser(description: str | None) -> argparse.ArgumentParser:
    """The flags that both commands have."""
    default = Budgets()
    out = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = out.add_argument
    add("--model", required=True, help="HF directory")
    add("--rows", required=True, help="rows: .json, .jsonl or .parquet")
    add("--out", required=True, help=".jsonl to write; what it holds already is kept")
    add("--media_dir", default="", help="put in front of relative media paths")
    add(
        "--prompt",
        choices=("raw", "task"),
        default="task",
        help="the problem as it is, or through the template of its type (default)",
    )
    add("--template", default="", help="Jinja2 file instead of the built-in task template")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")
    add("--seed", type=int, default=0, help="of the draws (default 0)")
    add("--fps", type=float, default=default.video_fps, help="frames sampled per second")
    add("--max_frames", type=int, default=default.video_max_frames, help="frames of a video")
    add("--min_pixels", type=int, default=default.video_min_pixels, help="of a video frame")
    add("--max_pixels", type=int, default=default.video_max_pixels, help="of a video frame")
    add("--total_pixels", type=int, default=0, help="of a video; 0: default")
    add("--image_min_pixels", type=int, default=default.image_min_pixels, help="of an image")
    add("--image_max_pixels", type=int, default=default.image_max_pixels, help="of an image")
    add("--workers", type=int, default=2, help="decoding processes (default 2)")
    add("--timeout", type=float, default=120.0, help="seconds for one medium (default 120)")
    add("--max_failed_share", type=float, default=0.01, help="exit 1 when more media fail")
    return out


@dataclasses.dataclass(frozen=True)
class Session:
    """A model, its processor and where media come from."""

    model: Model
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
    processor = Processor.from_hf(str(hf.side_dir(flags.model)), flags.template)
    model = load_model(flags.model, dtype=flags.dtype)
    budgets = Budgets(
        video_fps=flags.fps,
        video_max_frames=flags.max_frames,
        video_min_pixels=flags.min_pixels,
        video_max_pixels=flags.max_pixels,
        video_total_pixels=flags.total_pixels,
        image_min_pixels=flags.image_min_pixels,
        image_max_pixels=flags.image_max_pixels,
    )
    pool = stack.enter_context(DecodePool(flags.workers, flags.timeout))
    source = media.MediaSource(
        budgets=budgets,
        geometry=processor.geometry,
        pool=pool,
        media_dir=flags.media_dir,
        mode="realtime_only",
    )
    params = hf.load_params(flags.model, model)
    return Session(model, params, processor, source, flags.prompt == "raw", flags.workers)


def load_rows(path: str, required: Sequence[str] = ("problem",)) -> list[Row]:
    """The rows of --rows; neither an answer nor a problem type is needed."""
    return rows.load_rows(path, required=required)


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


class Results:
    """The output file: rows of finished questions, a line each, written as they come."""

    def __init__(self, path: str, settings: dict[str, Any], per_row: int):
        """Opens the file and reads what an earlier run left there.

        Args:
            path: .jsonl; `path.settings.json` beside it says how the rows were made.
            settings: how they will be made.
            per_row: output rows for each input row; an incomplete set is made again.

        Raises:
            ValueError: the file was written with other settings, or by something else.
        """
        self._path, self._per_row = pathlib.Path(path), per_row
        if self._path.exists() and not self._path.is_file():
            raise ValueError(f"{path} is no regular file; give the name of a .jsonl file")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        record = self._path.with_name(self._path.name + ".settings.json")
        kept: dict[int, list[str]] = {}
        if self._path.exists() and self._path.stat().st_size:
            _check_settings(self._path, record, settings)
            kept = self._complete()
        _write_atomic(self._path, "".join(line for lines in kept.values() for line in lines))
        _write_atomic(record, json.dumps(settings, indent=1) + "\n")
        self.done = frozenset(kept)
        self._file = self._path.open("a", encoding="utf-8")

    def _complete(self) -> dict[int, list[str]]:
        """The lines of each row that has all of its output; a torn last line is dropped."""
        lines: dict[int, list[str]] = {}
        with self._path.open("rb") as file:  # text would end lines at U+2028 and the like, too
            for raw in file:
                try:
                    line = raw.decode("utf-8")
                    index = json.loads(line)["index"]
                except (ValueError, KeyError, TypeError):
                    continue
                lines.setdefault(index, []).append(line)
        return {i: found for i, found in lines.items() if len(found) == self._per_row}

    def add(self, made: Sequence[dict[str, Any]]) -> None:
        """Appends the output of one input row."""
        self._file.write("".join(json.dumps(m, ensure_ascii=False) + "\n" for m in made))
        self._file.flush()

    def sort(self) -> None:
        """Brings all lines into the order of the input rows; call it once everything is there."""
        self._file.close()
        kept = self._complete()
        lines = (line for index in sorted(kept) for line in kept[index])
        _write_atomic(self._path, "".join(lines))

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()


def settings(flags: argparse.Namespace) -> dict[str, Any]:
    """The flags that change results, and only those; the rows with a digest of what they hold."""
    free = {"out", "workers", "timeout", "max_failed_share", "slots", "window", "batch_tokens"}
    with open(flags.rows, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    changing = {k: v for k, v in vars(flags).items() if k not in free}
    return changing | {"rows": f"{flags.rows} (sha256 {digest})"}


def output_row(row: Row, **made: Any) -> dict[str, Any]:
    """The fields of the row as it was read, and what was made of it."""
    fields = dataclasses.asdict(row)
    fields = {**fields.pop("extra"), **fields}  # the row may be output itself, with an old index
    fields.pop("source")
    return {k: v for k, v in fields.items() if v is not None and v != ()} | made


class Failures:
    """Rows whose media cannot be used: told, counted, and too many of them are an error."""

    def __init__(self, total: int, max_share: float):
        self._total, self._max_share = total, max_share
        self._errors: list[str] = []

    def add(self, row: Row, error: MediaError) -> None:
        """Counts a row."""
        self._errors.append(f"{row.source} ({row.problem_id}): {error}")

    def check(self, out: console.Console) -> None:
        """Tells what was skipped.

        Raises:
            ValueError: more than the allowed share failed.
        """
        for error in self._errors[:10]:
            out.print(f"  skipped {error}", soft_wrap=True, highlight=False, markup=False)
        if len(self._errors) > self._max_share * self._total:
            raise ValueError(
                f"{len(self._errors)} of {self._total} rows have unusable media, over"
                f" --max_failed_share={self._max_share:g}; first: {self._errors[0]}"
            )


def bar(out: console.Console, what: str) -> progress.Progress:
    """A progress bar over rows."""
    return progress.Progress(
        progress.TextColumn(what),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.description}"),
        progress.TimeRemainingColumn(),
        console=out,
    )


def numbers(array: np.ndarray) -> list[float]:
    """Float32 values as the shortest decimals that read back as the same float32."""
    return [float(str(x)) for x in array]


def _check_settings(path: pathlib.Path, record: pathlib.Path, settings: dict[str, Any]) -> None:
    """Raises ValueError where a file is not output with these settings: it would be lost."""
    if not record.is_file():
        with path.open("rb") as file:
            if b'"logprobs": ' not in file.readline():
                raise ValueError(
                    f"{path} exists and is no output of this command; give another --out or delete"
                    " it"
                )
        return
    before = json.loads(record.read_text("utf-8"))
    for name in settings:
        if before.get(name) != settings[name]:
            raise ValueError(
                f"{path} was written with {name}={before.get(name)!r}, now {settings[name]!r}; give"
                " another --out or delete it"
            )


def _write_atomic(path: pathlib.Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, "utf-8")
    os.replace(part, path)

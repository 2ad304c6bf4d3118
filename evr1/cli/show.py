"""Shows one row as the model gets it: its prompt, its frames, their sizes and seconds.

    evr1 show --model HF_DIR --rows rows.jsonl --row 12 --out row.png
    evr1 show --run WORKDIR --rows rows.jsonl --row door-1

--row is the number of a line, as messages name it (rows.jsonl:12), or a problem_id. The prompt is
that of training, with placeholders of media counted; --out gets the frames on one sheet. The
model's weights are not read. --run takes model, budgets, template and shards from a run.
"""

import argparse
import contextlib
import io
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence

from PIL import Image
from rich import console

from evr1.cli import inference, outputs, sessions
from evr1.config import arguments
from evr1.data import budget_flags
from evr1.data import rows as data_rows
from evr1.data.errors import MediaError
from evr1.data.media.sheet import sheet
from evr1.data.media.source import media_requests
from evr1.data.processor import Processor
from evr1.data.records import Example, Media, Row
from evr1.data.shown import frames_of
from evr1.formats.words import counted


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 with one line on standard error."""
    return inference.main("show", _parser(), _run, argv)


def _run(flags: argparse.Namespace) -> int:
    if not flags.model and not flags.run:
        raise ValueError("give --model or --run")
    flags.model = flags.model or inference.run_config(flags.run)["model"]
    out = console.Console()
    say = inference.noter(out, flags)
    schema = inference.schema(flags, required=("problem",), complete=inference.complete(flags))
    row = _find(data_rows.load_rows(flags.rows, schema, say), flags.row, flags.rows)
    with contextlib.ExitStack() as stack:
        processor, source = sessions.open_rows(flags, stack)
        requests = media_requests(row)
        try:
            media = [source.load(request) for request in requests]
        except MediaError as error:
            raise ValueError(f"{row.source}: {error}") from None
        example = processor.encode(row, media, flags.prompt == "raw")
        for line in [*describe(row, example), *map(_medium, [r.name for r in requests], media)]:
            say(line)
        out.print(prompt(processor, example), soft_wrap=True, highlight=False, markup=False)
        if flags.out and media:
            write_sheet(pathlib.Path(flags.out), media)
            say(f"{flags.out}: the frames")
    return 0


def _find(rows: Sequence[Row], name: str, path: str) -> Row:
    """Returns the row of a line, else the one with this problem_id."""
    for found in (
        [row for row in rows if row.source.rpartition(":")[2] == name],
        [row for row in rows if row.problem_id == name],
    ):
        if found:
            return found[0]
    lines = [row.source.rpartition(":")[2] for row in rows]
    raise ValueError(
        f"--row {name}: {path} has no such line and no such problem_id; its rows stand in lines "
        f"{lines[0]} to {lines[-1]}"
    )


def describe(row: Row, example: Example) -> list[str]:
    """Returns lines about a row and its prompt."""
    visual = int(example.is_visual.sum())
    text = len(example.tokens) - visual
    answer = "none" if row.answer is None else str(row.answer)
    return [
        f"{row.source} ({row.problem_id}): {row.problem_type}, answer: {answer}",
        f"prompt: {counted(len(example.tokens), 'token')}, {visual:,} of them visual, "
        f"{text:,} text",
    ]


def prompt(processor: Processor, example: Example) -> str:
    """Returns the prompt as the tokens say it; runs of a placeholder are one, with their number."""
    return "".join(_texts(processor, example))


def _texts(processor: Processor, example: Example) -> Iterator[str]:
    pieces = zip(example.tokens.tolist(), example.is_visual.tolist(), strict=True)
    for is_visual, run in itertools.groupby(pieces, key=lambda piece: piece[1]):
        ids = [token for token, _ in run]
        if is_visual:
            yield f"[{processor.tokenizer.id_to_token(ids[0])} x {len(ids)}]"
        else:
            yield processor.tokenizer.decode(ids, skip_special_tokens=False)


def _medium(name: str, media: Media) -> str:
    """Returns a line about a medium."""
    count, height, width, _ = media.frames.shape
    source = " x ".join(map(str, reversed(media.source_size))) if any(media.source_size) else ""
    of = f" of {source}" if source else ""
    if not media.is_video:
        return f"{name}: an image, {width} x {height} pixels{of}"
    seconds = ", ".join(f"{t:.4g}" for t in media.timestamps)
    return f"{name}: {counted(count, 'frame')}, {width} x {height} pixels{of}, at {seconds} s"


def write_sheet(path: pathlib.Path, media: Sequence[Media]) -> None:
    """Writes a PNG of all frames in order, each with its second; every medium begins a line.

    Raises:
        ValueError: the name is none of a PNG.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out {path}: give the name of a .png file")
    picture = sheet([frames_of(each) for each in media])
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    outputs.write_bytes_atomic(path, data.getvalue())


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(
        in_buckets=inference.IN_BUCKETS,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--model",
        default="",
        help="HF directory, or a run's checkpoint (default: what --run began with)",
    )
    add("--rows", required=True, help="rows: .json, .jsonl or .parquet")
    add("--row", required=True, help="line of the file, or problem_id")
    add("--out", default="", help=".png to write: a sheet of the frames (default: none)")
    add("--run", default="", help="workdir of a run: its config gives the defaults of the flags")
    inference.add_shards(parser)
    inference.add_row_fields(parser)
    inference.add_prompt(parser)
    budget_flags.add(parser)
    add("--workers", type=int, default=1, help="decoding processes (default 1)")
    add("--timeout", type=float, default=120.0, help="seconds for one medium (default 120)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

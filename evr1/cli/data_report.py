"""Says what is in data files before anything is spent on them, and writes a page of it.

    evr1 data_report --data train.jsonl heldout.jsonl --media_dir D --model HF_DIR --out data.html

Rows by type and file, the answers, frames, sizes and prompt tokens, what would be left out and why,
what stands twice, also in two files, and some rows with their frames. Headers of media are read,
and the shown ones decoded; the model's weights are not. Exit status 1 where rows have media and
none of them can be used.
"""

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Callable, Sequence

import numpy as np
from rich import console, table

from evr1.cli import inference, outputs
from evr1.config import arguments
from evr1.data import budget_flags, left_out, processor, rows, survey
from evr1.data.errors import MediaError
from evr1.data.media import files, video_budget
from evr1.data.media.content import FileTable
from evr1.data.media.decode import DecodePool
from evr1.data.media.source import MediaSource, Request, media_requests
from evr1.data.records import Geometry, MediaSize, Row
from evr1.data.share import Share, measure, plan_lengths
from evr1.data.shown import ShownRows
from evr1.formats import problem_types
from evr1.formats.words import counted
from evr1.report import frames
from evr1.report import survey as page

_QWEN3_VL = Geometry(16, 2, 2)
_PICTURES, _SIDE = 8, 320


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 with one line on standard error."""
    return inference.main("data_report", _parser(), _run, argv)


def _run(flags: argparse.Namespace) -> int:
    out = console.Console()
    say = inference.noter(out, flags)
    (data, faults), folder = _read(flags, say), _folder(flags.media_dir)
    budgets, model = budget_flags.budgets(flags), None
    geometry = _QWEN3_VL
    if flags.model:
        from evr1.models.io import hf  # it loads jax, which nothing else here needs

        side = hf.side_dir(flags.model)
        model = processor.Processor.from_hf(str(side))
        geometry = model.geometry
        budgets = video_budget.of_directory(budgets, side)
        if told := model.spelled(data):
            faults.append(told)
    say(video_budget.spell(budgets, geometry))
    with contextlib.ExitStack() as stack:
        source = MediaSource(
            budgets=budgets,
            geometry=geometry,
            pool=stack.enter_context(DecodePool(flags.workers, flags.timeout)),
            media_dir=flags.media_dir,
            shards=inference.shards(flags),
        )
        requests = [media_requests(row) for row in data]
        distinct = list(dict.fromkeys(request for media in requests for request in media))
        sizes = measure(distinct, source, Share(), flags.workers)
        faults += survey.failures(sizes, folder)
        spreads = survey.media_spreads(sizes, geometry.patch_size)
        lengths = np.zeros(len(data), np.int32)
        if model is not None:
            lengths = plan_lengths(data, requests, sizes, model, Share())
            limit = flags.max_prompt_tokens or int(lengths.max(initial=0))
            faults += left_out.lines(data, lengths, limit, "data")
            spreads["prompt tokens"] = survey.spread(lengths[lengths >= 0].tolist())
        faults += survey.doubles(data, requests, _contents(distinct, sizes, source))
        samples = _samples(data, lengths, source, flags.samples if flags.out else 0)
    faults = [inference.name_flags(fault, flags) for fault in faults]
    types, answers = survey.by_type(data), survey.answers(data)
    _print(out, types, answers, spreads, faults)
    if flags.out:
        facts = [counted(len(data), "row"), counted(len(distinct), "distinct medium", "media")]
        facts.append(video_budget.spell(budgets, geometry))
        text = page.render(
            ", ".join(map(str, flags.data)), facts=facts, faults=faults, types=types,
            answers=answers, spreads=spreads, samples=samples,
        )  # fmt: skip
        outputs.write_atomic(pathlib.Path(flags.out), text)
        say(f"{flags.out}: written")
    survey.check_any(sizes, folder)
    return 0


def _folder(media_dir: str) -> str:
    """Returns where media are looked for, so that a wrong start shows, too."""
    place = files.place(media_dir)
    if not media_dir:
        return f"{place} (no --media_dir)"
    return f"{media_dir} ({place})" if media_dir != place else place


def _read(flags: argparse.Namespace, say: Callable[[str], None]) -> tuple[list[Row], list[str]]:
    """Returns the rows, those that cannot be read being told, and what is wrong with them."""
    schema = inference.schema(flags, required=("problem",))
    data = [row for path in flags.data for row in rows.load_rows(path, schema, say)]
    return data, inference.unscorable(data)


def _contents(
    requests: Sequence[Request],
    sizes: dict[Request, MediaSize | MediaError],
    source: MediaSource,
) -> dict[Request, str]:
    """Returns a name for the content of each file that can be used."""
    table, found = FileTable(None), {}
    for request in requests:
        is_file = not request.frames and not isinstance(sizes[request], MediaError)
        if is_file and files.is_file(source.path(request)):
            found[request] = table.identity(request.name, source.path(request))
    return found


def _samples(
    data: Sequence[Row], lengths: np.ndarray, source: MediaSource, count: int
) -> list[page.Sample]:
    """Returns rows to look at, of every type in turn, spread over its rows."""
    by_type: dict[str, list[int]] = {}
    for i, row in enumerate(data):
        if lengths[i] >= 0:
            by_type.setdefault(row.problem_type, []).append(i)
    each = max(-(-count // max(len(by_type), 1)), 1)
    chosen = [i for found in by_type.values() for i in found[:: -(-len(found) // each)]][:count]
    shown, samples = ShownRows(data, [], source), list[page.Sample]()
    for i in chosen:
        row, seen = data[i], shown.of_row(data[i])
        pictures = frames.encode_shown(seen, _PICTURES, _SIDE).frames if seen else []
        about = row.source, row.problem_type, row.problem, str(row.answer)
        names = [_named(request) for request in media_requests(row)]
        options = list(problem_types.label_options(row.options).items())
        samples.append(page.Sample(*about, int(lengths[i]), pictures, names, options))
    return samples


def _named(request: Request) -> str:
    """Returns a medium's name, with its seconds where the row shows a part of it."""
    name, (start, end) = request.name, (request.start, request.end)
    if len(request.frames) > 1:
        name += f" and {counted(len(request.frames) - 1, 'more picture')}"
    if start is None and end is None:
        return name
    return f"{name}, {start or 0:g} s to {'its end' if end is None else f'{end:g} s'}"


def _print(
    out: console.Console,
    types: dict[str, dict[str, int]],
    answers: Sequence[survey.Answers],
    spreads: dict[str, survey.Spread],
    faults: Sequence[str],
) -> None:
    by_type = {each.problem_type: each for each in answers}
    view = table.Table("problem type", "rows", "different answers", "the most common one")
    for kind, counts in types.items():
        each = by_type[kind]
        text, times = each.common[0]
        most = f"{text[:40]!r}, {times / each.rows:.0%}"
        view.add_row(kind, f"{sum(counts.values()):,}", f"{each.distinct:,}", most)
    out.print(view)
    view = table.Table("", "count", "least", "median", "mean", "95 % up to", "most")
    for what, s in spreads.items():
        view.add_row(what, f"{s.n:,}", *(f"{value:,.4g}" for value in s[1:]))
    out.print(view)
    for fault in faults:
        out.print(fault, soft_wrap=True, markup=False, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(
        in_buckets=(*inference.IN_BUCKETS, "data"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", nargs="+", required=True, help="rows: .json, .jsonl or .parquet")
    inference.add_row_fields(parser)
    add("--model", default="", help="HF directory, for the tokens of prompts; empty: not counted")
    add("--run", default="", help="workdir of a run: its config gives the defaults of the flags")
    add("--out", default="", help="page to write; empty: none")
    inference.add_shards(parser)
    add("--max_prompt_tokens", type=int, default=0, help="of the training; 0: no limit")
    budget_flags.add(parser)
    add("--samples", type=int, default=24, help="rows on the page")
    add("--workers", type=int, default=4, help="decoding processes")
    add("--timeout", type=float, default=120.0, help="seconds for one medium")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Decodes every image and video of data files once, into shards that training reads.

    evr1 preprocess --data rows.jsonl --media_dir D --out SHARDS --model HF_DIR
    evr1 preprocess --config=qwen_video --config.data.train=rows.jsonl ...

--config and its fields are those of `evr1 train`: data.train, data.eval or data.sources, media_dir,
shards, model, the budgets and how rows are read. --run takes the same from a run. A flag that is
given goes before both.

Running it again continues: what is in the shards is not decoded a second time. What cannot be
decoded is listed in SHARDS/quarantine.jsonl with the reason, and is tried again once the file has
changed or, where it is missing, is there.
"""

import argparse
import sys

from rich import console, progress

from evr1.cli import inference
from evr1.config import arguments, command
from evr1.data import budget_flags, processor, rows
from evr1.data.media import place, preprocess, requests, shards, storage, verify, video_budget
from evr1.data.records import Geometry
from evr1.formats import problem_types
from evr1.formats.part import Part
from evr1.formats.words import counted

_OWN_FIELDS = {  # flag: the field of a config, beside those of all commands
    "out": "data.shards",
    "model": "model",
    "workers": "data.workers",
    "timeout": "data.decode_timeout_s",
    "max_failed_share": "data.max_failed_share",
    "storage": "data.storage",
}
_TIMEOUT = (
    "seconds for one medium, and 0.05 more for each frame to decode; media that took too long are "
    "tried again under a larger one"
)
_PART = (
    "i/N: only the i-th of N shares of the media, by their content; start all N wherever you like, "
    "at the same time, on one --out"
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 with one line on standard error."""
    fields, rest = _split(sys.argv[1:] if argv is None else argv)
    flags = _parser().parse_args(rest)
    try:
        flags = _with_config(flags, fields, rest)
        return _run(flags)
    except (ValueError, OSError) as error:
        print(
            f"{arguments.program('preprocess_videos')}: {inference.name_flags(str(error), flags)}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            f"{arguments.program('preprocess_videos')}: interrupted; run it again to go on",
            file=sys.stderr,
        )
        return 130


def _run(flags: argparse.Namespace) -> int:
    part = Part.parse(flags.part)
    out = console.Console()
    if flags.verify:
        return _verify(flags, out)
    say = inference.noter(out, flags)
    budgets = budget_flags.budgets(flags)
    requests.check_budgets(budgets)
    preprocess.check_free(flags.out, part, flags.num_shards)
    schema = inference.schema(flags, required=("problem",), canonical=_type_or_spelling)
    data = [row for path in flags.data for row in rows.load_rows(path, schema, say)]
    for line in inference.unscorable(data):
        say(line)
    geometry = Geometry(flags.patch_size, flags.temporal_patch_size, flags.merge_size)
    side = None
    if flags.model:
        from evr1.models.io import hf  # it loads jax, which nothing else here needs

        side = hf.side_dir(flags.model)
        budgets = video_budget.of_directory(budgets, side)
        model = processor.Processor.from_hf(str(side))
        geometry = model.geometry
        if told := model.spelled(data):
            say(told)
    if side is not None and any(row.videos for row in data):
        say(video_budget.describe(budgets, side, geometry))
    elif side is None and budgets.video_budget != "qwen_vl_utils":
        raise ValueError(
            f"--video_budget={budgets.video_budget} needs --model; give a HF directory"
        )
    say(f"{counted(len(data), 'row')} from {', '.join(flags.data)}")
    say(video_budget.spell(budgets, geometry))
    with preprocess.progress_bar(out) as show:
        summary = preprocess.preprocess(
            data,
            flags.out,
            budgets=budgets,
            geometry=geometry,
            media_dir=flags.media_dir,
            workers=flags.workers,
            timeout_s=flags.timeout,
            memory_bytes=int(flags.memory * 2**30),
            part=part,
            num_shards=flags.num_shards,
            storage=flags.storage,
            on_progress=show,
        )
    for repair in summary.repairs:
        say(f"  mended: {repair}")
    say(f"{flags.out}: {summary.line()}")
    is_over = len(summary.failed) > flags.max_failed_share * summary.total
    failed = [f"failed: {error}" for error in summary.failed[:10]]
    for line in [*summary.warnings(), *failed[is_over:]]:  # the error names the first
        say(f"  {line}")
    if is_over:
        raise ValueError(
            f"{len(summary.failed)} of {summary.total} media failed, over --max_failed_share="
            f"{flags.max_failed_share:g}; first: {summary.failed[0]} "
            f"(all: {flags.out.rstrip('/')}/{shards.QUARANTINE})"
        )
    return 0


def _verify(flags: argparse.Namespace, out: console.Console) -> int:
    with progress.Progress(*progress.Progress.get_default_columns(), console=out) as bar:
        task = bar.add_task("reading shards", total=None)

        def show(report: verify.Report, total: int) -> None:
            bar.update(task, total=total, completed=report.shards)

        root = place.place_of(flags.out)
        report = verify.verify(root, workers=flags.workers, on_progress=show)
    read = f"{counted(report.records, 'record')} in {counted(report.shards, 'shard')}"
    out.print(
        f"{flags.out}: {read}, {report.record_bytes / 1e6:.1f} MB read, "
        f"{counted(len(report.faults), 'fault')}",
        soft_wrap=True,
    )
    for fault in report.faults[:20]:
        out.print(f"  {fault}", soft_wrap=True, markup=False, highlight=False)
    if report.faults:
        raise ValueError(
            f"{counted(len(report.faults), 'fault')} in {flags.out}; run evr1 preprocess again "
            "with the rows, which mends indexes and decodes what is gone; delete the shard of a "
            "damaged entry before"
        )
    return 0


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments that set fields of a config, and the others."""
    fields = [arg for arg in argv if arg.startswith("--config.")]
    return fields, [arg for arg in argv if arg not in fields]


def _with_config(
    flags: argparse.Namespace, fields: list[str], argv: list[str]
) -> argparse.Namespace:
    """Returns the flags with the defaults that a config or a run gives.

    Raises:
        ValueError: both are given, neither names a field that is needed, or the config is bad.
    """
    parser = _parser()
    if flags.config and flags.run:
        raise ValueError("--config and --run are given; give one of them")
    if fields and not flags.config:
        raise ValueError(f"{fields[0]} without --config; give its name or file")
    if flags.config or flags.run:
        config = inference.run_config(flags.run) if flags.run else None
        if config is None:
            config = command.read_config([f"--config={flags.config}", *fields]).to_dict()
        where = f"{flags.run}/config.json" if flags.run else f"--config={flags.config}"
        data = config["data"]
        files = [path for path, _ in data["sources"]] or [data["train"]]
        unset = {"out": ""}  # their values tell types
        of_config = inference.RUN_FIELDS | _OWN_FIELDS
        known = {**vars(flags), **unset}
        known["model"] = known["model"] or ""
        config |= {"model": config["model"] or ""}
        parser.set_defaults(
            **inference.defaults(config, where, known, of_config),
            data=[path for path in (*files, data["eval"]) if path],
        )
        flags = parser.parse_args(argv)
    if not flags.out:
        raise ValueError("--out is not given; give a directory of shards, or --config")
    if not (flags.data or flags.verify):
        raise ValueError(
            "--data is missing; give files of rows, --config, or --verify to read what is there"
        )
    return flags


def _type_or_spelling(problem_type: object) -> str:
    """Returns a problem type, an unknown one as it stands: what a row asks does not matter here."""
    try:
        return problem_types.canonical(problem_type)
    except ValueError:
        return str(problem_type)


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(
        in_buckets=("out", "data", "media_dir"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", "--rows", nargs="+", default=[], help="rows: .json, .jsonl or .parquet")
    add("--config", default="", help="name or file of a config: the defaults of all flags")
    add("--run", default="", help="workdir of a run, likewise")
    inference.add_row_fields(parser)
    add(
        "--out",
        "--shards",
        default="",
        help="directory of shards, or its address in a bucket (s3://, gs://), made or extended",
    )
    add(
        "--model",
        default="",
        help="HF directory that gives the geometry, instead of the next three",
    )
    add("--patch_size", type=int, default=16, help="pixels on a side of a patch")
    add("--merge_size", type=int, default=2, help="patches on a side of a visual token")
    add("--temporal_patch_size", type=int, default=2, help="frames in a patch")
    budget_flags.add(parser)
    add("--workers", type=int, default=4, help="decoding processes")
    add(
        "--memory",
        type=float,
        default=0.0,
        help="GiB for pixels in flight, over all processes; 0: half of the machine's",
    )
    add("--timeout", type=float, default=120.0, help=_TIMEOUT)
    add(
        "--verify",
        action="store_true",
        help="only read all that is in --out and compare it with its hashes; exit 1 on a fault",
    )
    add(
        "--storage",
        choices=storage.NAMES,
        default="",
        help="how pixels are kept; default: as --out has them, raw in a new one",
    )
    add("--part", default="1/1", help=_PART)
    add(
        "--num_shards",
        type=int,
        default=0,
        help="shards that --out is cut into, kept there; 0: with --part some 32 media a shard, "
        "else by size",
    )
    add("--max_failed_share", type=float, default=0.01, help="exit 1 when more media fail")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""What the commands that run a model share: flags, and results that resume.

Not a command of its own. It imports no jax, so that --help and a wrong flag answer at once.
"""

import argparse
import functools
import hashlib
import json
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypedDict

from rich import console, progress

from evr1 import rewards
from evr1.cli import outputs
from evr1.config import arguments, columns
from evr1.data import budget_flags, processor, rows, sizes
from evr1.data.media import place, requests, video_budget
from evr1.data.records import Row
from evr1.data.remote.cache import FileCache
from evr1.formats import box_frames, problem_types
from evr1.formats.words import counted
from evr1.parallel import leaving

# flag: the field of a run's config that --run takes its default from
RUN_FIELDS = {
    "columns": "data.columns",
    "problem_type": "data.problem_type",
    "max_bad_rows_share": "data.max_bad_rows_share",
    "media_dir": "data.media_dir",
    "media_cache": "data.media_cache",
    "shards": "data.shards",
    "shard_cache": "data.shard_cache",
    "shard_cache_gib": "data.shard_cache_gib",
    "sanitize": "data.sanitize",
    "template": "data.template",
    "thinking": "data.thinking",
    "template_variables": "data.template_variables",
    "box_scale": "rewards.box_scale",
    **{flag: f"data.{field}" for flag, field in budget_flags.FIELDS.items()},
    "temperature": "rollout.temperature",
    "max_tokens": "rollout.max_completion_tokens",
    "extra": "rewards.extra",
    "unknown_type": "rewards.unknown_type",
}
IN_BUCKETS = ("shards", "rows", "media_dir")  # flags that may be addresses in a bucket
_FIX = "give --run the workdir of a run, or the flags themselves"
NAMED = 3  # rows in a line about many
# flags that change no result
FREE = frozenset(
    ("run", "out", "workers", "timeout", "max_failed_share", "slots", "window", "batch_tokens")
    + ("max_bad_rows_share", "media_cache", "mesh", "shard_cache", "shard_cache_gib")
    + ("score_workers", "score_timeout_s", "min", "max", "pass_at")
)


def main(name: str, parser: argparse.ArgumentParser, run: Callable, argv: list[str] | None) -> int:
    """Runs a command. Exit status: 0, 1 with one line on standard error, or 128 and the signal."""
    flags, in_flags = parser.parse_args(argv), str  # a run's config names its own fields
    try:
        if flags.run:
            parser.set_defaults(**run_defaults(flags.run, vars(flags)))
            flags = parser.parse_args(argv)
        in_flags = functools.partial(name_flags, flags=flags)
        with leaving.watching(lambda: leaving.Next("what is done is kept; run it again to go on")):
            return run(flags)
    except (ValueError, OSError) as error:
        print(f"{name}: {in_flags(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        return leaving.status(stop, f"{name}: interrupted; run it again to go on")


def name_flags(message: str, flags: argparse.Namespace) -> str:
    """Returns the message with the command's flags in the place of a config's fields."""
    own = {"adapter": "lora.adapter", "timeout": "data.decode_timeout_s", "workers": "data.workers"}
    own |= {"max_prompt_tokens": "data.max_prompt_tokens", "storage": "data.storage"}
    fields = {field: name for name, field in (RUN_FIELDS | own).items() if name in vars(flags)}
    return arguments.name_flags(message, fields)


def add_row_fields(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how rows are read."""
    add = parser.add_argument
    add(
        "--columns",
        default="",
        help='our field to theirs, as JSON: \'{"problem": "question", "ignore": ["thumbnail"]}\'',
    )
    add("--problem_type", default="open-ended", help="of rows without one (default open-ended)")
    add(
        "--max_bad_rows_share", type=float, default=0.0, help="of the rows, passed over (default 0)"
    )
    add("--media_dir", default="", help="put in front of relative media paths")
    add("--media_cache", default="", help="for media that rows hold as bytes (default: the user's)")


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say where decoded frames lie."""
    add = parser.add_argument
    add(
        "--shards",
        default="",
        help="of evr1 preprocess, a directory or s3:// or gs://: frames that are there are not "
        "decoded",
    )
    add("--shard_cache", default="", help="for shards of a bucket (default: the user's)")
    add(
        "--shard_cache_gib",
        type=float,
        default=0.0,
        help="bound on it; 0: nine tenths of what its disk has free",
    )


def shards(flags: argparse.Namespace) -> str | place.Place:
    """Returns what the flags of `add_shards` say.

    Raises:
        ValueError: the bucket cannot be read.
    """
    return place.place_of(flags.shards, FileCache(flags.shard_cache, flags.shard_cache_gib))


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how a row becomes a prompt."""
    add = parser.add_argument
    add(
        "--sanitize",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="control tokens of the model in a row's text are read as text",
    )
    add(
        "--prompt",
        choices=("raw", "task"),
        default="task",
        help="the problem as it is, or through the template of its type (default)",
    )
    add("--template", default="", help="Jinja2 file instead of the built-in task template")
    add(
        "--thinking",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="ask for reasoning between think tags, or not; either sets the chat template's"
        " enable_thinking, where it has one (default: nothing is asked, its own default)",
    )
    add("--template_variables", default="", help="further ones of the chat template, as JSON")
    add(
        "--box_scale",
        choices=box_frames.SCALES,
        default="pixels",
        help="what box coordinates are asked in (default pixels)",
    )


def schema(flags: argparse.Namespace, **fields: Any) -> rows.Schema:
    """Returns what the flags of `add_row_fields` say."""
    if not 0 <= flags.max_bad_rows_share < 1:
        raise ValueError(
            f"--max_bad_rows_share {flags.max_bad_rows_share:g}; give a share from 0 up to 1"
        )
    return rows.Schema(
        columns=columns.parse(flags.columns),
        problem_type=flags.problem_type,
        max_bad_share=flags.max_bad_rows_share,
        media_dir=flags.media_dir,
        media_cache=flags.media_cache,
        **fields,
    )


class MeshSizes(TypedDict):
    """Devices per axis; -1, once: whatever is left."""

    data: int
    fsdp: int
    tensor: int


def mesh_sizes(text: str) -> MeshSizes | None:
    """Returns the axes of a mesh, those that are not named at 1; None for an empty text.

    >>> mesh_sizes("fsdp=-1")
    {'data': 1, 'fsdp': -1, 'tensor': 1}

    Raises:
        ValueError: another axis, no whole number, or an axis twice.
    """
    if not text:
        return None
    sizes: MeshSizes = {"data": 1, "fsdp": 1, "tensor": 1}
    named: set[str] = set()
    for item in text.split(","):
        name, _, size = item.partition("=")
        if name not in sizes or not re.fullmatch(r"-1|[1-9]\d{0,8}", size):
            raise ValueError(
                f"--mesh {text}: got {item!r}; give sizes of data, fsdp and tensor, e.g. "
                "data=1,fsdp=2,tensor=4; -1 is the rest"
            )
        if name in named:
            raise ValueError(f"--mesh {text}: {name} stands there twice; give it once")
        named.add(name)
        sizes[name] = int(size)
    return sizes


def parser(
    description: str | None, out_help: str = ".jsonl to write, rows as above; those there are kept"
) -> argparse.ArgumentParser:
    """Returns the flags that every command has."""
    out = arguments.Parser(
        in_buckets=IN_BUCKETS,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = out.add_argument
    add("--model", required=True, help="HF directory, or one of evr1 convert")
    add("--adapter", default="", help="directory of a LoRA adapter, which is added to the model")
    add("--rows", required=True, help="rows: .json, .jsonl or .parquet")
    add("--out", required=True, help=out_help)
    add("--run", default="", help="workdir of a run: its config gives the defaults of the flags")
    add_shards(out)
    add_row_fields(out)
    add_prompt(out)
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")
    add("--mesh", default="", help="devices, e.g. data=1,fsdp=2,tensor=4 (default: one device)")
    add("--seed", type=int, default=0, help="of the draws (default 0)")
    budget_flags.add(out)
    add("--workers", type=int, default=2, help="decoding processes (default 2)")
    add("--timeout", type=float, default=120.0, help="seconds for one medium (default 120)")
    add("--max_failed_share", type=float, default=0.01, help="exit 1 when more rows fail")
    return out


def run_defaults(workdir: str, flags: dict[str, Any]) -> dict[str, Any]:
    """Returns the defaults that the config of a run gives to the flags that it knows.

    Args:
        workdir: of the run.
        flags: name → value; values tell the types.

    Raises:
        ValueError: config.json is missing or damaged.
    """
    return defaults(run_config(workdir), f"{workdir}/config.json", flags)


def run_config(workdir: str) -> dict[str, Any]:
    """Returns what a run was started with.

    Raises:
        ValueError: config.json is missing or damaged.
    """
    path = pathlib.Path(workdir) / "config.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; {_FIX}") from None
    except ValueError as error:
        raise ValueError(f"{path}: damaged: {error}; {_FIX}") from None


def defaults(
    config: dict[str, Any],
    path: str,
    flags: dict[str, Any],
    fields: Mapping[str, str] = MappingProxyType(RUN_FIELDS),
) -> dict[str, Any]:
    """Returns the defaults that a config gives to flags.

    Args:
        config: of a run, or of a config file.
        path: where it stands.
        flags: name → value; values tell the types.
        fields: flag → field of a config.

    Raises:
        ValueError: a field is missing, or of another type.
    """
    found = {}
    for name in fields.keys() & flags.keys():
        field, value = fields[name], config
        for part in field.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if name == "columns" and isinstance(value, dict | None):  # JSON may spell them, too
            found[name] = json.dumps(value) if value else ""
            continue
        if name == "thinking" and isinstance(value, bool | None):  # three states
            found[name] = value
            continue
        wanted = type(flags[name])
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not wanted:
            raise ValueError(f"{path}: {field}: got {value!r}, no {wanted.__name__}; {_FIX}")
        found[name] = value
    return found


def complete(flags: argparse.Namespace) -> Callable[..., list[Row | ValueError]]:
    """Returns what gives rows of boxes the sizes of their media; see `sizes.Sizes.complete`."""

    def complete_rows(data: Sequence[Row], note: Callable[[str], None]) -> list[Row | ValueError]:
        if not any(row.problem_type in sizes.BOXED for row in data):
            return list(data)
        from evr1.models.io import hf  # seconds, which other rows need not wait for

        side = hf.side_dir(flags.model)
        opener = requests.Opener(
            flags.media_dir,
            video_budget.of_directory(budget_flags.budgets(flags), side),
            processor.geometry_of(side),
        )
        how = sizes.Sizes(opener, flags.box_scale, shards(flags), flags.workers, flags.timeout)
        return how.complete(data, note)

    return complete_rows


def load_rows(flags: argparse.Namespace, say: Callable[[str], None]) -> list[Row]:
    """Returns the rows of --rows; neither an answer nor a problem type is needed."""
    how = schema(flags, required=("problem",), complete=complete(flags))
    data = rows.load_rows(flags.rows, how, say)
    for text in unscorable(data, flags.box_scale):
        say(text)
    return data


def unscorable(data: Sequence[Row], box_scale: str = "") -> list[str]:
    """Returns a line about rows without an answer that a completion could be right by; else none.

    Args:
        data: the rows.
        box_scale: the frame that boxes are asked in; empty: the one of the ground truth.
    """
    faults = []
    for row in data:
        try:
            problem_types.canonical(row.problem_type)
            rewards.check_row(row, box_scale=box_scale)
        except ValueError as error:
            is_known = row.problem_type in problem_types.TYPES
            own = "" if is_known else " (rewards.extra and rewards.unknown_type take others)"
            faults.append(f"{row.source}: {error}{own}")
    if not faults:
        return []
    more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    head = f"warning: {len(faults)} of {counted(len(data), 'row')} cannot be scored"
    return [f"{head}, and training refuses such: {'; '.join(faults[:NAMED])}{more}"]


def noter(out: console.Console, flags: argparse.Namespace) -> Callable[[str], None]:
    """Returns what prints a line, in the words of the command's flags."""

    def say(line: str) -> None:
        line = name_flags(line, flags)
        out.print(line, soft_wrap=True, highlight=False, markup=False)

    return say


def settings(flags: argparse.Namespace) -> dict[str, Any]:
    """Returns the flags that change results, with a digest of what the rows hold."""
    with open(flags.rows, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    changing = {k: v for k, v in vars(flags).items() if k not in FREE}
    return changing | {"rows": outputs.with_digest(flags.rows, digest)}


def bar(out: console.Console, what: str) -> progress.Progress:
    """Returns a progress bar over rows."""
    return progress.Progress(
        progress.TextColumn(what),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.description}"),
        progress.TimeRemainingColumn(),
        console=out,
    )

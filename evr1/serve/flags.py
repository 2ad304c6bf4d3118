"""The flags of `python -m evr1.serve`."""

import argparse
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from evr1.config import arguments
from evr1.data import budget_flags
from evr1.data.media import requests
from evr1.serve import keys
from evr1.serve.settings import Access, Limits, ServeSettings

# flag: the least that it may be; of others 0
_LEAST = {
    **dict.fromkeys(("slots", "rows", "window", "workers", "tensor", "max_n", "max_tokens"), 1),
    **dict.fromkeys(("max_prompt_tokens", "max_frames", "image_min_pixels", "min_pixels"), 1),
    **dict.fromkeys(("max_source_pixels", "most_frames", "most_pixels"), 1),
    **dict.fromkeys(("timeout_s", "decode_s", "max_body_mib", "fps"), 1e-3),
}


def parse(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the flags; the budgets of a run, where it is named or served, are their defaults.

    Raises:
        ValueError: --run names no run.
    """
    parser = make_parser(description)
    flags = parser.parse_args(argv)
    data, given = _data_of_run(flags), vars(flags)
    for name, field in budget_flags.FIELDS.items():
        if field in data:
            parser.set_defaults(**{name: _typed(data[field], type(given[name]), field)})
    return parser.parse_args(argv)


def _typed(value: Any, wanted: type, field: str) -> Any:
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"the run's data.{field}: got {value!r}, no {wanted.__name__}")
    return value


def _data_of_run(flags: argparse.Namespace) -> dict[str, Any]:
    """Returns the group `data` of the config of --run, else of the run that is served, if any."""
    model = pathlib.Path(flags.model or flags.follow)
    places = [pathlib.Path(flags.run)] if flags.run else [model, *model.parents[:2]]
    for place in places:
        try:
            config = json.loads((place / "config.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(config, dict) and isinstance(config.get("data"), dict):
            return config["data"]
    if flags.run:
        raise ValueError(f"--run {flags.run}: no workdir of a run: it has no config.json of one")
    return {}


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    out = arguments.Parser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_model(out)
    _add_media(out)
    _add_access(out)
    _add_limits(out)
    return out


def _add_model(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, ServeSettings("", "")
    add("--model", default="", help="HF directory, one of evr1 convert, a run or its checkpoint")
    add("--follow", default="", help="a run, whose newest checkpoint is taken over as it comes")
    add("--run", default="", help="workdir of a run: its budgets of media are the defaults here")
    add("--adapter", default="", help="directory of a LoRA adapter, which is added to the model")
    add("--name", default="", help="that clients call the model by (default: its folder's)")
    add("--host", default="127.0.0.1", help="to listen at (default 127.0.0.1)")
    add("--port", type=int, default=8000, help="likewise; 0: a free one (default 8000)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")
    add("--tensor", type=int, default=1, help="devices that share the weights (default 1)")
    add("--slots", type=int, default=default.slots, help="prompts that decode at a time (8)")
    add("--rows", type=int, default=default.rows, help="answers to each of them (4)")
    add("--window", type=int, default=default.window, help="decode steps a turn (8)")
    add("--queue", type=int, default=default.queue, help="requests that may wait (64)")
    add("--compile_cache", default="", help="folder of compiled programs, or off (the user's)")
    add(
        "--prefix_mib",
        type=int,
        default=default.prefix_bytes >> 20,
        help="of prompts that are kept on the device for whoever asks again (1024)",
    )
    add(
        "--share",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="requests share what stands before their questions (default)",
    )


def _add_media(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--media_dir", default="", help="folder whose files requests may show (default: none)")
    add("--allow_http", action="store_true", help="media are fetched from public addresses")
    add("--http_hosts", default="", help="hosts that are fetched from, private ones too: a,b")
    budget_flags.add(parser)
    add("--workers", type=int, default=2, help="decoding processes (default 2)")
    add("--decode_s", type=float, default=120.0, help="seconds for one medium (default 120)")
    add(
        "--sanitize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="control tokens of the model in a request's text are read as text (default)",
    )


def _add_access(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--api_key_env", default="", help="environment variable that holds the clients' key")
    add("--api_key_file", default="", help="file of such keys, one a line")
    add("--log_requests", action="store_true", help="what requests hold goes to standard error")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, Limits()
    add("--max_prompt_tokens", type=int, default=default.prompt_tokens, help="(16384)")
    add("--max_tokens", type=int, default=default.completion_tokens, help="of an answer (1024)")
    add("--max_n", type=int, default=default.choices, help="answers to a request (16)")
    add("--max_body_mib", type=float, default=default.body_bytes / 2**20, help="(64)")
    add("--max_media", type=int, default=default.media, help="of a request (64)")
    add("--max_source_pixels", type=int, default=default.source_pixels, help="of a frame as it is")
    add("--most_frames", type=int, default=default.frames, help="that a request may ask for (768)")
    add("--most_pixels", type=int, default=default.frame_pixels, help="likewise, of a frame")
    add("--timeout_s", type=float, default=default.timeout_s, help="for a request (600)")
    add("--drain_s", type=float, default=60.0, help="for those under way at SIGTERM (60)")


def settings_of(flags: argparse.Namespace) -> ServeSettings:
    """Returns what the flags say.

    Raises:
        ValueError: they say too little, or what cannot be.
    """
    if bool(flags.model) == bool(flags.follow):
        raise ValueError("give --model or --follow, one of them")
    model = flags.model or flags.follow
    for name, value in vars(flags).items():
        if isinstance(value, int | float) and not _LEAST.get(name, 0) <= value < math.inf:
            raise ValueError(f"--{name} {value}; give a number of at least {_LEAST.get(name, 0):g}")
    if flags.port >= 2**16:
        raise ValueError(f"--port {flags.port}; give one under {2**16}")
    name = flags.name or os.path.basename(os.path.realpath(model))
    if not name.isprintable() or not name.strip():
        raise ValueError(f"--name {name!r}: clients cannot call it that; give --name a name")
    if flags.media_dir and not os.path.isdir(flags.media_dir):
        raise ValueError(f"--media_dir {flags.media_dir}: no such folder")
    budgets = budget_flags.budgets(flags)
    requests.check_budgets(budgets)
    return ServeSettings(
        model=model,
        name=name,
        adapter=flags.adapter,
        follow=bool(flags.follow),
        dtype=flags.dtype,
        tensor=flags.tensor,
        sanitize=flags.sanitize,
        budgets=budgets,
        slots=flags.slots,
        rows=flags.rows,
        window=flags.window,
        queue=flags.queue,
        prefix_bytes=flags.prefix_mib << 20,
        shares=flags.share,
        workers=flags.workers,
        decode_s=flags.decode_s,
        drain_s=flags.drain_s,
        logs_requests=flags.log_requests,
        limits=_limits(flags),
        access=Access(
            keys=keys.read(flags.api_key_env, flags.api_key_file),
            media_dir=flags.media_dir,
            allow_http=flags.allow_http,
            http_hosts=tuple(
                host for each in flags.http_hosts.split(",") if (host := each.strip().lower())
            ),
        ),
    )


def _limits(flags: argparse.Namespace) -> Limits:
    return Limits(
        body_bytes=int(flags.max_body_mib * 2**20),
        media=flags.max_media,
        source_pixels=flags.max_source_pixels,
        frames=max(flags.most_frames, flags.max_frames),
        frame_pixels=max(flags.most_pixels, flags.max_pixels, flags.image_max_pixels),
        prompt_tokens=flags.max_prompt_tokens,
        completion_tokens=flags.max_tokens,
        choices=flags.max_n,
        timeout_s=flags.timeout_s,
    )

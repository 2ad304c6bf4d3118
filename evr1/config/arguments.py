"""Flags of commands: what a misspelt one may be, no addresses, messages that name them."""

import argparse
import contextlib
import io
import json
import pathlib
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from evr1.config import urls
from evr1.config.reference import did_you_mean

_ENDPOINT = re.compile("url|judge")  # what takes an address


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are a line with near flags; addresses are for endpoints alone.

    Flags are not abbreviated: half a keyword of a call from Python would be taken.
    """

    def __init__(self, *args: Any, in_buckets: Collection[str] = ("shards",), **fields: Any):
        """Takes what ArgumentParser does.

        Args:
            *args: see there.
            in_buckets: flags, without dashes, that may be addresses in a bucket.
            **fields: see there.
        """
        self._in_buckets = in_buckets
        super().__init__(*args, **{"allow_abbrev": False} | fields)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Ends with a line and exit status 2 where a value is an address."""
        parsed = super().parse_args(args, namespace)
        for name, value in vars(parsed).items():
            for text in value if isinstance(value, list) else [value]:
                is_path = isinstance(text, str) and not _ENDPOINT.search(name)
                if name in self._in_buckets and isinstance(text, str) and urls.is_bucket(text):
                    continue
                if is_path and urls.is_remote(text):
                    self.error(f"--{name} {text}: {urls.FIX}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Ends with a line and exit status 2."""
        if message.startswith("unrecognized arguments"):
            known = sorted(set(re.findall(r"--\w+", self.format_help())))
            given = [x.partition("=")[0] for x in message.split() if x.startswith("--")]
            message += "".join(did_you_mean(flag, known) for flag in given[:1])
        self.exit(2, f"{self.prog}: error: {message}\n")


def local_path(text: str) -> pathlib.Path:
    """Returns the path that a flag gives, as its `type`: a Path folds the slashes of an address.

    Raises:
        argparse.ArgumentTypeError: it is an address.
    """
    if urls.is_remote(text):
        raise argparse.ArgumentTypeError(f"{text}: {urls.FIX}")
    return pathlib.Path(text)


def program(name: str) -> str:
    """Returns what a command calls itself: `evr1 NAME` where it was called so, else its name."""
    return sys.argv[0] if sys.argv[0].startswith("evr1 ") else name


def of_options(parser: argparse.ArgumentParser, options: Mapping[str, Any]) -> argparse.Namespace:
    """Returns the flags of a call from Python, checked as those of a command line are.

    Args:
        parser: of a command.
        options: flag, without its dashes -> value; None: as if it were not given.

    Raises:
        ValueError: no such flag, or no such value; in one line.
    """
    argv = []
    for name, value in options.items():
        if isinstance(value, bool):
            argv.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            argv.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return parser.parse_args(argv)
    except SystemExit:
        line = errors.getvalue().strip().splitlines()[-1]
        raise ValueError(line.partition(": error: ")[2]) from None


def name_flags(message: str, flags: Mapping[str, str]) -> str:
    """Returns a message with the command's flags in the place of a config's fields.

    >>> name_flags("correct the path or config.data.media_dir", {"data.media_dir": "media_dir"})
    'correct the path or --media_dir'

    Args:
        message: that may name fields.
        flags: field -> flag, without its dashes.
    """

    def named(found: re.Match[str]) -> str:
        return f"--{flags[found[1]]}" if found[1] in flags else found[0]

    return re.sub(r"(?<![\w./-])(?:config\.)?([a-z]+(?:\.\w+)+)", named, message)

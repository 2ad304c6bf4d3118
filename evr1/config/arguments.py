"""Flags of commands: what a misspelt one may be, no addresses, messages that name them."""

import argparse
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from evr1.config import urls
from evr1.config.reference import did_you_mean

_ENDPOINT = re.compile("url|judge")  # what takes an address


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors name near flags; of addresses it takes only endpoints."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Ends with a line and exit status 2 where a value is an address."""
        parsed = super().parse_args(args, namespace)
        for name, value in vars(parsed).items():
            for text in value if isinstance(value, list) else [value]:
                is_path = isinstance(text, str) and not _ENDPOINT.search(name)
                if is_path and urls.is_remote(text):
                    self.error(f"--{name} {text}: {urls.FIX}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Ends with a line and exit status 2."""
        if message.startswith("unrecognized arguments"):
            known = sorted(set(re.findall(r"--\w+", self.format_help())))
            given = [x.partition("=")[0] for x in message.split() if x.startswith("--")]
            message += "".join(did_you_mean(flag, known) for flag in given[:1])
        super().error(message)


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

    return re.sub(r"(?<![\w./])(?:config\.)?([a-z]+(?:\.\w+)+)", named, message)

"""A parser of flags that tells what a misspelt one may be."""

import argparse
import re
from typing import NoReturn

from evr1.config.reference import did_you_mean


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors name near flags."""

    def error(self, message: str) -> NoReturn:
        """Ends with a line and exit status 2."""
        if message.startswith("unrecognized arguments"):
            known = sorted(set(re.findall(r"--\w+", self.format_help())))
            given = [x.partition("=")[0] for x in message.split() if x.startswith("--")]
            message += "".join(did_you_mean(flag, known) for flag in given[:1])
        super().error(message)

"""Writes report.html of a run, whether it has ended or not.

    evr1 report WORKDIR          (python -m evr1.report is the same)

It reads config.json, metrics.jsonl and rollouts.jsonl. Of what the model saw it takes over what an
earlier page shows; the rest is decoded again, from the config's data or its shards.
"""

import argparse
import contextlib
import sys

from evr1.config import arguments
from evr1.report.again import Again
from evr1.report.page import build


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 with one line on standard error."""
    parser = arguments.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", metavar="WORKDIR", help="of a run")
    flags = parser.parse_args(argv)
    try:
        with contextlib.ExitStack() as stack:
            print(build(flags.workdir, Again(flags.workdir, stack, _say)))
    except (ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


def _say(line: str) -> None:
    print(f"report: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

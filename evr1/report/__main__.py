"""Writes report.html of a run, whether it has ended or not.

    evr1 report WORKDIR          (python -m evr1.report is the same)

It reads config.json, metrics.jsonl and rollouts.jsonl. What the model saw is shown in the page that
a run itself writes at its end, not in this one.
"""

import argparse
import sys

from evr1.config import arguments
from evr1.report.page import build


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 with one line on standard error."""
    parser = arguments.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", metavar="WORKDIR", help="of a run")
    flags = parser.parse_args(argv)
    try:
        print(build(flags.workdir))
    except (ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

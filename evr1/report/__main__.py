"""Writes report.html of a run, whether it has ended or not.

    evr1 report WORKDIR                       (python -m evr1.report is the same)
    evr1 report WORKDIR --serve --port 8000   a page that follows the run, on this machine alone
    evr1 report WORKDIR --compare OTHER       WORKDIR/compare.html: two runs, row by row

It reads config.json, metrics.jsonl and rollouts.jsonl. Of what the model saw it takes over what an
earlier page shows; the rest is decoded again, from the config's data or its shards.
"""

import argparse
import contextlib
import sys
from pathlib import Path

from evr1.config import arguments
from evr1.report import compare
from evr1.report.again import Again
from evr1.report.page import build
from evr1.report.serve import Live, Server


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 with one line on standard error."""
    parser = arguments.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", metavar="WORKDIR", help="of a run")
    parser.add_argument("--serve", action="store_true", help="follow the run; Ctrl-C ends it")
    parser.add_argument("--port", type=int, default=8000, help="of --serve; 0: a free one")
    parser.add_argument("--compare", metavar="OTHER", default="", help="another run's workdir")
    flags = parser.parse_args(argv)
    try:
        if flags.compare:
            path, text = compare.build(Path(flags.workdir), Path(flags.compare))
            print(text)
            print(path)
            return 0
        with contextlib.ExitStack() as stack:
            frames = Again(flags.workdir, stack, _say)
            if flags.serve:
                _serve(Path(flags.workdir), frames, flags.port)
            else:
                print(build(flags.workdir, frames))
    except (ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(workdir: Path, frames: Again, port: int) -> None:
    if not (workdir / "metrics.jsonl").exists():
        raise ValueError(f"{workdir / 'metrics.jsonl'} does not exist; give the workdir of a run")
    try:
        server = Server(Live(workdir, frames), port)
    except (OSError, OverflowError) as error:
        raise ValueError(f"--port {port}: {error}; give another one, or 0") from None
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"{server.address} follows {workdir}; Ctrl-C ends it", flush=True)
        server.serve_forever()


def _say(line: str) -> None:
    print(f"report: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

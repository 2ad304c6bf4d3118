"""The command `evr1`: one name for what `python -m evr1.X` and `tools/X.py` do."""

import importlib
import sys
from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand: where its code is, imported when it is called, and what it does."""

    module: str
    function: str
    help: str


COMMANDS = {
    "train": Command("evr1.main", "run", "trains, or goes on with a training"),
    "evaluate": Command("evr1.evaluate", "run", "answers benchmarks, or held-out rows"),
    "benchmarks": Command(
        "evr1.evals.__main__", "main", "lists, prepares, scores, judges, compares, shows benchmarks"
    ),
    "preprocess": Command(
        "evr1.cli.preprocess_videos", "main", "decodes images and videos once, into shards"
    ),
    "data_report": Command(
        "evr1.cli.data_report", "main", "what is in data files, before anything is spent on them"
    ),
    "show": Command("evr1.cli.show", "main", "shows one row as the model gets it"),
    "filter": Command(
        "evr1.cli.filter_by_pass_rate", "main", "keeps the rows that a model solves sometimes"
    ),
    "generate": Command("evr1.cli.generate", "main", "draws completions of rows"),
    "serve": Command(
        "evr1.serve.__main__", "main", "answers chats over HTTP, as OpenAI's API does"
    ),
    "score": Command("evr1.cli.score_completions", "main", "log-probabilities of completions"),
    "rewards": Command("evr1.rewards.__main__", "main", "scores responses, without a model"),
    "convert": Command(
        "evr1.cli.convert_checkpoint", "main", "a checkpoint to a Hugging Face directory, and back"
    ),
    "report": Command("evr1.report.__main__", "main", "writes the page of a run"),
    "plan": Command(
        "evr1.cli.plan", "main", "says whether a run fits machines that need not be there"
    ),
    "make_demo": Command("evr1.cli.make_demo", "main", "writes the demo's clips and rows"),
}


def main() -> int | None:
    """Runs the subcommand that the command line names; returns its exit status."""
    name, *rest = sys.argv[1:] or [""]
    if name in ("", "-h", "--help"):
        print(usage())
        return 0 if name else 2
    if name == "--version":
        from evr1 import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        from evr1.config.reference import did_you_mean  # half a second, which --help need not wait

        near = did_you_mean(name, list(COMMANDS))
        print(f"evr1: no command {name!r}{near}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    sys.argv = [f"evr1 {name}", *rest]
    try:
        return getattr(importlib.import_module(command.module), command.function)()
    except KeyboardInterrupt:  # of those that have nothing to say of it
        print("interrupted", file=sys.stderr)
        return 130


def usage() -> str:
    """Returns a line for each subcommand."""
    lines = [f"  {name:<12}{command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: evr1 COMMAND ...", "", *lines, "", "evr1 COMMAND --help says more of each"]
    )


if __name__ == "__main__":
    sys.exit(main())

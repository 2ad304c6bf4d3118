"""Runs commands in forks of a process that has imported what they need: each is a process of its
own, with its own flags, and starts at once.

Reads a line of JSON a command, {"argv": [...], "cwd": "...", "out": "..."}; writes its exit status
and the seconds of CPU that it took.
"""

import json
import os
import runpy
import sys
import traceback
import warnings

PACKAGES = (
    "evr1.cli.data_report",
    "evr1.cli.filter_by_pass_rate",
    "evr1.cli.generate",
    "evr1.cli.main",
    "evr1.cli.preprocess_videos",
    "evr1.cli.score_completions",
    "evr1.cli.show",
    "evr1.evals.__main__",
    "evr1.evaluate",
    "evr1.report.__main__",
    "evr1.train",
)


def run(argv: list[str]) -> None:
    """Runs `evr1 ...`, `python -m MODULE ...` or `python FILE ...`."""
    name, *rest = argv
    if name == "evr1":
        from evr1.cli.main import main

        sys.argv = argv
        sys.exit(main())
    if rest[0] == "-m":
        sys.argv = rest[1:]
        sys.modules.pop(rest[1], None)  # it may have been imported under its name
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = rest
        sys.path[:0] = [os.path.dirname(os.path.abspath(rest[0]))]
        runpy.run_path(rest[0], run_name="__main__")


def child(command: dict) -> None:
    """Runs a command, its output in a file; does not return."""
    status: int | None = None
    try:
        file = os.open(command["out"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(command["cwd"])
        os.environ["PWD"] = command["cwd"]
        sys.path[:0] = [command["cwd"]]
        run(command["argv"])
        status = 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        if status is None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(
            1 if status is None else status
        )  # what is registered for the end belongs to the parent


def serve() -> None:
    """Answers until there are no more commands."""
    import importlib

    warnings.simplefilter("ignore")  # jax warns of forks; no backend has started here
    for name in PACKAGES:
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        _, status, used = os.wait4(pid, 0)
        print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)


if __name__ == "__main__":
    serve()

"""The training command: `python -m evr1.main --config=CONFIG.py --config.workdir=DIR`."""

import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from evr1 import config as config_lib

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file; --config.FIELD=VALUE overrides one field.", lock_config=True
)
flags.mark_flag_as_required("config")
_STOPPED = "interrupted; the same command goes on from the last checkpoint"


def main(argv: list[str]) -> None:
    """Resolves the config and trains; bad input ends in one line and exit code 1."""
    if len(argv) > 1:
        sys.exit(f"error: unexpected argument {argv[1]!r}; fields go as --config.FIELD=VALUE")
    try:
        config = _resolve()
        from evr1 import train  # after the flags: --help must not wait for jax

        logging.set_verbosity(logging.FATAL)  # Orbax's errors are raised too; these are tracebacks
        _on_stop(_unwind)
        sys.unraisablehook = _on_lost
        train.train(config)
    except (ValueError, OSError, FloatingPointError) as e:
        sys.exit(f"error: {_one_line(e)}")
    except MemoryError as e:
        sys.exit(f"error: out of host memory: {_one_line(e)}; lower rollout.prompts or the budgets")
    except RuntimeError as e:
        if "RESOURCE_EXHAUSTED" not in str(e):
            raise
        sys.exit(
            f"error: out of device memory: {str(e).splitlines()[0]}; lower "
            "train.microbatch_tokens, rollout.slots or the pixel budgets"
        )
    except KeyboardInterrupt:
        sys.exit(_STOPPED)


def _resolve() -> config_lib.Config:
    try:
        return config_lib.resolve(_CONFIG.value)
    except AttributeError as e:
        sys.exit(f"error: the config has no field {e}; start from get_config() of configs/base.py")


def _on_stop(action: Callable[[int, Any], None]) -> None:
    """What an interrupt and a request to end do, unless they are to be ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, action)


def _leave(number: int, frame: Any) -> None:
    """Ends at once: nothing is held yet, and an exception amid native imports is a crash."""
    os.write(2, f"{_STOPPED}\n".encode())
    os._exit(1)


def _unwind(number: int, frame: Any) -> None:
    """Has a save under way finished and child processes ended."""
    raise KeyboardInterrupt


def _on_lost(lost: Any) -> None:
    """An interrupt amid a callback of the garbage collector is lost there: once more."""
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    elif not inspect.iscoroutine(lost.object):  # Orbax leaves a page for each array it did not read
        sys.__unraisablehook__(lost)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; what is wrong with them, or with the config file, ends in one line."""
    if {"--help", "-h"} & set(argv):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    try:
        rest = flags.FLAGS(argv)
        _CONFIG.value.to_dict()  # a file that could not be read says so only when it is used
    except Exception as e:  # noqa: BLE001  a config file is a program: it may raise anything
        sys.exit(f"error: {_file_error(argv) or _flag_error(e, argv)}")
    if not isinstance(_CONFIG.value, ml_collections.ConfigDict):
        sys.exit(f"error: get_config() of the config file gave a {type(_CONFIG.value).__name__}")
    return rest


def _file_error(argv: list[str]) -> str:
    """What is wrong with the name of the config file; empty where nothing is."""
    given = ""
    for flag, after in zip(argv, [*argv[1:], ""], strict=True):
        name, _, value = flag.partition("=")
        if name in ("--config", "-config"):
            given = value or after
    path = given.partition(":")[0]  # an argument of get_config() may follow
    fix = "give a config file, e.g. --config=configs/demo.py"
    if not path:
        return f"--config is not given; {fix}"
    return "" if os.path.isfile(path) else f"--config={path}: no such file; {fix}"


def _flag_error(error: Exception, argv: list[str]) -> str:
    overrides = [a.split("=")[0] for a in argv if a.startswith("--config.")]
    if isinstance(error, AttributeError | KeyError):
        unknown = "".join(re.findall(r"\w+", str(error.args[0]))[:1])  # a suggestion may follow
        for name in overrides:
            if unknown in name.split("."):
                return f"unknown config field {name}; configs/base.py has every field"
    if isinstance(error, flags.Error):
        return str(error).strip().splitlines()[-1].strip()  # the last: a traceback may be before
    return f"the config file: {type(error).__name__}: {_one_line(error)[:200]}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    _on_stop(_leave)
    app.run(main, flags_parser=_parse_flags)

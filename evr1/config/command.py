"""The command line of what takes a config: flags, signals, and errors in one line."""

import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from evr1.config import named, reference

STOPS = (signal.SIGINT, signal.SIGTERM)
_HOME = "evr1/config/base.py (evr1/config/evals.py for benchmarks)"


def run(
    command: Callable[[ml_collections.ConfigDict], None],
    interrupted: Callable[[], str],
    doc: str | None = None,
) -> None:
    """Runs a command on the config that the flags name; does not return.

    Args:
        command: takes the config; its imports may wait until it is called, so that --help is quick.
        interrupted: returns what is said after an interrupt or a request to end.
        doc: what --help says of it.
    """
    config = config_flags.DEFINE_config_file(
        "config",
        None,
        f"Config file, or one of {', '.join(named.names())}; --config.FIELD=VALUE overrides one "
        "field.",
        lock_config=True,
    )
    flags.mark_flag_as_required("config")
    own = flags.FLAGS.flags_by_module_dict().get(command.__module__, [])
    for flag in (flags.FLAGS["config"], *own):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # for --help

    def leave(number: int, frame: Any) -> None:
        """Ends at once: nothing is held yet, and an exception amid native imports is a crash."""
        os.write(2, f"{interrupted()}\n".encode())
        os._exit(_status(number))

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            sys.exit(f"error: unexpected argument {argv[1]!r}; fields go as --config.FIELD=VALUE")
        _guarded(command, config.value, interrupted)

    _on_stop(leave)
    app.run(main, flags_parser=lambda argv: _parse_flags(argv, config, doc))


def read_config(argv: Sequence[str]) -> ml_collections.ConfigDict:
    """Returns the config that --config and --config.FIELD flags name, for a command of other flags.

    Args:
        argv: these flags alone.

    Raises:
        ValueError: in one line, as `run` ends with it.
    """
    own, args = flags.FlagValues(), ["evr1", *argv]
    holder = config_flags.DEFINE_config_file("config", None, "", lock_config=True, flag_values=own)
    with_path, before = _with_path(args), sys.argv
    try:
        sys.argv = with_path  # where ml_collections looks for --config.FIELD
        own(with_path)
        holder.value.to_dict()
    except Exception as e:  # noqa: BLE001  as in _parse_flags
        raise ValueError(_flag_error(e, args)) from None
    finally:
        sys.argv = before
    if not isinstance(holder.value, ml_collections.ConfigDict):
        raise ValueError(f"get_config() of the config file gave a {type(holder.value).__name__}")
    return holder.value


def quiet() -> None:
    """Keeps tracebacks of libraries off the console, of what is told in a line."""
    logging.set_verbosity(logging.FATAL)  # Orbax's errors are raised too
    sys.unraisablehook = _on_lost


def unwind_on_interrupt() -> None:
    """From now on Ctrl-C is an exception: of one of several hosts, which tells the others."""
    _on_stop(_unwind, (signal.SIGINT,))


def _guarded(
    command: Callable[[ml_collections.ConfigDict], None],
    config: ml_collections.ConfigDict,
    interrupted: Callable[[], str],
) -> None:
    """Runs the command; bad input ends in one line and exit status 1."""
    try:
        command(config)
    except KeyboardInterrupt as stop:
        if not stop.args:  # else it was told what happens
            print(interrupted(), file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status(*stop.args or (signal.SIGINT,)))  # threads of XLA may be at work
    except Exception as e:  # of any kind: `explain` tells which are none of evr1's faults
        line = explain(e)
        if line is None:
            raise
        sys.exit(f"error: {line}")


def explain(error: BaseException) -> str | None:
    """Returns what a user can mend in one line; None: it is a fault of evr1's."""
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return _one_line(error)
    if isinstance(error, MemoryError):
        return (
            f"out of host memory: {_one_line(error)}; lower rollout.prompts or the budgets; of "
            "benchmarks ahead, or the preset"
        )
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return (
            f"out of device memory: {str(error).splitlines()[0]}; lower train.microbatch_tokens, "
            "rollout.slots or the pixel budgets; of benchmarks slots, rows or the preset"
        )
    return "interrupted" if isinstance(error, KeyboardInterrupt) else None


def _on_stop(
    action: Callable[[int, Any], None], numbers: tuple[signal.Signals, ...] = STOPS
) -> None:
    """Sets what an interrupt and a request to end do, unless they are to be ignored."""
    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, action)


def _unwind(number: int, frame: Any) -> None:
    """Raises, so that a save under way is finished and child processes end."""
    raise KeyboardInterrupt(number)


def _status(number: int) -> int:
    """Returns the exit status after a signal: 130 of Ctrl-C, 143 where asked to end."""
    return 128 + number


def _on_lost(lost: Any) -> None:
    """An interrupt amid a callback of the garbage collector is lost there: once more."""
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    elif not inspect.iscoroutine(lost.object):  # Orbax leaves a page for each array it did not read
        sys.__unraisablehook__(lost)


def _parse_flags(argv: list[str], config: flags.FlagHolder, doc: str | None) -> list[str]:
    """Parses the flags; what is wrong with them, or with the config file, ends in one line."""
    _help(argv, doc)
    try:
        with_path = _with_path(argv)
    except ValueError as e:
        sys.exit(f"error: {e}")
    try:
        rest = flags.FLAGS(with_path)
        config.value.to_dict()  # a file that could not be read says so only when it is used
    except Exception as e:  # noqa: BLE001  a config file is a program: it may raise anything
        sys.exit(f"error: {_flag_error(e, argv)}")
    if not isinstance(config.value, ml_collections.ConfigDict):
        sys.exit(f"error: get_config() of the config file gave a {type(config.value).__name__}")
    return rest


def _help(argv: list[str], doc: str | None) -> None:
    """Ends with what --help, -h or --help=GROUP asks for."""
    for flag in argv[1:]:
        if flag in ("--help", "-h"):
            print(doc or "", flags.FLAGS.main_module_help(), "", reference.overview(), sep="\n")
            sys.exit(0)
        if flag.startswith("--help="):
            try:
                print(reference.help_of(flag.removeprefix("--help=")))
            except ValueError as e:
                sys.exit(f"error: {e}")
            sys.exit(0)


def _with_path(argv: list[str]) -> list[str]:
    """Returns the arguments with the path of the config file in the place of its name.

    Raises:
        ValueError: there is no such file and no such name, or neither is given.
    """
    out = list(argv)
    for i, flag in enumerate(argv):
        name, sign, value = flag.partition("=")
        if name in ("--config", "-config"):
            value = value if sign else "".join(argv[i + 1 : i + 2])
            if not value:
                break
            out[i : i + 1 if sign else i + 2] = [f"--config={named.find(value)}"]
            return out
    for flag in argv[1:]:
        name = flag.partition("=")[0]
        if name.startswith("--") and name[2:].partition(".")[0] not in flags.FLAGS:
            near = reference.did_you_mean(name, _flag_names())
            raise ValueError(f"unknown flag {name}{near}")
    raise ValueError("--config is not given; give a name or a file, e.g. --config=demo")


def _flag_error(error: Exception, argv: list[str]) -> str:
    overrides = [a.split("=")[0] for a in argv if a.startswith("--config.")]
    if isinstance(error, AttributeError | KeyError) and error.args:
        unknown = "".join(re.findall(r"\w+", str(error.args[0]))[:1])  # a suggestion may follow
        for name in overrides:
            if unknown in name.split("."):
                return f"unknown config field {name}{_near(name)}; {_HOME} has every field"
    if isinstance(error, flags.UnrecognizedFlagError):
        near = reference.did_you_mean(f"--{error.flagname}", [*_flag_names(), *_field_flags()])
        return f"unknown flag --{error.flagname}{near}"
    if isinstance(error, flags.Error):
        line = str(error).strip().splitlines()[-1].strip()  # the last: a traceback may be before
        return _wrong_value(line)
    if isinstance(error, ModuleNotFoundError) and error.name == "configs":
        return (
            "the config file imports configs, which is not to be found from here; write `from "
            'evr1.config import base`, or named.load("qwen_video") of evr1.config.named'
        )
    locked = re.search(r'Key "(\w+)" does not exist and cannot be added', _one_line(error))
    if locked:
        near = reference.did_you_mean(locked[1], _names())
        return f"the config file sets the unknown field {locked[1]}{near}; {_HOME} has every field"
    return f"the config file: {type(error).__name__}: {_one_line(error)[:200]}"


def _near(flag: str) -> str:
    """Returns the fields that --config.FIELD may be a misspelling of."""
    return reference.did_you_mean(flag, _field_flags())


def _names() -> list[str]:
    """Returns the names of all fields."""
    tables = (reference.base_table(), reference.evals_table())
    return list(dict.fromkeys(field.name for table in tables for field in table.fields))


def _field_flags() -> list[str]:
    return [f"--config.{name}" for name in _names()]


def _flag_names() -> list[str]:
    return [f"--{name}" for name in flags.FLAGS]


def _wrong_value(line: str) -> str:
    """Returns what a field needs, from absl's line about its flag; another line as it is."""
    given = re.match(r"flag --config\.([\w.]+)=(.*?): ", line)
    if given is None:
        return line
    name, value = given.groups()
    for table in (reference.base_table(), reference.evals_table()):
        for field in table.fields:
            if field.name == name:
                return f"config.{name}: got {value!r}; {field.need}"
            if field.name.startswith(name + "."):
                fix = f"set one of its fields, such as --config.{field.name}={field.default}"
                return f"config.{name}: got {value!r}; it is a group: {fix}"
    return line


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; check the path and its rights"
    return " ".join(str(error).split()) or type(error).__name__

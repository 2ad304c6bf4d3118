"""Trains, or goes on with a training.

evr1 train --config=CONFIG --config.workdir=DIR          (python -m evr1.main is the same)
"""

import contextlib
from pathlib import Path

import ml_collections
from absl import flags

from evr1.config import command, resolve
from evr1.config.resolve import check_hosts
from evr1.formats import run_files
from evr1.parallel import launchers, leaving


def after(workdir: str) -> str:
    """Returns what the same command will do next, by the checkpoints that are there.

    Args:
        workdir: of the run; empty: not known yet.
    """
    done = run_files.steps(Path(workdir)) if workdir else []
    begins = f"goes on from the checkpoint of step {done[-1]}" if done else "begins with step 1"
    return f"the same command {begins}"


def _starting(config: ml_collections.ConfigDict) -> leaving.Next:
    return leaving.Next(
        f"it ends within {leaving.GRACE_S:.0f} s; {after(str(config.workdir or ''))}"
    )


def _interrupted() -> str:
    """Returns what is said of an interrupt, whenever it comes."""
    is_known = flags.FLAGS.is_parsed() and flags.FLAGS["config"].value is not None
    return f"interrupted; {after(str(flags.FLAGS.config.workdir or '') if is_known else '')}"


def main(config: ml_collections.ConfigDict) -> None:
    """Resolves the config and trains."""
    h = check_hosts(config)
    is_alone = h.count == 1 and not launchers.is_launched()
    settings = resolve(config) if is_alone else None  # bad input is told before jax is imported
    from evr1 import train  # after the flags: --help must not wait for jax
    from evr1.parallel import hosts

    hosts.start(h.coordinator, h.count, h.index)
    command.quiet()
    if hosts.count() > 1:
        command.unwind_on_interrupt()
    with (
        contextlib.nullcontext()
        if hosts.count() > 1
        else leaving.watching(lambda: _starting(config))
    ):
        with hosts.as_one(command.explain):  # what one host does not find, ends all
            settings = settings or resolve(config)
        train.train(settings)


def run() -> None:
    """Runs the command line; does not return."""
    command.run(main, _interrupted, __doc__)


if __name__ == "__main__":
    run()

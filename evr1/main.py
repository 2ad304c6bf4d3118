"""Trains, or goes on with a training.

evr1 train --config=CONFIG --config.workdir=DIR          (python -m evr1.main is the same)
"""

import contextlib

import ml_collections

from evr1.config import command, resolve
from evr1.config.resolve import check_hosts
from evr1.parallel import launchers, leaving

STARTING = leaving.Next(
    f"it ends within {leaving.GRACE_S:.0f} s; the same command goes on from the last checkpoint, "
    "or begins with step 1 where there is none"
)


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
    with contextlib.nullcontext() if hosts.count() > 1 else leaving.watching(lambda: STARTING):
        with hosts.as_one(command.explain):  # what one host does not find, ends all
            settings = settings or resolve(config)
        train.train(settings)


def run() -> None:
    """Runs the command line; does not return."""
    command.run(
        main,
        "interrupted; the same command goes on from the last checkpoint, if there is one",
        __doc__,
    )


if __name__ == "__main__":
    run()

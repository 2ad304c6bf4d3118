"""The training command: `python -m evr1.main --config=CONFIG.py --config.workdir=DIR`."""

import ml_collections

from evr1.config import command, resolve


def main(config: ml_collections.ConfigDict) -> None:
    """Resolves the config and trains."""
    settings = resolve(config)
    from evr1 import train  # after the flags: --help must not wait for jax
    from evr1.parallel import hosts

    h = settings.hosts
    hosts.start(h.coordinator, h.count, h.index)
    command.unwind_on_stop(has_watch=hosts.count() > 1)
    train.train(settings)


if __name__ == "__main__":
    command.run(main, "interrupted; the same command goes on from the last checkpoint")

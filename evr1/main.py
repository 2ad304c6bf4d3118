"""The training command: `python -m evr1.main --config=CONFIG.py --config.workdir=DIR`."""

import ml_collections

from evr1.config import command, resolve


def main(config: ml_collections.ConfigDict) -> None:
    """Resolves the config and trains."""
    settings = resolve(config)
    from evr1 import train  # after the flags: --help must not wait for jax

    command.unwind_on_stop()
    train.train(settings)


if __name__ == "__main__":
    command.run(main, "interrupted; the same command goes on from the last checkpoint")

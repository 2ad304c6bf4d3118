"""The training command: `python -m evr1.main --config=CONFIG.py --config.workdir=DIR`."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from evr1 import config as config_lib

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file; --config.FIELD=VALUE overrides one field.", lock_config=True
)
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Resolves the config and trains; bad input ends in one line and exit code 1."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    try:
        config = config_lib.resolve(_CONFIG.value)
        from evr1 import train  # after the flags: --help must not wait for jax

        logging.set_verbosity(logging.WARNING)  # Orbax tells a page about every save
        train.train(config)
    except (ValueError, OSError, FloatingPointError) as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last checkpoint")


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; a field that does not exist ends in one line, not in a traceback."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as e:
        sys.exit(
            f"error: unknown config field {' '.join(str(e.args[0]).split())}; configs/base.py has "
            "every field"
        )
    except (FileNotFoundError, TypeError, ValueError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)

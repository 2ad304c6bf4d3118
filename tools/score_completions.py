"""`evr1 score` in a checkout; its code is evr1/cli/score_completions.py."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from evr1.cli.score_completions import main

if __name__ == "__main__":
    sys.exit(main())

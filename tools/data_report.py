"""`evr1 data_report` in a checkout; its code is evr1/cli/data_report.py."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from evr1.cli.data_report import main

if __name__ == "__main__":
    sys.exit(main())

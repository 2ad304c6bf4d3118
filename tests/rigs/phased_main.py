"""Runs `evr1.main` and writes each phase that begins to a file: what chaos.py waits for.

    python tests/rigs/phased_main.py FILE FLAGS

Beside the phases of a step these are preprocess and save.
"""

import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from evr1 import train
    from evr1.learner.checkpoint import Checkpoints
    from evr1.telemetry.phases import PhaseTimer

    path = sys.argv.pop(1)

    def noting(function, name=""):
        """The function, which first notes its name, or its first argument behind `self`."""

        def noted(*args, **kwargs):
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(file, f"{name or args[1]}\n".encode())
            os.close(file)
            return function(*args, **kwargs)

        return noted

    PhaseTimer.__call__ = noting(PhaseTimer.__call__)
    Checkpoints.save = noting(Checkpoints.save, "save")
    train.fill_shards = noting(train.fill_shards, "preprocess")
    sys.argv[0] = "evr1.main"
    runpy.run_module("evr1.main", run_name="__main__")

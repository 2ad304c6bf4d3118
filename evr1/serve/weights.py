"""The weights that are served, and those of a run's newest checkpoint once there is one."""

import dataclasses
import pathlib

from evr1.formats import run_files
from evr1.models.io import identity


@dataclasses.dataclass(frozen=True)
class Version:
    """Which weights.

    Attributes:
        path: of the model or checkpoint.
        name: for answers.
    """

    path: str
    name: str


def newest(model: str) -> Version:
    """Returns the weights that a path stands for now.

    Args:
        model: directory, run or checkpoint.

    Raises:
        ValueError: the run has no such checkpoint.
    """
    found = run_files.find(model)
    if found is None:
        return Version(model, f"evr1-{identity.of_model(model)[:12]}")
    run = found.directory.parent.parent
    return Version(str(found.directory), f"evr1-{run.name}-step-{found.step}")


def newer(model: str, now: Version) -> Version | None:
    """Returns the newest checkpoint of a run; None: it is the one that is served.

    Args:
        model: the run.
        now: what is served.
    """
    steps = run_files.steps(pathlib.Path(model))
    if not steps or str(steps[-1]) == pathlib.Path(now.path).name:
        return None
    return newest(model)

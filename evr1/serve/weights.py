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
        stamp: of a checkpoint, which another one under the same name has not.
    """

    path: str
    name: str
    stamp: tuple[int, ...] = ()


def newest(model: str) -> Version:
    """Returns the weights that a path stands for now.

    Args:
        model: directory, run or checkpoint.

    Raises:
        ValueError: the run has no such checkpoint.
        OSError: it was removed at this moment.
    """
    found = run_files.find(model)
    if found is None:
        return Version(model, f"evr1-{identity.of_model(model)[:12]}")
    run = found.directory.parent.parent
    state = (found.directory / run_files.STATE).stat()
    stamp = state.st_ino, state.st_mtime_ns
    return Version(str(found.directory), f"evr1-{run.name}-step-{found.step}", stamp)


def newer(model: str, now: Version) -> Version | None:
    """Returns the newest checkpoint of a run; None: it is the one that is served.

    Args:
        model: the run.
        now: what is served.
    """
    if not run_files.steps(pathlib.Path(model)):
        return None
    found = newest(model)
    return None if found == now else found

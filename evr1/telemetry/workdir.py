"""The folder that a run writes to."""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from evr1.parallel import hosts


@contextlib.contextmanager
def sole_run(workdir: str | Path) -> Iterator[None]:
    """Holds the workdir, so that a second run cannot write into it.

    The kernel lets go of it when the process ends, however it ends.

    Raises:
        ValueError: another run holds it.
    """
    if not hosts.is_primary():
        yield
        return
    path = Path(workdir)
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{workdir}: another run is writing there; wait for its end, or choose another "
                "config.workdir"
            ) from None
        yield


def replace_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file under another name, then moves it into place: a kill leaves the old or the new.

    Args:
        path: replaced if it exists.
        chunks: the new content, written in turn; may be read from the old file.
    """
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

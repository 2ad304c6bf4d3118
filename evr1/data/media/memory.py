"""A bound on the bytes of pixels that are in flight."""

import contextlib
import os
import threading
from collections.abc import Iterator

COPIES = 2  # of a medium's pixels at one time, over all processes: sent and received, or written
_SHARE = 0.5  # of the machine's memory, where no bound is given


class Memory:
    """Lets media in while their pixels fit; one that never fits comes alone."""

    def __init__(self, limit_bytes: int = 0):
        """Takes the bound; 0: half of the machine's memory.

        Raises:
            ValueError: a bound under 0.
        """
        if limit_bytes < 0:
            raise ValueError(f"--memory gives {limit_bytes} bytes; give a number over 0")
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.limit = limit_bytes or int(_SHARE * whole)
        self._free = self.limit
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, pixel_bytes: int) -> Iterator[None]:
        """Waits until a medium of so many bytes fits, and counts it while it is in flight."""
        share = min(COPIES * pixel_bytes, self.limit)
        with self._freed:
            self._freed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._freed:
                self._free += share
                self._freed.notify_all()

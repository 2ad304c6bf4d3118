"""Some tests of this folder measure CPU time."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_garbage_collection() -> Iterator[None]:
    """Garbage of the tests before, which takes seconds to collect, waits for the end of a test."""
    gc.disable()
    yield
    gc.enable()

"""Which families of models a default run of the tests takes."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def families(names: Iterable[str], default: Collection[str]) -> list[Any]:
    """Returns parameters of a test: one of each kind suffices by default, the others are slow."""
    return [pytest.param(x, marks=() if x in default else pytest.mark.slow) for x in names]

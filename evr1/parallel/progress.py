"""How far compiling is; for who shows it, without jax."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far compiling is.

    Attributes:
        done: programs compiled.
        known: programs so far.
        seconds: since the first was traced.
        left_s: that the rest may take; None: not known yet.
        is_all: no more will come.
    """

    done: int
    known: int
    seconds: float
    left_s: float | None
    is_all: bool

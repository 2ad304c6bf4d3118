"""The coefficient of an entropy bonus that comes and goes with the entropy.

Source: Skywork-OR1, 2505.22312.
"""


def adapted(coef: float, observed: float, target: float, step: float) -> float:
    """Returns coef + step below the target, coef - step above it, never below 0.

    Coefficient .01, target .2, step .005: .015 after an entropy of .1, .005 after one of .3.
    """
    if observed == target:
        return coef
    return coef + step if observed < target else max(coef - step, 0.0)


def active(coef: float, observed: float, target: float) -> float:
    """Returns the coefficient while the entropy is not above the target, else 0."""
    return coef if observed <= target else 0.0

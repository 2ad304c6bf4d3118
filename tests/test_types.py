"""Shapes are checked while tests run: a wrong one is refused in each package with arrays."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from evr1.batch.assemble import token_advantages
from evr1.learner.loss import balance_term
from evr1.models.nn import rope
from evr1.rl.kl import kl
from evr1.sampler.driver import Sampler
from evr1.sampler.sampling import Sampling
from evr1.types import GroupBatch

ROWS = jnp.zeros((1, 2, 3))
NOTHING = GroupBatch(*[None] * len(GroupBatch._fields))
# Package: a function of it, the parameter that is wrong, and the arguments.
WRONG = {
    "evr1.batch": (token_advantages, "mask", (np.zeros((2, 3)), np.ones((2, 4, 5), bool))),
    "evr1.learner": (balance_term, "router", (ROWS, 2, NOTHING)),
    "evr1.models": (rope.mrope, "positions", (jnp.zeros((1, 2, 5), int), np.ones(4), np.ones(4))),
    "evr1.rl": (kl, "ref_logprobs", ("k1", ROWS, ROWS[:, :, :2], ROWS == 0)),
    "evr1.sampler": (
        Sampler.generate,
        "request_ids",
        (object.__new__(Sampler), {}, [], np.zeros((2, 2), int), Sampling()),
    ),
}


@pytest.mark.parametrize("package", WRONG)
def test_a_wrong_shape_is_refused(package):
    function, parameter, arguments = WRONG[package]
    assert function.__module__.startswith(package + ".")
    with pytest.raises(TypeCheckError, match=f"typechecking parameter '{parameter}'"):
        function(*arguments)

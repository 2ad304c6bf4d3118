"""Few shapes that hold many."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from evr1.batch.few import choose, first_that_holds

NEEDS = st.lists(st.tuples(*[st.sampled_from([0, 1, 3, 7])] * 2), min_size=1, max_size=30)


def cost(shapes):
    return 1.0 + shapes.sum(axis=1)


@given(NEEDS, st.integers(1, 5), st.sampled_from([0.0, 0.1, 0.5]))
@example([(0, 1), (1, 0), (3, 0)], 4, 0.0)
def test_everything_is_held_and_no_further_shape_is_in_vain(needs, most, gain):
    table = np.array(needs)
    shapes = choose(table, cost, most=most, gain=gain)
    assert 1 <= len(shapes) <= most
    assert shapes[-1] == tuple(table.max(axis=0))

    def paid(chosen):
        return sum(cost(np.array([first_that_holds(chosen, need)]))[0] for need in needs)

    whole = paid(shapes[-1:])
    for shape in shapes[:-1]:  # without it more is paid
        rest = tuple(s for s in shapes if s != shape)
        assert paid(shapes) < paid(rest) <= whole


def test_by_hand():
    """Eight of (2, 0) and two of (8, 4), which cost 3 and 13: 10 * 13 = 130 with one shape, 50 with
    two. A third, (8, 0), would hold nothing that is not held as cheaply."""
    needs = np.array([(2, 0)] * 8 + [(8, 4)] * 2)
    assert choose(needs, cost, most=1, gain=0) == ((8, 4),)
    assert choose(needs, cost, most=3, gain=0) == ((2, 0), (8, 4))
    assert choose(needs, cost, most=3, gain=0.61) == ((2, 0), (8, 4))  # 80 of 130
    assert choose(needs, cost, most=3, gain=0.62) == ((8, 4),)

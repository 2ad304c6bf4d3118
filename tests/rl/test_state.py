import json

from hypothesis import given
from hypothesis import strategies as st

from evr1.rl.state import AlgorithmState

NUMBERS = st.floats(0, 1e3)


@given(coef=NUMBERS, moments=st.dictionaries(st.text(), st.tuples(NUMBERS, NUMBERS)))
def test_json_keeps_every_bit(coef, moments):
    state = AlgorithmState(coef, moments)
    assert AlgorithmState.from_json(json.loads(json.dumps(state.to_json()))) == state

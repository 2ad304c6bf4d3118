"""The end of a rollout that does not wait for its last groups: worked out by hand, by all alike."""

import numpy as np
import pytest

from evr1.rollout.flight import Cut, cut, shortened, to_draw
from evr1.sampler.groups import Progress
from evr1.types import Rollouts


def done(*turns):
    return [Progress(t, True) for t in turns]


def test_the_end_is_where_enough_groups_are_done():
    """Four slots: all groups begin at 0. The two shortest take 2 and 3 turns."""
    assert cut(done(5, 2, 9, 3), 4, 2) == Cut(3, (3, 2, 3, 3), (False, True, False, True))


def test_a_group_has_a_slot_when_one_is_free():
    """One slot: 5, then 2, then 9; after 7 turns two are done, and two had no slot."""
    assert cut(done(5, 2, 9, 3), 1, 2) == Cut(7, (5, 2, 0, 0), (True, True, False, False))


def test_groups_that_end_in_the_same_turn_are_all_done():
    assert cut(done(4, 4, 4), 3, 1) == Cut(4, (4, 4, 4), (True, True, True))


def test_the_end_is_not_known_before_nothing_can_change_it():
    """With need 1 the first group's 4 turns are the end once the second is known to have had 4."""
    first = Progress(4, True)
    assert cut([first, Progress(3, False)], 2, 1) is None
    assert cut([first, Progress(4, False)], 2, 1) == Cut(4, (4, 4), (True, False))
    assert cut([Progress(3, False), Progress(0, False)], 2, 1) is None
    assert cut([], 2, 0) == Cut(0, (), ())


@pytest.mark.parametrize("seed", range(20))
def test_what_hosts_know_when_does_not_move_the_end(seed):
    """Turn by turn, hosts with slots and groups of their own: the first end that is found is the
    one that is found when everything is known."""
    rng = np.random.default_rng(seed)
    turns = rng.integers(1, 30, 20).tolist()
    slots, need = int(rng.integers(1, 9)), int(rng.integers(1, 20))
    for hosts in (1, 2, 4):
        own = -(-slots // hosts)
        waiting = [[g for g in range(20) if g % hosts == h] for h in range(hosts)]
        busy: list[list[int]] = [[] for _ in range(hosts)]
        known = [Progress(0, False)] * 20
        for _ in range(1000):
            for h in range(hosts):
                while waiting[h] and len(busy[h]) < own:
                    busy[h].append(waiting[h].pop(0))
                for g in list(busy[h]):
                    had = known[g].turns + 1
                    known[g] = Progress(had, had == turns[g])
                    if known[g].is_done:
                        busy[h].remove(g)
            found = cut(known, slots, need)
            if found is not None:
                break
        assert found == cut(done(*turns), slots, need)
        assert sum(found.is_done) >= need


def test_slots_without_a_group_are_idle():
    """Two slots for 5 turns, of which one group had 2 and one 5."""
    assert Cut(5, (2, 5, 0), (True, True, False)).idle_share(2) == pytest.approx(0.3)


def test_new_prompts_fill_what_is_on_its_way():
    assert [to_draw(64, 0.05, waiting) for waiting in (0, 4, 6, 99)] == [68, 64, 62, 0]
    assert to_draw(64, 0, 0) == 64


def test_completions_that_are_cut_have_not_ended():
    """Of 4, 2 and 3 tokens, at most 3: the first is cut, and goes on."""
    tokens = np.array([[1, 2, 3, 9], [1, 9, 0, 0], [1, 2, 9, 0]], np.int32)
    logprobs = np.where(tokens > 0, -tokens, 0).astype(np.float32)
    whole = Rollouts(tokens, logprobs, np.array([4, 2, 3], np.int32), np.ones(3, bool))
    got = shortened(whole, 3, pad_id=7)
    assert got.completions.tolist() == [[1, 2, 3, 7], [1, 9, 0, 0], [1, 2, 9, 0]]
    assert got.logprobs.tolist() == [[-1, -2, -3, 0], [-1, -9, 0, 0], [-1, -2, -9, 0]]
    assert got.lengths.tolist() == [3, 2, 3]
    assert got.finished.tolist() == [False, True, True]
    assert got.is_open.tolist() == [True, False, False]
    assert all(x.dtype == y.dtype for x, y in zip(got, whole, strict=True))

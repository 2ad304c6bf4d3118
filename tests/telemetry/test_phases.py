"""Phases: their seconds do not overlap, and whoever listens hears of each that begins."""

import pytest

from evr1.telemetry.phases import PhaseTimer


def clock_of(*ticks):
    it = iter(ticks)
    return lambda: next(it)


def test_phase_times_do_not_overlap_and_start_again():
    timer = PhaseTimer(clock_of(0, 1, 2, 4, 5, 7, 8, 9, 10, 20))
    with timer("rollout"):  # 1 to 2
        pass
    with timer("update"), timer("score"):  # from 4; score from 5 to 7; update ends at 8
        pass
    with pytest.raises(KeyError), timer("rollout"):  # 9 to 10
        raise KeyError
    assert timer.pop() == {  # at 20
        "time/rollout_s": 1 + 1,
        "time/update_s": 1 + 1,
        "time/score_s": 2,
        "time/step_s": 20,
    }


def test_pop_inside_a_phase_splits_it():
    timer = PhaseTimer(clock_of(0, 1, 3, 10, 11))
    with timer("update"):
        assert timer.pop() == {"time/update_s": 2, "time/step_s": 3}
    assert timer.pop() == {"time/update_s": 7, "time/step_s": 8}


def test_on_enter_hears_of_every_phase_that_begins_or_goes_on():
    timer, names = PhaseTimer(), []
    with timer("rollout"):
        timer.on_enter = names.append
        with timer("score"):
            pass
    with timer("update"):
        pass
    assert names == ["score", "rollout", "update"]


def test_on_count_hears_how_far_a_phase_is():
    timer, told = PhaseTimer(), []
    timer.count(1, 2, "rows")  # nobody listens
    timer.on_count = lambda *args: told.append(args)
    timer.count(2, 2, "rows")
    assert told == [(2, 2, "rows")]


def test_the_seconds_of_a_phase():
    timer = PhaseTimer(clock_of(0, 1, 4, 5, 6))
    with timer("compile"):  # from 1 to 4
        pass
    assert timer.seconds("compile") == 3
    assert timer.seconds("update") == 0

"""A trace of some steps, read back: whose steps it has, and the phases and parts in it."""

import jax.numpy as jnp
import numpy as np
import pytest
import step_rig
from trace_rig import trace_events

from evr1.telemetry.phases import PhaseTimer
from evr1.telemetry.profile import newest, traced


@pytest.mark.parametrize(
    ("steps", "count", "recorded"),
    [(range(4, 8), 2, ["6", "7"]), (range(3), 9, ["2", "3"]), (range(1), 1, ["1"])],
)
def test_a_trace_begins_with_the_second_step_and_names_phases(tmp_path, steps, count, recorded):
    timer, lines, phases = PhaseTimer(), [], []
    timer.on_enter = phases.append
    for _ in traced(steps, count, tmp_path, lines.append, timer):
        with timer("rollout"), timer("score"):
            np.asarray(jnp.ones(3) + 1)
    assert phases.count("profile") == 2  # to begin and to write it are in a phase, too
    events = trace_events(tmp_path)
    assert [args["step_num"] for args in events["step"]] == recorded
    assert len(events["rollout"]) == len(events["score"]) == len(recorded)
    said = f"steps {recorded[0]} to {recorded[-1]}" if len(recorded) > 1 else f"step {recorded[0]}"
    assert lines == [f"trace of {said}: {newest(tmp_path)}"]


def test_without_a_trace_the_steps_are_the_same_and_nothing_is_written(tmp_path):
    assert list(traced(range(2, 5), 0, tmp_path, print, PhaseTimer())) == [2, 3, 4]
    assert list(traced(range(0), 3, tmp_path, print, PhaseTimer())) == []
    assert not list(tmp_path.iterdir())


def test_a_trace_is_written_where_a_step_fails(tmp_path):
    def fail():
        for _ in traced(range(1), 1, tmp_path, print, PhaseTimer()):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert newest(tmp_path).exists()


def test_the_parts_of_a_network_are_named_in_its_program():
    prompts, completions = step_rig.batch().prompts, step_rig.batch().completions
    lowered = step_rig.logprobs().lower(step_rig.params(), prompts, completions)
    text = lowered.as_text(debug_info=True)
    for part in ("tower", "attention", "feed_forward", "head"):
        assert f"/{part}/" in text

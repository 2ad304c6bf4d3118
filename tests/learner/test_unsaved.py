"""What a run that is asked to end says of its steps."""

from evr1.learner.unsaved import SAVING, Unsaved
from evr1.telemetry.phases import PhaseTimer


def test_a_step_whose_checkpoint_is_not_on_disk_is_saved_first(tmp_path):
    timer = PhaseTimer()
    unsaved = Unsaved(tmp_path, timer, 0)
    said = unsaved()
    assert said.unsaved == ""
    assert said.text.endswith("ends within 3 s, and the same command begins with step 1")
    unsaved.step = 2
    with timer("rollout"):
        said = unsaved()
    assert said.unsaved == "step 2"
    assert said.text == (
        "step 2 is saved first, and the same command goes on from it; rollout is under way"
    )
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp-1" / "state").mkdir(parents=True)
    with timer(SAVING):
        assert unsaved().text.endswith("from it; that is under way")
    (tmp_path / "checkpoints" / "2" / "state").mkdir(parents=True)
    said = unsaved()
    assert said.unsaved == ""
    assert said.text.endswith("the same command goes on from the checkpoint of step 2")
    unsaved.step = 3
    assert unsaved().unsaved == "step 3"

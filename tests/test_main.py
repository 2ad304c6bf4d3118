"""What the command of training says before it trains."""

import subprocess
import sys

from evr1 import main


def test_what_comes_after_an_interrupt_is_told_by_the_checkpoints(tmp_path):
    assert main.after("") == main.after(str(tmp_path)) == "the same command begins with step 1"
    for step, part in ((2, "state"), (10, "state"), (12, "half")):
        (tmp_path / "checkpoints" / str(step) / part).mkdir(parents=True)
    found = main.after(str(tmp_path))
    assert found == "the same command goes on from the checkpoint of step 10"


def test_the_log_of_xla_is_off_unless_it_is_asked_for():
    code = "import evr1, jax, os; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    for asked, level in (({}, "3"), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "0")):
        env = {"PYTHONPATH": ":".join(sys.path), "JAX_PLATFORMS": "cpu", **asked}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert done.stdout.strip() == level, done.stderr

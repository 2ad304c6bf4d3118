"""evr1 convert: what a directory that is made of a run says beside its tensors."""

import json

from repo import DEMO_MODEL

from configs import demo
from evr1.cli import convert_checkpoint
from evr1.learner.checkpoint import Checkpoints
from evr1.models import load_model
from evr1.models.io import hf


def test_the_processor_of_a_run_that_is_converted_has_its_budgets(tmp_path):
    """The processor was the start's: vLLM showed the model other frames than it was trained on."""
    config = demo.get_config()
    config.data.update(video_fps=3.0, video_max_frames=6, image_max_pixels=4096)
    run, out = tmp_path / "run", tmp_path / "hf"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    checkpoints = Checkpoints(run / "checkpoints")
    params = hf.load_params(DEMO_MODEL, load_model(DEMO_MODEL))
    checkpoints.save(1, {"params": params}, {})
    checkpoints.close()
    convert_checkpoint.main(["--run", str(run), "--to_hf", str(out)])
    video = json.loads((out / "video_preprocessor_config.json").read_text())
    assert (video["fps"], video["max_frames"]) == (3.0, 6)
    assert json.loads((out / "preprocessor_config.json").read_text())["size"] == {
        "shortest_edge": config.data.image_min_pixels,
        "longest_edge": 4096,
    }

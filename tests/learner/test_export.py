"""An export is read back and compared before it is called done."""

import pytest
from repo import DEMO_MODEL

from configs import demo
from evr1.batch.shapes import ShapeTable
from evr1.config import resolve
from evr1.config.learner import learner_settings
from evr1.learner import export as export_module
from evr1.learner.export import export
from evr1.learner.learner import make_learner
from evr1.models import load_model
from evr1.models.io import safetensors


@pytest.fixture(scope="module")
def learner():
    settings = learner_settings(resolve(demo.get_config(), has_paths=False))
    shapes = ShapeTable((104,), (4,), 36, 24)
    return make_learner(settings, load_model(DEMO_MODEL), None, shapes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_written_is_read_back(learner, tmp_path, dtype):
    export(learner, learner.load(DEMO_MODEL), tmp_path / "out", dtype)
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_changed_tensor_is_refused_and_named(learner, tmp_path, monkeypatch):
    """One bit of a norm's scale flips between writing and reading, as on a bad disk."""
    write = export_module.hf.save_params
    name = "model.language_model.norm.weight"

    def write_and_flip(params, model, out, **options):
        write(params, model, out, **options)
        path = next(out.glob("*.safetensors"))
        entry = safetensors.read_header(path)[name]
        with path.open("r+b") as file:
            file.seek(entry.offset)
            byte = file.read(1)
            file.seek(entry.offset)
            file.write(bytes([byte[0] ^ 1]))

    monkeypatch.setattr(export_module.hf, "save_params", write_and_flip)
    with pytest.raises(ValueError, match="out: text/norm/scale differs from the trained one; is"):
        export(learner, learner.load(DEMO_MODEL), tmp_path / "out", "float32")

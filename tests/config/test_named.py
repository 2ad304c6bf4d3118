"""Config files by name, from any folder; what is near a name that is none."""

import pytest
from repo import ROOT

from evr1.config import base, named


def test_the_names_are_the_files_of_configs():
    files = (f.relative_to(ROOT / "configs") for f in (ROOT / "configs").rglob("[!_]*.py"))
    assert set(named.names()) == {str(f).removesuffix(".py") for f in files}
    assert {"demo", "qwen_video", "recipes/qwen3_vl_8b"} <= set(named.names())


def test_a_name_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named.find("demo") == str(ROOT / "configs" / "demo.py")
    recipe = "recipes/qwen3_vl_8b"
    assert named.find(f"{recipe}:v6e-64") == f"{ROOT / 'configs' / recipe}.py:v6e-64"
    config = named.load(f"{recipe}:v6e-64")
    assert (config.rollout.slots, config.data.max_prompt_tokens) == (128, 20000)
    assert config.keys() == base.get_config().keys()


def test_a_file_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (
        "from evr1.config import named\ndef get_config(n='3'):\n    c = named.load('qwen_video')\n"
    )
    (tmp_path / "demo").write_text(text + "    c.num_steps = int(n)\n    return c\n")
    assert named.find("demo:7") == "demo:7"
    assert named.load(f"{tmp_path}/demo:7").num_steps == 7
    assert named.load(f"{tmp_path}/demo").data.video_fps == 2.0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dmo", "--config=dmo: no such file, and no config of evr1's; did you mean demo?"),
        ("qwen3_vl_8b:v6e-64", "; did you mean recipes/qwen3_vl_8b?"),
        ("configs/demo_joint.py", "; did you mean demo_joint?"),
        ("nothing", "; give a path, or one of base, demo, demo_joint, eval_video, "),
    ],
)
def test_what_is_near_is_told(name, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no such file") as error:
        named.load(name)
    assert says in str(error.value)


def test_a_file_without_a_config_is_told(tmp_path):
    (tmp_path / "my.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"my.py: no get_config\(\) there; define it"):
        named.load(f"{tmp_path}/my.py")

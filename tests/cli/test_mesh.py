"""--mesh of the commands that run a model, on simulated devices: what one device gives."""

import numpy as np
import pytest
import tools_rig as rig

COMMANDS = {name: rig.load(name) for name in ("generate", "score_completions")}
COMMANDS["filter_by_pass_rate"] = rig.load("filter_by_pass_rate")
inference = rig.load("inference")
MESH = "data=2,fsdp=2,tensor=2"
OWN = {
    "generate": ["--n", "2", "--max_tokens", "12", "--slots", "3", "--window", "8"],
    "score_completions": ["--temperature", "0.8"],
    "filter_by_pass_rate": ["--k", "2", "--max_tokens", "12", "--slots", "3", "--window", "8"],
}


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Three rows, a clip and an image among them, with completions of different lengths."""
    root = tmp_path_factory.mktemp("mesh")
    texts = ["<answer>3</answer>", "a somewhat longer answer: 3 digits", "17"]
    rows = [{**q, "completion": c} for q, c in zip(rig.QUESTIONS, texts, strict=True)]
    path = rig.write_rows(root / "rows.jsonl", rows)
    media = rig.write_media(root)
    return ["--model", rig.MODEL, "--rows", path, "--media_dir", media, *rig.BUDGETS]


def run(name, flags, out, *more):
    """The rows that a command wrote."""
    assert COMMANDS[name].main([*flags, *OWN[name], "--out", str(out), *more]) == 0
    return rig.read(out / "progress.jsonl" if name == "filter_by_pass_rate" else out)


@pytest.mark.parametrize("name", COMMANDS)
def test_eight_devices_give_what_one_does(flags, tmp_path, name):
    """The same tokens; log-probabilities up to another order of summation in float32."""
    one = run(name, flags, tmp_path / "one")
    eight = run(name, flags, tmp_path / "eight", "--mesh", MESH)
    values = [[row.pop("logprobs", []) for row in rows] for rows in (one, eight)]
    assert one == eight
    for a, b in zip(*values, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_the_devices_change_no_settings_of_a_file(flags, tmp_path, capsys):
    """Begun on one device, gone on with on eight: nothing is drawn again."""
    out = tmp_path / "out.jsonl"
    before = run("generate", flags, out)
    out.write_text("".join(out.read_text().splitlines(keepends=True)[:4]))
    assert run("generate", flags, out, f"--mesh={MESH}")[:4] == before[:4]
    assert "2 done before" in capsys.readouterr().out


WRONG = [
    ("rows=2", "--mesh rows=2: got 'rows=2'; give sizes of data, fsdp and tensor"),
    ("data", "--mesh data: got 'data'; give sizes"),
    ("data=2,fsdp=0", "--mesh data=2,fsdp=0: got 'fsdp=0'; give sizes"),
    ("data=2;fsdp=4", "got 'data=2;fsdp=4'; give sizes"),
    ("data=2,data=4", "--mesh data=2,data=4: data stands there twice; give it once"),
    ("data=3", "mesh.fsdp=1, mesh.context=1, mesh.tensor=1 needs 3 devices, there are 8; set one"),
    ("data=3,fsdp=-1", "needs a multiple of 3 devices, there are 8"),
    ("data=-1,fsdp=-1", "every size must be at least 1, and one of them may be -1"),
]


@pytest.mark.parametrize(
    ("name", "mesh", "says"),
    [("generate", *wrong) for wrong in WRONG]
    + [(name, *WRONG[at]) for name in list(COMMANDS)[1:] for at in (0, 5)],
)
def test_a_wrong_mesh_is_one_line(flags, tmp_path, capsys, name, mesh, says):
    out = str(tmp_path / "out")
    assert COMMANDS[name].main([*flags, *OWN[name], "--out", out, f"--mesh={mesh}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"{name}: ")
    assert says in error
    assert error.count("\n") == 1


def test_mesh_sizes():
    assert inference.mesh_sizes("") is None
    assert inference.mesh_sizes("fsdp=2,tensor=4") == {"data": 1, "fsdp": 2, "tensor": 4}

"""evr1 from Python: the notebook of the docs runs, and bad input is one line."""

import json
import subprocess
import sys

import pytest
import tools_rig as rig
from repo import ROOT

from evr1 import api
from evr1.config import base
from evr1.rewards import __main__ as command

NUMBER = {"problem_type": "numerical", "answer": 3}
# What is left of each cell is its last expression, as a notebook shows it.
RUN = """
import ast, json, sys
names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        *body, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        print("OUT", json.dumps(value, default=str))
"""


def test_the_notebook_runs(tmp_path):
    line = [sys.executable, "-c", RUN, str(ROOT / "docs" / "api.ipynb")]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    outs = [json.loads(x[4:]) for x in done.stdout.splitlines() if x.startswith("OUT ")]
    row, scored, own, drawn, (model, rewards) = outs
    assert row["problem_type"]
    assert [s[1:] for s in scored] == [[1.0, 1.0, 1.0], [0.9, 1.0, 0.0], [0.1, 0.0, 1.0]]
    assert [accuracy for _, accuracy in own] == [1.0, 0.0, 0.5]
    assert len(drawn) == 4
    assert all(text and 0 <= accuracy <= 1 for _, text, accuracy in drawn)
    assert (model, [step for step, _ in rewards]) == ("run/export", [1, 2])
    assert (tmp_path / "run" / "export" / "config.json").is_file()


def test_a_notebook_is_kept_without_outputs():
    cells = json.loads((ROOT / "docs" / "api.ipynb").read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_scores_are_those_of_the_command(tmp_path):
    rows = [NUMBER | {"response": "<answer>3</answer>"}, NUMBER | {"completion": "four"}]
    rows.append({"problem_type": "dance", "answer": 1, "response": ""})
    path, out = rig.write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    command.main(["--rows", path, "--out", str(out), "--workers=1"])
    assert api.score(rows, workers=1) == api.score(path, workers=1) == rig.read(out)
    assert [row["status"] for row in rig.read(out)] == ["ok", "ok", "error"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: api.score([], wurkers=1), "unrecognized arguments: --wurkers=1; did you mean --w"),
        (lambda: api.score([], workers=0), "rewards.workers=0 must be at least 1"),
        (lambda: api.score([], rewards=len), "rewards is a builtin_function_or_method; give the"),
        (lambda: api.score([], rewards="no.py"), "rewards.extra=no.py: no such file"),
        (lambda: api.open(rig.MODEL, fsp=3), "unrecognized arguments: --fsp=3; did you mean --fp"),
        (lambda: api.open(rig.MODEL, prompt="x"), "argument --prompt: invalid choice: 'x'"),
        (
            lambda: api.open(rig.MODEL, max_pixels=9),
            "--min_pixels=3136 (the default) is over --max_",
        ),
        (lambda: api.open("/nowhere"), "/nowhere"),
        (lambda: api.train("dmo"), "config=dmo: no such file, and no config of evr1's; did you"),
        (
            lambda: api.train("demo", {"num_stepz": 1}),
            "fields['num_stepz']: no such field; did you mean num_steps?",
        ),
        (lambda: api.train("demo", {"rollout.n": "x"}), "fields['rollout.n']: "),
        (lambda: api.train(base.get_config()), "config.workdir is not given"),
    ],
)
def test_bad_input_is_one_line(call, says):
    with pytest.raises(ValueError, match=".") as error:
        call()
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_are_named():
    with api.open(rig.MODEL) as model:
        for rows, says in (
            ([], "rows: got none; give at least one"),
            (["a", {"answer": 3}], "rows[1]: "),
            ([{"problem": "b", "videos": ["no.mp4"]}], "rows[0]: "),
        ):
            with pytest.raises(ValueError, match=".") as error:
                model.generate(rows)
            assert str(error.value).startswith(says)


def test_a_config_is_not_changed(tmp_path):
    config = base.get_config()
    with pytest.raises(ValueError, match="config.model is not given"):
        api.train(config, {"num_steps": 7, "workdir": str(tmp_path)})
    assert config.num_steps == base.get_config().num_steps


def test_a_file_without_rows_is_told(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"empty\.jsonl: holds no rows; give a file with at least"):
        api.score(tmp_path / "empty.jsonl", workers=1)

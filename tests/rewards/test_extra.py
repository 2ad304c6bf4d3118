"""Problem types of a user's own: loaded everywhere, checked at once, never by accident."""

import json
import re
import subprocess
import sys
import textwrap

import pytest
from repo import ROOT
from rows_rig import make_row

from evr1 import rewards
from evr1.data import prompts, rows
from evr1.formats import problem_types
from evr1.rewards import Status, Verdict, __main__, extra
from evr1.rewards.pool import RewardPool

OWN = """
    from evr1.rewards import Verdict

    def riddle(response, task):
        if response == "hang":
            while True: pass
        if response == "exit":
            raise SystemExit(3)
        if response == "wild":
            return Verdict(7.0, True, "")
        if response == "late":
            return 0.5
        print("a library's chatter")
        return Verdict(float(task.answer in response), True, response) if response else None

    def ocr(response, task):
        return Verdict(0.25, False, "mine")

    SCORERS = {" Riddle ": riddle, "OCR": ocr}
    TERMS = {"shout": lambda completion: float(completion.text.isupper())}
"""


@pytest.fixture
def own(tmp_path):
    """The path of a file with two scorers and a term."""
    path = tmp_path / "my_rewards.py"
    path.write_text(textwrap.dedent(OWN))
    return str(path)


def test_types_are_added_and_replaced(own):
    loaded = extra.load(f"{own}:SCORERS")
    assert list(loaded.scorers) == ["riddle", "ocr"]
    assert list(loaded.terms) == ["shout"]
    scorers = extra.all_scorers(own)
    assert set(scorers) == {*rewards.SCORERS, "riddle"}
    row = {"problem_type": "RIDDLE", "answer": "egg"}
    assert rewards.score("an egg", row, scorers=scorers).overall == 1
    assert rewards.score("x", {"problem_type": "ocr", "answer": "x"}, scorers=scorers)[1] == 0.25
    assert rewards.score("x", {"problem_type": "ocr", "answer": "x"}).accuracy == 1
    assert extra.all_scorers("") == rewards.SCORERS


def test_the_workers_load_it_and_survive_it(own):
    row = {"problem_type": "riddle", "answer": "egg"}
    responses = ["an egg", "hang", "a hen", "exit", "wild", "late", "", "egg"]
    with RewardPool(workers=2, timeout_s=1.0, extra=own) as pool:
        scores = pool.score_batch(responses, [row] * len(responses))
        assert pool.score_batch(["x"], [{"problem_type": "ocr", "answer": "x"}])[0].accuracy == 0.25
    statuses = ["ok", "timeout", "ok", "error", "error", "error", "unparsed", "ok"]
    assert [s.status for s in scores] == statuses
    assert [s.accuracy for s in scores] == [1, 0, 0, 0, 0, 0, 0, 1]
    assert "gave accuracy 7.0; give 0 to 1" in scores[4].detail
    assert "returned 0.5; return a Verdict or None" in scores[5].detail


def test_a_module_is_found_where_this_process_finds_it(tmp_path, monkeypatch):
    (tmp_path / "riddles_of_mine.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    row = {"problem_type": "riddle", "answer": "egg"}
    with RewardPool(workers=1, extra="riddles_of_mine:SCORERS") as pool:
        assert pool.score_batch(["egg"], [row])[0].overall == 1


def test_a_relative_path_is_found_from_anywhere(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert extra.absolute("my_rewards.py:SCORERS") == f"{own}:SCORERS"
    assert extra.absolute("my_rewards:SCORERS") == "my_rewards:SCORERS"
    assert "riddle" in extra.load("./my_rewards.py").scorers


def test_a_file_takes_no_librarys_place(tmp_path):
    path = tmp_path / "fractions.py"
    path.write_text("import fractions\nhalf = fractions.Fraction(1, 2)\nTERMS = {'x': len}\n")
    assert extra.load(str(path)).terms == {"x": len}
    import fractions

    assert fractions.Fraction(1, 2) == 0.5


def test_a_file_runs_once_in_a_process(tmp_path):
    path = tmp_path / "counted.py"
    path.write_text(
        "import pathlib\n"
        "log = pathlib.Path(__file__).with_suffix('.log')\n"
        "log.write_text(log.read_text() + 'run\\n' if log.exists() else 'run\\n')\n"
        "TERMS = {'x': len}\n"
    )
    for _ in range(3):
        extra.load(str(path))
    assert path.with_suffix(".log").read_text() == "run\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "has neither SCORERS nor TERMS"),
        ("SCORERS = {}", "SCORERS is {}; make it a dict of name: function"),
        ("SCORERS = [len]", "make it a dict of name: function"),
        ("SCORERS = {'riddle': 3}", r"SCORERS\['riddle'\] is 3; give a function"),
        ("SCORERS = {3: len}", "SCORERS has the key 3; use a name"),
        ("SCORERS = {'a/b': len}", "has the key 'a/b'; use a name of letters"),
        ("SCORERS = {'riddle': lambda r: None}", r"cannot be called with \(response, task\)"),
        ("SCORERS = {'riddle': lambda r, t, w: None}", "missing a required argument: 'w'"),
        ("SCORERS = {'riddle': lambda r, t: 0.5}", "'riddle', called with an empty response.*0.5"),
        ("SCORERS = {'riddle': lambda r, t: True}", "return a Verdict or None"),
        (
            "SCORERS = {'mcq': lambda r, t: None}",
            "'mcq' is an alias of 'multiple choice'; use that",
        ),
        ("f = lambda r, t: None\nSCORERS = {'a b': f, 'A  B': f}", "'A  B' is there twice"),
        ("TERMS = {'x': lambda: 0}", r"TERMS\['x'\] cannot be called with \(completion\)"),
        ("TERMS = {'x y': len}", "'x y'; use a name without spaces"),
        ("import nowhere_at_all", "running it fails with ModuleNotFoundError"),
        ("def f(:", "running it fails with SyntaxError"),
        ("import sys; sys.exit('bye')", "running it fails with SystemExit: bye"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two; correct it"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, source, message):
    path = tmp_path / "bad.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=message) as e:
        extra.load(str(path))
    assert "\n" not in str(e.value)
    assert str(e.value).startswith(f"rewards.extra={path}: ")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("/nowhere/my.py:SCORERS", "no such file; correct the path"),
        ("no_such_module:SCORERS", "no module 'no_such_module'; give the path of a .py file"),
        ("no_such_package.part", "no module 'no_such_package.part'"),
        ("json:SCORERS", "json has no SCORERS; define it"),
        ("json", "json has neither SCORERS nor TERMS"),
        (":SCORERS", "finding it fails with ValueError"),
        ("..part", "finding it fails with"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line(spec, message):
    with pytest.raises(ValueError, match=message) as e:
        extra.load(spec)
    assert "\n" not in str(e.value)


def test_a_truth_that_an_own_scorer_refuses_is_named(own):
    scorers = {"riddle": lambda response, task: Verdict(1 / task.answer, True, "")}
    rewards.check_row({"problem_type": "riddle", "answer": 2}, scorers)
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        rewards.check_row({"problem_type": "riddle", "answer": 0}, scorers)


@pytest.mark.parametrize(
    "returned",
    [0.5, True, (1.0, True, "x"), "1", Verdict(1.5, True, ""), Verdict(-0.1, True, "")]
    + [Verdict(float("nan"), True, ""), Verdict("1", True, ""), Verdict(1.0, True, None)],
)
def test_what_is_no_verdict_is_an_error(returned):
    row = {"problem_type": "riddle", "answer": "x"}
    result = rewards.score("x", row, scorers={"riddle": lambda response, task: returned})
    assert result[:4] == (0, 0, 0, Status.ERROR)


def test_rows_of_own_types_are_accepted_and_asked_in_the_general_form(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"problem": "What?", "answer": "egg", "problem_type": "Riddle "}))
    with pytest.raises(ValueError, match="unknown problem_type 'Riddle '"):
        rows.load_rows(path)
    types = problem_types.Types({"riddle": None})
    [row] = rows.load_rows(path, rows.Schema(canonical=types.canonical))
    assert (row.problem_type, types.summary()) == ("riddle", "")
    asked = make_row("What?", "riddle")
    text = prompts.render_task(
        asked, prompts.built_in_template(), thinking=False, box_scale="pixels"
    )
    assert text.endswith("<answer>answer</answer>")
    template = "{% if problem_type == 'riddle' %}Guess: {{ problem }}{% endif %}"
    assert (
        prompts.render_task(asked, template, thinking=False, box_scale="pixels") == "Guess: What?"
    )


def test_unknown_types_are_refused_or_read_as_one_and_counted():
    types = problem_types.Types(unknown="Free-Form")
    assert types.canonical("riddle") == types.canonical(" Riddle") == "open-ended"
    assert types.canonical("MCQ") == "multiple choice"
    assert types.canonical("essay") == "open-ended"
    assert types.summary() == (
        "read as open-ended: 3 rows of unknown problem_type: 'riddle' (2), 'essay' (1)"
    )
    for missing in (None, "", " ", 3):
        with pytest.raises(ValueError, match="problem_type"):
            types.canonical(missing)
    with pytest.raises(ValueError, match="unknown problem_type 'riddle'"):
        problem_types.Types().canonical("riddle")
    with pytest.raises(ValueError, match="rewards.unknown_type='essay': unknown problem_type"):
        problem_types.Types(unknown="essay")
    assert problem_types.Types(["essay"], "essay").canonical("riddle") == "essay"


def test_a_scorer_of_a_type_that_no_row_has_is_named_with_near_ones(tmp_path, capsys):
    """Misspelt, it was silent: the built-in scorer went on deciding."""
    types = problem_types.Types([*rewards.SCORERS, "orc", "riddle"])
    assert types.lines() == []  # no row was read at all
    for name in ("OCR", "riddle", "math"):
        types.canonical(name)
    assert types.lines() == [
        "warning: rewards.extra scores the problem type 'orc', which no row has; did you mean ocr? "
        "the rows have math, ocr, riddle"
    ]
    types.canonical("Orc")
    assert types.lines() == []

    (tmp_path / "mine.py").write_text(textwrap.dedent(OWN).replace("OCR", "orc"))
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"answer": "x", "problem_type": "ocr", "response": "<answer>x</answer>"}) + "\n"
    )
    flags = ["--rows", f"{tmp_path}/rows.jsonl", "--out", f"{tmp_path}/out.jsonl"]
    __main__.main([*flags, "--extra", f"{tmp_path}/mine.py", "--workers", "1"])
    said = capsys.readouterr().err
    assert "--extra scores the problem type 'orc', which no row has; did you mean ocr?" in said
    assert "--extra scores the problem type 'riddle', which no row has; the rows have ocr" in said


def test_near_names_include_own_ones():
    with pytest.raises(ValueError, match="did you mean one of riddle"):
        problem_types.canonical("ridle", ["riddle"])


def test_command_with_own_and_unknown_types(own, tmp_path, capsys):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        '{"problem_type": "riddle", "answer": "egg", "response": "an egg"}\n'
        '{"problem_type": "essay", "answer": "a cat", "response": "<answer>a cat</answer>"}\n'
    )
    flags = [f"--rows={source}", f"--out={out}", "--workers=1", f"--extra={own}:SCORERS"]
    __main__.main([*flags, "--unknown_type=open-ended", "--terms=shout=0.5"])
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["overall"], r["terms"]) for r in found] == [(1, {"shout": 0}), (1, {"shout": 0})]
    assert "read as open-ended: 1 row of unknown problem_type: 'essay'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="--unknown_type='essays': unknown problem_type"):
        __main__.main([*flags, "--unknown_type=essays"])
    with pytest.raises(SystemExit, match="--terms names 'whisper'; there are .*shout"):
        __main__.main([*flags, "--terms=whisper=1"])


def test_command_finds_a_module_beside_the_caller(own, tmp_path):
    root = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-m", "evr1.rewards", "--rows=-", "--out=-", "--extra=my_rewards:SCORERS"]
        + ["--workers=1"],
        input='{"problem_type": "riddle", "answer": "egg", "response": "an egg"}\n',
        cwd=tmp_path,
        env={"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["overall"] == 1  # the chatter of the scorer is not in it


def test_the_example_of_the_docs_works(tmp_path):
    text = (ROOT / "docs" / "rewards.md").read_text("utf-8")
    path = tmp_path / "my_rewards.py"
    path.write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    loaded = extra.load(str(path))
    row = {"problem_type": "riddle", "answer": "egg"}
    assert rewards.score("an egg", row, scorers=loaded.scorers).overall == 1
    assert list(loaded.terms) == ["shout"]

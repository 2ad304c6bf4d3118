"""A task of one's own: the documented example from file to score, and files that are refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
from answers_rig import answer
from clips import write_clip
from repo import ROOT

from evr1.evals import prepare, samples
from evr1.evals.__main__ import main
from evr1.evals.tasks import data_rows, find
from evr1.evals.tasks.base import Media, Show

EXAMPLE = ROOT / "docs" / "own_benchmark.py"
ROWS = re.findall(r'(?m)^\{"problem_id.*$', EXAMPLE.with_suffix(".md").read_text("utf-8"))
# For each row of the page: a response as it is asked for, and one that holds the answer only.
FORMAL = [f"<answer>{gold}</answer>" for gold in ("B", "3", "No", '{"time": [0.5, 1.5]}')]
BRIEF = ["B.", "3", "no", "from 0.5 to 1.5"]


@pytest.fixture
def data(tmp_path):
    """A folder with the rows of the page, and real clips."""
    folder = tmp_path / "data"
    (folder / "clips").mkdir(parents=True)
    (folder / "questions.jsonl").write_text("\n".join(ROWS), "utf-8")
    for name in ("a", "b"):
        write_clip(folder / "clips" / f"{name}.mp4", frames=60)
    return folder


def write_run(folder, file, data, responses, name="door_clips"):
    """Writes a run of a task's file as the job does."""
    task = find(str(EXAMPLE))
    with samples.Writer(samples.path_of(folder, name)) as writer:
        for sample, response in zip(task.load(data), responses, strict=True):
            made = answer(sample.id, response, task=name, sample=sample, prompt="training")
            writer.append(made)
    manifest = {"tasks": {name: {"file": str(file)}}, "n_expected": {name: len(responses)}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def results_of(run):
    (path,) = run.glob("results_*.json")
    return json.loads(path.read_text("utf-8"))["results"]["door_clips"]


def test_the_example_loads_rows_and_asks_as_training_does(data):
    task = find(str(EXAMPLE))
    assert task.file == str(EXAMPLE)
    first, second, *_ = task.load(data)
    assert second.media == (Media("clips/a.mp4", start_s=1.0, end_s=2.5),)
    assert (first.tags, first.cluster) == ({"kind": "who"}, second.cluster)
    medium, text = task.prompts["training"](first)
    assert medium == Show(0)
    assert text.endswith("reply with the letter of the right option: <answer>letter</answer>")
    assert "A. a man\nB. a dog" in task.prompts["brief"](first)[1]
    assert prepare.take_stock(task, data).is_complete


def test_the_example_is_shown_and_prepared_by_its_path(data, capsys):
    main(["show", str(EXAMPLE), "--data", str(data)])
    main(["prepare", str(EXAMPLE), "--data", str(data)])
    printed = capsys.readouterr().out
    assert "Door clips: who comes in" in printed
    assert "sub-scores: accuracy, kind/*" in printed
    assert "media: 2 of 2" in printed


def test_a_run_of_it_is_scored_and_compared(data, tmp_path, capsys):
    runs = [
        write_run(tmp_path / name, EXAMPLE, data, responses)
        for name, responses in (("formal", FORMAL), ("brief", BRIEF))
    ]
    for run in runs:
        main(["score", str(run)])
    formal, brief = map(results_of, runs)
    assert (formal["accuracy,evr1"], formal["accuracy,by_text"]) == (1.0, 0.0)
    assert (brief["kind/who,evr1"], brief["accuracy,by_text"]) == (1.0, 0.75)
    main(["compare", *map(str, runs), "--profile", "by_text"])
    assert "+75.0" in capsys.readouterr().out


AGGREGATES = """
def fails(records):
    return {"accuracy": len(records) / 0}


def fails_on_few(records):
    return {"accuracy": 1 / (len({r.sample.id.partition("#")[0] for r in records}) > 3)}


def wrong(records):
    return [0.5]
"""


@pytest.mark.parametrize(
    ("name", "says", "value"),
    [
        ("fails", "aggregate evr1: running it fails with ZeroDivisionError: division by", None),
        ("wrong", "aggregate evr1 gives [0.5]; give a dict of names to numbers", None),
        ("fails_on_few", "evr1 has no intervals, as some draws do not add up", 1.0),
    ],
)
def test_an_aggregate_that_fails_takes_its_own_score_alone(
    data, tmp_path, capsys, name, says, value
):
    text = EXAMPLE.read_text("utf-8").replace("TASK = Task(", f"{AGGREGATES}\nTASK = Task(")
    assert text.count("aggregates={") == 1
    text = text.replace("aggregates={", f'aggregates={{"evr1": {name}}} or {{')
    (tmp_path / "mine.py").write_text(text)
    run = write_run(tmp_path / "run", tmp_path / "mine.py", data, FORMAL)
    main(["score", str(run)])
    printed = " ".join(capsys.readouterr().out.split())
    assert says in printed
    assert printed.count("add up: ") == 1
    found = results_of(run)
    assert found["accuracy,by_text"] == 0.0
    assert found.get("accuracy,evr1") == value
    main(["view", str(run)])
    if value is None:
        with pytest.raises(SystemExit, match="^error: door_clips: evr1 cannot add up"):
            main(["compare", str(run), str(run)])


@pytest.mark.parametrize("score", ["7", "float('nan')", "-0.5"])
def test_a_score_outside_0_to_1_is_none(data, tmp_path, capsys, score):
    text = EXAMPLE.read_text("utf-8") + f"\nTASK.rules['evr1'] = lambda *_: Verdict('x', {score})"
    (tmp_path / "mine.py").write_text(f"from evr1.evals.tasks.base import Verdict\n{text}")
    main(["score", str(write_run(tmp_path / "run", tmp_path / "mine.py", data, FORMAL))])
    printed = " ".join(capsys.readouterr().out.split())
    assert "one is from 0 to 1 (and 3 more)" in printed
    assert "partial, 0 of 4 scored: 4 failed" in printed


def test_a_run_says_that_its_file_is_gone(data, tmp_path):
    file = shutil.copy(EXAMPLE, tmp_path / "mine.py")
    run = write_run(tmp_path / "run", file, data, FORMAL)
    main(["score", str(run)])
    file.unlink()
    with pytest.raises(
        SystemExit, match=r"tasks.door_clips.file: .*mine.py: no such file"
    ) as error:
        main(["score", str(run)])
    assert "\n" not in str(error.value)


def test_a_run_whose_file_holds_another_task_is_refused(data, tmp_path):
    run = write_run(tmp_path, EXAMPLE, data, FORMAL, name="windows")
    with pytest.raises(SystemExit, match="its task is named door_clips; give the file of windows"):
        main(["score", str(run)])


def test_a_name_in_a_row_runs_no_file(tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    evil = str(tmp_path / "evil.py")
    with samples.Writer(tmp_path / "samples_x.jsonl") as writer:
        writer.append(answer("1", "A", task=evil))
    with pytest.raises(SystemExit, match="^error: no task '.*evil.py'"):
        main(["score", str(tmp_path)])


TASK = """
from evr1.evals.tasks.base import *
def f(*_): return ()
SOURCE = Source(hub=("mine",), n=1)
TASK = Task(name={name}, source={source}, load=f, prompts={prompts}, rules={rules})
"""
FIELDS = {"name": "'mine'", "source": "SOURCE", "prompts": "{'a': f}", "rules": "{'evr1': f}"}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("TASK = (", r"running it fails with SyntaxError: .*line 1"),
        ("import sys; sys.exit('no')", "running it fails with SystemExit: no"),
        ("from evr1.evals.tasks.base import Task; TASK = Task('x')", ".*missing 4 required"),
        ("TSAK = 1", r"it has no TASK; define TASK = Task\(...\)"),
        ("TASK = 'mvbench'", "TASK is 'mvbench'; make it a Task"),
        ({"name": "'mvbench'"}, "its task is named mvbench, as a built-in one"),
        ({"name": "'my-task'"}, "its task is named 'my-task'; use letters, digits and _"),
        ({"name": "'über'"}, "its task is named 'über'; use letters"),
        ({"name": "3"}, "its task is named 3; use letters"),
        ({"source": "Source(hub=(), n=1)"}, "source of TASK is Source"),
        ({"source": "Source(hub=('x',), n='all')"}, "source of TASK is Source"),
        ({"prompts": "{}"}, r"prompts of TASK is \{\}; make it a dict of name: function"),
        ({"rules": "[f]"}, r"rules of TASK is \[<function f"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(code, message, tmp_path):
    path = tmp_path / "mine.py"
    text = code if isinstance(code, str) else TASK.format(**FIELDS | code)
    path.write_text(text, "utf-8")
    with pytest.raises(SystemExit, match=rf"^error: {path}: {message}") as error:
        main(["prepare", str(path), "--data", str(tmp_path)])
    assert "\n" not in str(error.value)


def test_an_id_that_stands_twice_is_refused_before_anything_is_answered(data):
    rows = data / "questions.jsonl"
    rows.write_text("\n".join([*ROWS, ROWS[0]]), "utf-8")
    with pytest.raises(ValueError, match="door_clips: ids: 1 stand more than once, the first is 1"):
        prepare.load_samples(find(str(EXAMPLE)), data)


def test_the_nearest_name_is_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.py").write_text("")
    with pytest.raises(ValueError, match=r"no such file; .*did you mean my_task.py\?"):
        find("my_taks.py")
    with pytest.raises(ValueError, match=r"no task 'my_task'; did you mean my_task.py\?"):
        find("my_task")


def test_media_that_parquet_holds_as_bytes_are_cached(tmp_path, monkeypatch):
    from pyarrow import Table, parquet

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clip = write_clip(tmp_path / "a.mp4", frames=4).read_bytes()
    stored = [{"bytes": clip, "path": "a.mp4"}]
    row = {"problem_id": "1", "problem": "Who?", "options": ["a man", "a dog"], "answer": "B"}
    row |= {"problem_type": "multiple choice", "videos": stored, "kind": "who"}
    (tmp_path / "data").mkdir()
    parquet.write_table(Table.from_pylist([row]), tmp_path / "data" / "rows.parquet")
    [sample] = data_rows.loader("rows.parquet", tags=("kind",))(tmp_path / "data")
    [medium] = sample.media
    assert (medium.kind, Path(medium.path).read_bytes()) == ("video", clip)
    assert Path(medium.path).is_relative_to(tmp_path / "cache")
    assert data_rows.ask(sample)[0] == Show(0)
    json.dumps(sample.doc)


def test_rows_of_other_tools_are_asked_and_scored(tmp_path):
    rows = [
        {
            "problem_id": 7,
            "problem": "What is shown?",
            "problem_type": "multiple choice",
            "options": ["A. A dog", "B. Bars"],
            "solution": "<answer>B</answer>",
            "path": "./a.mp4",
            "data_type": "video",
        },
        {
            "id": "x",
            "messages": [{"role": "user", "content": "<video>Which?"}],
            "videos": ["a.mp4"],
            "choices": {"A": "dog", "B": "bars"},
            "solution": "B",
        },
        {"qid": "t", "video": "a.mp4", "timestamp": [1, 4], "sentence": "Bars are shown."},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    samples = list(data_rows.loader("rows.jsonl")(tmp_path))
    assert [sample.id for sample in samples] == ["7", "x", "t"]
    assert [Path(m.path).name for sample in samples for m in sample.media] == ["a.mp4"] * 3
    right = ["<answer>B</answer>", "<answer>B</answer>", '<answer>{"time": [1, 4]}</answer>']
    for sample, response in zip(samples, right, strict=True):
        json.dumps(sample.doc)
        assert any(isinstance(part, Show) for part in data_rows.ask(sample))
        assert data_rows.by_reward(sample.doc, response).score == 1.0
        assert data_rows.by_reward(sample.doc, "<answer>A</answer>").score == 0.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problem_id": None}, "problem_id: got nothing"),
        ({"answer": "C"}, ".*no option letter"),
        ({"kind": None, "drop": "kind"}, "no field kind"),
        ({"system": "Be kind."}, "system: a benchmark's prompt has no system turn"),
        ({"options": ["a man", "<video>"]}, "options: one holds <video>"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused(fields, message, tmp_path):
    row = json.loads(ROWS[0]) | fields
    row.pop(row.pop("drop", ""), None)
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=f"rows.jsonl: row 1: {message}"):
        list(data_rows.loader("rows.jsonl", tags=("kind",))(tmp_path))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def load(folder): return [{}['id']]", "load: running it fails with KeyError: 'id'"),
        ("def load(folder): yield 3", "load gives 3; give Samples, whose ids are texts"),
        ("def load(folder): yield Sample(3, {}, ())", "load gives Sample.*ids are texts"),
        ("def ask(sample): return sample.doc['text']", "prompt a of sample 1: running it fails"),
        (
            "def ask(sample): return 'Who?'",
            "prompt a of sample 1 gives 'Who[?]'; give a tuple of texts",
        ),
        (
            "def ask(sample): return 'Who?', 1",
            r"prompt a of sample 1 gives \('Who[?]', 1\); give a tuple",
        ),
        ("def add(records): return records[9].score", "aggregate evr1: running it fails with Ind"),
    ],
)
def test_functions_that_fail_say_so_in_one_line(code, message, tmp_path):
    text = """
from evr1.evals.tasks.base import *
def load(folder): yield Sample("1", {}, ())
def ask(sample): return ("Who?",)
def add(records): return {"accuracy": 1.0}
CODE
TASK = Task("mine", Source(("mine",), 1), load, {"a": ask}, {"evr1": max}, aggregates={"evr1": add})
"""
    (tmp_path / "mine.py").write_text(text.replace("CODE", code))
    task = find(str(tmp_path / "mine.py"))

    def work():
        for sample in task.load(tmp_path):
            task.prompts["a"](sample)
            task.aggregates["evr1"]([])

    with pytest.raises(ValueError, match=rf"mine\.py: {message}") as error:
        work()
    assert "\n" not in str(error.value)

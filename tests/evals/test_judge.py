"""The command `judge`: what is asked, kept, gone on with, and what a scored run makes of it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from answers_rig import answer
from judge_rig import Endpoint
from miniatures import plans
from repo import DEMO_MODEL, ROOT

from evr1.data.processor import Processor
from evr1.evals import __main__ as command
from evr1.evals import judgements, samples
from evr1.evals.samples import Writer, path_of
from evr1.evals.tasks.base import Media, Sample

RIGHT, WRONG = '{"correct": true}', '{"correct": false, "reason": "another one"}'


def mmvu(id, *responses, video="v", truth="osmosis"):
    """An answered sample that asks for a word."""
    doc = {"question_type": "open-ended", "question": f"What is shown in {id}?", "answer": truth}
    tags = {"question_type": "open-ended", "discipline": "Science", "subject": "Biology"}
    sample = Sample(id, doc, (Media(f"videos/Biology/{video}.mp4"),), tags)
    return answer(id, *responses, task="mmvu", sample=sample)


def write(folder, answers):
    for each in answers:
        with Writer(path_of(folder, each.task)) as writer:
            writer.append(each)
    counts = {task: sum(a.task == task for a in answers) for task in {a.task for a in answers}}
    (folder / "manifest.json").write_text(json.dumps({"n_expected": counts}))
    return folder


ANSWERS = [
    mmvu("1", "Answer: diffusion of water", video="a"),  # right, says the judge
    mmvu("2", "Answer: osmosis", video="a"),  # right by rule
    mmvu("3", "Answer: a kite", video="b"),
    mmvu("4", "", video="c"),  # nothing to judge
    mmvu("5", video="c"),  # failed
]


def by_answer(prompt):
    return RIGHT if "diffusion" in prompt else WRONG


def judge(folder, server, *flags, model="j-1"):
    command.main(["judge", str(folder), f"--judge={server.url}", f"--model={model}", *flags])


def lines(folder):
    path = folder / judgements.NAME
    return [json.loads(line) for line in path.read_text().splitlines()]


def summary(folder):
    command.main(["score", str(folder)])
    with (folder / "summary.csv").open() as file:
        return {row["profile"]: row for row in csv.DictReader(file)}


def test_a_judge_rules_on_what_rules_leave_to_one(tmp_path, capsys):
    run = write(tmp_path, ANSWERS[:4])
    before = summary(run)["evr1"]
    assert (before["status"], before["n_unjudged"], before["value"]) == ("partial", "2", "")
    with Endpoint(by_answer) as server:
        judge(run, server, "--profiles=evr1")
        assert len(server.prompts) == 2
        judge(run, server, "--profiles=evr1")  # all is said
    assert len(server.prompts) == 2
    first, second = sorted(lines(run), key=lambda line: line["id"])
    assert first["key"] == judgements.key("j-1", server.prompts["kite" in server.prompts[0]])
    assert (first["score"], first["extracted"]) == (1.0, "diffusion of water")
    assert (second["score"], second["problem"], second["reply"]) == (0.0, "", WRONG)
    assert {(line["judge"], line["model"], line["profile"]) for line in lines(run)} == {
        ("j-1", "j-1", "evr1")
    }
    assert "mmvu, evr1@j-1: 2 of 2 responses judged" in capsys.readouterr().out
    rows = summary(run)
    assert "evr1" not in rows
    after = rows["evr1@j-1"]
    assert (after["status"], after["value"], after["n_unjudged"]) == ("subset", "0.5", "0")
    assert rows["official"]["n_unjudged"] == "4"  # nobody was asked for it
    results = json.loads(max(run.glob("results_*.json")).read_text())["results"]["mmvu"]
    assert results["accuracy,evr1@j-1"] == 0.5
    assert results["question_type/open-ended,evr1@j-1"] == 0.5
    assert "evr1@j-1" in capsys.readouterr().out


def test_a_limit_and_what_waits_leave_the_run_partial(tmp_path):
    run = write(tmp_path, ANSWERS)
    with Endpoint(by_answer) as server:
        judge(run, server, "--limit=0", "--profiles=evr1")
        assert lines(run) == server.prompts == []
        judge(run, server, "--limit=1", "--profiles=evr1")
        row = summary(run)["evr1@j-1"]
        assert (row["status"], row["n_unjudged"], row["n_error"]) == ("partial", "1", "1")
        judge(run, server, "--limit=1", "--profiles=evr1")
        assert len(server.prompts) == 2
    row = summary(run)["evr1@j-1"]
    assert (row["status"], row["n_unjudged"], row["n_scored"]) == ("partial", "0", "4")


def test_two_judges_stay_apart(tmp_path):
    run = write(tmp_path, ANSWERS[:4])
    with Endpoint(by_answer) as mild, Endpoint(lambda prompt: WRONG) as strict:
        judge(run, mild, "--profiles=evr1")
        judge(run, strict, "--profiles=evr1", model="org/j-2")
    rows = summary(run)
    assert [name for name in rows if name.startswith("evr1")] == ["evr1@j-1", "evr1@org/j-2"]
    assert (rows["evr1@j-1"]["value"], rows["evr1@org/j-2"]["value"]) == ("0.5", "0.25")


def test_equal_prompts_are_asked_once_and_each_response_is_judged(tmp_path):
    twice = mmvu("1", "Answer: a kite", "Answer: diffusion")
    run = write(tmp_path, [twice])
    with Endpoint(by_answer) as server:
        judge(run, server, "--profiles=evr1")
        assert len(server.prompts) == 2
        again = write(tmp_path / "again", [mmvu("1", "Answer: a kite", "<answer>a kite</answer>")])
        judge(again, server, "--profiles=evr1")
    assert len(server.prompts) == 3
    assert summary(run)["evr1@j-1"]["value"] == "0.5"
    assert summary(again)["evr1@j-1"]["n_scored"] == "1"


def test_failures_are_counted_and_asked_again(tmp_path, capsys):
    run = write(tmp_path, ANSWERS[:4])
    say = {"diffusion": ("{", "length"), "kite": "well ..."}
    with Endpoint(lambda prompt: next(v for k, v in say.items() if k in prompt)) as server:
        with pytest.raises(SystemExit, match="2 of 2 prompts have no reply that can be read"):
            judge(run, server, "--profiles=evr1")
        printed = capsys.readouterr().out
        assert "1 x the reply was cut off; raise --max-tokens" in printed
        assert "1 x unreadable: the reply is no verdict" in printed
        assert [bool(line["problem"]) for line in lines(run)] == [True]
        assert summary(run)["evr1"]["n_unjudged"] == "2"
        say |= {"diffusion": "<think>hm</think>\n" + RIGHT, "kite": WRONG}
        judge(run, server, "--profiles=evr1")
    assert summary(run)["evr1@j-1"]["value"] == "0.5"


def test_a_judge_that_is_gone_is_left(tmp_path):
    run = write(tmp_path, [mmvu(str(i), f"Answer: kite {i}") for i in range(200)])
    gone = pytest.raises(SystemExit, match="the judge failed 32 times in a row .status 403")
    with Endpoint(lambda prompt: 403) as server, gone:
        judge(run, server, "--profiles=evr1")
    assert len(server.prompts) < 200
    assert lines(run) == []


def test_a_killed_command_goes_on(tmp_path):
    run = write(tmp_path, [mmvu(str(i), f"Answer: kite {i}") for i in range(40)])

    def slowly(prompt):
        time.sleep(0.05)
        return WRONG

    with Endpoint(slowly) as server:
        flags = ["judge", str(run), f"--judge={server.url}", "--model=j-1", "--profiles=evr1"]
        arguments = [sys.executable, "-m", "evr1.evals", *flags, "--concurrency=2"]
        process = subprocess.Popen(arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        path = run / judgements.NAME
        end = time.monotonic() + 60
        while time.monotonic() < end and (not path.exists() or path.read_bytes().count(b"\n") < 5):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = path.read_bytes()
        done = kept.count(b"\n")
        assert 5 <= done < 40
        path.write_bytes(kept + b'{"key": "torn')
        server.prompts.clear()
        judge(run, server, "--profiles=evr1", "--concurrency=8")
    assert len(server.prompts) == 40 - done
    assert len({line["key"] for line in lines(run)}) == len(lines(run)) == 40
    assert summary(run)["evr1@j-1"]["status"] == "subset"


def test_an_older_wording_does_not_count(tmp_path, monkeypatch):
    run = write(tmp_path, ANSWERS[:4])
    with Endpoint(by_answer) as server:
        judge(run, server, "--profiles=evr1")
        monkeypatch.setattr("evr1.rewards.judging.judge_prompt._TASK", "You grade anew.")
        assert summary(run)["evr1"]["n_unjudged"] == "2"
        judge(run, server, "--profiles=evr1")
    assert len(server.prompts) == 4
    assert summary(run)["evr1@j-1"]["value"] == "0.5"


def test_runs_are_compared_under_a_judge(tmp_path, capsys):
    a = write(tmp_path / "a", ANSWERS[:4])
    b = write(tmp_path / "b", [*ANSWERS[:2], mmvu("3", "Answer: diffusion", video="b"), ANSWERS[3]])
    with Endpoint(by_answer) as server:
        judge(a, server, "--profiles=evr1")
        with pytest.raises(SystemExit, match="j-1 has judged no answer .* for evr1"):
            command.main(["compare", str(a), str(b), "--profile=evr1@j-1"])
        judge(b, server, "--profiles=evr1")
    command.main(["compare", str(a), str(b), "--profile=evr1@j-1"])
    printed = capsys.readouterr().out
    assert "evr1@j-1" in printed
    assert "+25.0" in printed
    assert "4/4" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--judge=nowhere"], "--judge nowhere is neither an address .* nor a directory"),
        (["--judge=http://localhost/v1"], "--model is not given"),
        (["--judge=http://localhost/v1", "--model=a b"], "the judge's name 'a b' holds a blank"),
        (["--judge=http://localhost/v1", "--model=a@b"], "the judge's name 'a@b' holds a blank"),
        (["--judge=http://u:p@localhost/v1", "--model=a"], "the judge's URL holds a user"),
        (["--judge=http://localhost/v1", "--model=a", "--limit=-1"], "--limit -1; give 0 or more"),
        (["--judge=http://localhost/v1", "--model=a", "--max-tokens=0"], "--max-tokens 0; give 1"),
        (["--judge=http://localhost/v1", "--model=a", "--tasks=mvu"], "no task 'mvu'; it has mmvu"),
        (
            ["--judge=http://localhost/v1", "--model=a", "--profiles=evr2"],
            "no profile 'evr2' asks a judge in these tasks; easyvideor1_judge, evr1, official do",
        ),
    ],
)
def test_bad_arguments_end_in_one_line(tmp_path, flags, message):
    run = write(tmp_path, ANSWERS[:1])
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        command.main(["judge", str(run), *flags])


def test_another_model_may_not_take_a_name(tmp_path):
    run = write(tmp_path, ANSWERS[:1])
    with Endpoint(by_answer) as server:
        judge(run, server, "--profiles=evr1")
        line = lines(run)[0]
        with (run / judgements.NAME).open("a") as file:
            file.write(json.dumps(line | {"model": "other"}) + "\n")
        with pytest.raises(SystemExit, match="j-1 is other, and j-1 above"):
            command.main(["score", str(run)])
        (run / judgements.NAME).write_text(json.dumps(line | {"model": "other"}) + "\n")
        with pytest.raises(SystemExit, match="has judgements of another j-1 .*name by --model"):
            judge(run, server, "--profiles=evr1")


def test_a_line_that_is_none_ends_in_one_line(tmp_path):
    run = write(tmp_path, ANSWERS[:1])
    (run / judgements.NAME).write_text('{"key": "a"}\n')
    with pytest.raises(SystemExit, match="judgements.jsonl:1: no field judge"):
        command.main(["score", str(run)])
    (run / judgements.NAME).write_text("[1]\n{}\n")
    with pytest.raises(SystemExit, match="judgements.jsonl:1: .* a judgement is a JSON object"):
        samples_of(run)


def samples_of(run):
    try:
        return samples.read_run(run)
    except ValueError as error:
        sys.exit(f"error: {error}")


@pytest.fixture
def model(tmp_path):
    """The demo's model, which ends where it closes a tag: of words it could talk for ever."""
    folder = tmp_path / "demo"
    shutil.copytree(DEMO_MODEL, folder)
    path = folder / "generation_config.json"
    config, ids = json.loads(path.read_text()), Processor.from_hf(str(folder)).tokenize("</answer>")
    path.write_text(json.dumps(config | {"eos_token_id": [*config["eos_token_id"], ids[-1]]}))
    return folder


def test_a_model_of_a_directory_judges(tmp_path, capsys, model):
    """It was trained to count digits, and never says Correct."""
    doc = plans.answer_row("chip")
    sample = Sample("1", doc, (Media(doc["video"]),), {"level": "infer", "demo": "chip"})
    said = answer("1", "Final Answer: 20 and 5", task="video_reason_bench", sample=sample)
    run = write(tmp_path / "run", [said])
    flags = [f"--judge={model}", "--dtype=float32", "--max-tokens=16", "--concurrency=1"]
    flags += ["--profiles=official"]
    with pytest.raises(SystemExit, match="1 of 1 prompts have no reply that can be read"):
        command.main(["judge", str(run), *flags, "--max-prompt-tokens=64"])
    assert "tokens is over max_prompt_tokens=64; raise it" in capsys.readouterr().out
    command.main(["judge", str(run), *flags, "--max-prompt-tokens=768"])
    (line,) = lines(run)
    assert line["reply"].startswith("<answer>")
    assert (line["judge"], line["score"]) == ("demo", 0.0)
    assert line["model"].startswith("model ")
    assert summary(run)["official@demo"]["status"] == "subset"
    command.main(["judge", str(run), *flags])
    assert len(lines(run)) == 1


def test_an_endpoint_needs_no_jax(tmp_path):
    run = write(tmp_path, ANSWERS[:1])
    script = "import sys; from evr1.evals.__main__ import main; main(sys.argv[1:]); "
    script += "assert 'jax' not in sys.modules"
    with Endpoint(by_answer) as server:
        flags = ["judge", str(run), f"--judge={server.url}", "--model=j-1", "--profiles=evr1"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", script, *flags], check=True, env=environment)
    assert lines(run)

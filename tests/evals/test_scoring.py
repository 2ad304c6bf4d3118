"""Answers to scores: profiles, counts, partial runs, repeats, and the command `score`."""

import csv
import dataclasses
import io
import json
import random
import sys
from pathlib import Path

import pytest
from answers_rig import answer, write_run

from evr1.evals import __main__ as command
from evr1.evals import scoring
from evr1.evals.tasks import TASKS
from evr1.evals.tasks.base import JUDGE, RANDOM, Verdict
from evr1.rewards import files

TASK = TASKS["video_mme"]
# Three videos: right, wrong, unparsed by all, cut off and right, failed.
ANSWERS = [
    answer("1", "A", video="x"),
    answer("2", "B", video="x", duration="long"),
    answer("3", "well", video="y"),
    answer("4", "The answer is A", video="y", cut=True),
    answer("5", video="z"),
]


def score(answers, n_expected, profile="evr1", task=TASK, **more):
    return scoring.score(scoring.judge_all(task, answers)[profile], n_expected, **more)


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


def test_counts_and_scores_by_hand():
    result = score(ANSWERS, 5)
    scored = result.scored
    assert values(result) == {
        "accuracy": 0.5,
        "duration/long": 0.0,
        "duration/short": pytest.approx(2 / 3),
        "domain/Film & Television, Arts": 0.5,
    }
    assert (scored.n_scored, scored.n_unparsed, scored.n_truncated, scored.n_error) == (4, 1, 1, 1)
    assert result.is_partial
    assert not score(ANSWERS[:4], 4).is_partial
    assert score(ANSWERS[:4], 3).is_partial  # more than there are


def test_profiles_see_the_same_answers_and_have_denominators_of_their_own():
    found = scoring.judge_all(TASK, ANSWERS)
    assert list(found) == list(TASK.rules)
    assert {name for name, each in found.items() if each.n_scored < 4} == {"qwen3vl"}
    assert found["qwen3vl"].n_unjudged == 2  # what is no bare letter
    assert found["evr1"].values["accuracy"] == 2 / 4
    # The authors leave out what they cannot read; the T of "The" is no letter of theirs.
    assert found["official_parse_answer"].values["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_order_and_parts_change_nothing(seed, tmp_path):
    shuffled = random.Random(seed).sample(ANSWERS, len(ANSWERS))
    assert score(shuffled, 5) == score(ANSWERS, 5)
    for part in range(2):
        run = write_run(tmp_path, shuffled[part::2], n_expected=5, part=part, parts=2)
    whole = write_run(tmp_path / "whole", ANSWERS, n_expected=5)
    for folder in (run, whole):
        command.main(["score", str(folder)])
    tables = [json.loads(next(f.glob("results_*.json")).read_text()) for f in (run, whole)]
    for table in tables:
        del table["date"]
    assert tables[0] == tables[1]


def test_repeats_are_averaged():
    answers = [answer("1", "A", "A"), answer("2", "A", "B"), answer("3", "B", "")]
    result = score(answers, 3)
    assert values(result)["accuracy"] == pytest.approx(3 / 6)
    assert (result.scored.n_scored, result.scored.n_unparsed) == (3, 1)
    assert result.scored.scores() == {"1": 1.0, "2": 0.5, "3": 0.0}
    draws = result.metrics["accuracy"]
    # Of 1, 1/2 and 0: the mean of three draws has a variance of (1/6) / 3.
    assert draws.stderr == pytest.approx((1 / 18) ** 0.5, rel=0.06)
    assert (draws.low, draws.high) == (0.0, 1.0)


def test_what_waits_for_a_judge_or_is_drawn_at_random():
    rules = {
        "judge": lambda doc, r: Verdict(JUDGE, None) if r == "?" else Verdict(r, 1.0),
        "random": lambda doc, r: Verdict(RANDOM, None) if r == "?" else Verdict(r, 1.0),
        "fallback": lambda doc, r: Verdict(JUDGE, 0.0) if r == "?" else Verdict(r, 1.0),
    }
    task = dataclasses.replace(TASK, rules=rules, aggregates={})
    found = scoring.judge_all(task, [answer("1", "A"), answer("2", "?")])
    counts = {k: (v.n_scored, v.n_unjudged, v.n_unparsed) for k, v in found.items()}
    assert counts == {"judge": (1, 1, 0), "random": (2, 0, 1), "fallback": (2, 0, 0)}
    assert [each.values["accuracy"] for each in found.values()] == [1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("trips", "says"),
    [
        (lambda: int("no letter"), "invalid literal for int() with base 10: 'no letter'"),
        (lambda: {}["gold"], "KeyError('gold'); its row is no official one, or the rule is wrong"),
        (lambda: 1 / 0, "ZeroDivisionError('division by zero'); its row is no official one, or "),
        (lambda: True, "the rule gives True; return Verdict(text, score)"),
        (lambda: Verdict("A", "right"), "the rule gives Verdict(extracted='A', score='right', d"),
    ],
)
def test_a_sample_at_which_a_rule_stops_is_counted(trips, says):
    def stop(doc, response):
        return trips()

    task = dataclasses.replace(TASK, rules={"evr1": TASK.rules["evr1"], "kit": stop})
    found = scoring.judge_all(task, ANSWERS[:2])
    assert found["evr1"].n_error == 0
    assert (found["kit"].n_error, found["kit"].n_scored, found["kit"].values) == (2, 0, {})
    assert found["kit"].problems[0].startswith(f"video_mme: kit cannot score 1: {says}")
    assert scoring.score(found["kit"], 2).metrics == {}


def test_reasoning_that_the_prompt_opened_and_nobody_closed_is_no_answer_to_ours():
    """As in training. A kit's rule sees what was generated, and so it reads the reasoning."""
    texts = ["The answer is A. But is it?", "The answer is B. No.</think>A", "The answer is A"]
    listed = [
        dataclasses.replace(answer(str(i), text), think_open=True) for i, text in enumerate(texts)
    ]
    found = scoring.judge_all(TASK, listed)
    assert found["evr1"].scores() == {"0": 0.0, "1": 1.0, "2": 0.0}
    assert found["evr1"].n_unparsed == 2
    assert found["lmms_eval"].scores()["2"] == 1.0


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([answer("1", "A"), answer("1", "A")], "1 is answered twice"),
        ([answer("1", "A"), answer("2", "A", "B")], "samples have 1 and 2 responses"),
        ([answer("1", "A"), answer("2", "A", preset="train")], "preset smoke and .*preset train"),
        ([dataclasses.replace(answer("1", "A"), prompt="qwen3vl"), answer("2")], "prompt official"),
    ],
)
def test_answers_that_do_not_go_together_are_refused(answers, message):
    with pytest.raises(ValueError, match=f"video_mme: .*{message}"):
        scoring.judge_all(TASK, answers)


def test_a_complete_run_is_as_its_manifest_says():
    assert scoring.expected(TASK, {}) == 2700
    assert scoring.expected(TASK, {"n_expected": {"video_mme": 16}}) == 16
    assert scoring.expected(TASK, {"n_expected": {"lvbench": 16}}) == 2700
    for wrong in ("16", -1, True, None):
        with pytest.raises(ValueError, match=f"n_expected of video_mme is {wrong!r}"):
            scoring.expected(TASK, {"n_expected": {"video_mme": wrong}})


# The command.


def results_of(folder):
    return json.loads(next(Path(folder).glob("results_*.json")).read_text("utf-8"))


def summary_of(folder):
    with (Path(folder) / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def test_score_writes_and_prints_a_complete_run(tmp_path, capsys):
    run = write_run(tmp_path, ANSWERS[:4], n_expected=4, model="org/m")
    command.main(["score", str(run)])
    printed = capsys.readouterr().out
    assert "50.0" in printed
    assert "partial" not in printed
    assert "vlmevalkit" not in printed
    table = results_of(run)
    entry = table["results"]["video_mme"]
    assert (entry["accuracy,evr1"], entry["alias"]) == (0.5, "video_mme@4")
    assert entry["domain/Film & Television; Arts,lmms_eval"] == 0.5
    assert entry["accuracy_stderr,evr1"] == "N/A"  # one of two in each video: no spread
    assert table["n-samples"] == {"video_mme": {"original": 4, "effective": 4}}
    assert table["counts"]["video_mme"]["evr1"]["n_truncated"] == 1
    assert table["higher_is_better"]["video_mme"]["duration/short"] is True
    rows = summary_of(run)
    assert [row["profile"] for row in rows] == list(TASK.rules)
    assert (rows[0]["value"], rows[0]["status"], rows[0]["preset"]) == ("0.5", "subset", "smoke")
    command.main(["score", str(run), "--all-profiles"])
    printed = capsys.readouterr().out
    assert "vlmevalkit" in printed
    assert "spread" in printed


def test_parts_that_end_together_write_their_scores_one_over_the_other(tmp_path):
    run = write_run(tmp_path, ANSWERS[:4], n_expected=4)
    path = run / "summary.csv"
    with files.writing(str(path)) as other:
        other.write("of another part")
        command.main(["score", str(run)])
        assert path.read_text().startswith("task,")
    assert path.read_text() == "of another part"
    assert not list(run.glob("*.part"))


def test_a_partial_run_has_no_headline(tmp_path, capsys):
    run = write_run(tmp_path, ANSWERS, n_expected=7)
    command.main(["score", str(run)])
    printed = capsys.readouterr().out
    assert "50.0" not in printed
    line = "video_mme: partial, 4 of 7 scored: 1 failed, 2 are not there (undecodable)"
    assert line in " ".join(printed.split())
    entry = results_of(run)["results"]["video_mme"]
    assert "accuracy,evr1" not in entry
    assert entry["partial_accuracy,evr1"] == 0.5
    assert entry["alias"] == "video_mme@7 (partial: 4 of 7)"
    row = summary_of(run)[0]
    assert (row["value"], row["status"], row["n_scored"]) == ("", "partial", "4")


def test_a_run_without_any_answer_is_scored(tmp_path, capsys):
    run = write_run(tmp_path, [answer("1")], n_expected=1)
    command.main(["score", str(run)])
    assert "1 failed (undecodable)" in capsys.readouterr().out
    assert results_of(run)["n-samples"]["video_mme"]["effective"] == 0


def test_what_an_output_cannot_encode_is_no_end(tmp_path, monkeypatch):
    run = write_run(tmp_path, [*ANSWERS[:4], answer("答え")], n_expected=5)
    write_run(
        tmp_path, [ANSWERS[0], answer("答", "A"), answer("答", "A")], n_expected=5, part=1, parts=2
    )
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding="latin-1"))
    command.main(["score", str(run)])
    sys.stdout.flush()
    assert "answered more than once, and the same: 1, ?" in printed.getvalue().decode("latin-1")


def test_what_is_odd_about_files_is_named(tmp_path, capsys):
    run = write_run(tmp_path, [*ANSWERS[:4], ANSWERS[0]], n_expected=4)
    with (run / "samples_video_mme.jsonl").open("a") as file:
        file.write('{"id": "6"')
    command.main(["score", str(run)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "a torn last line was left out" in printed
    assert "video_mme: answered more than once, and the same: 1" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score"], "score what"),
        (["score", "--cases", "a"], "score what"),
        (["score", "nowhere"], r"nowhere holds no samples_"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, message):
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        command.main(arguments)


def test_an_unknown_task_ends_in_one_line(tmp_path):
    run = write_run(tmp_path, [answer("1", "A", task="video_mmm")])
    with pytest.raises(SystemExit, match="^error: no task 'video_mmm'; did you mean "):
        command.main(["score", str(run)])


def test_a_doc_that_is_no_row_is_named_and_the_others_are_scored(tmp_path, capsys):
    made = answer("1", "A")
    bare = dataclasses.replace(made, sample=dataclasses.replace(made.sample, doc={"q": 1}))
    command.main(["score", str(write_run(tmp_path, [bare, answer("2", "A")], n_expected=2))])
    printed = " ".join(capsys.readouterr().out.split())
    assert "video_mme: evr1 cannot score 1: KeyError('options'); its row is no official" in printed
    assert "video_mme: partial, 1 of 2 scored: 1 failed" in printed


def test_the_harness_reads_the_results(tmp_path):
    """Through its own finder of files and its own table."""
    utils = pytest.importorskip("lm_eval.utils")
    schema = pytest.importorskip("lm_eval.result_schema")
    pytest.importorskip("pytablewriter")
    run = write_run(tmp_path, ANSWERS[:4], n_expected=4)
    command.main(["score", str(run)])
    paths = [str(path) for path in run.iterdir()]
    (path,) = utils.get_results_filenames(paths)
    assert utils.get_file_datetime(path).startswith("20")
    assert len(utils.get_sample_results_filenames(paths)) == 1
    table = json.loads(Path(path).read_text("utf-8"))
    more = table.keys() - schema.EvalResults.__annotations__.keys()
    assert more == {"intervals", "counts", "evr1_version"}
    lines = utils.make_table(table).splitlines()
    row = next(line for line in lines if "|evr1" in line and "|accuracy" in line)
    assert [cell.strip() for cell in row.split("|")][7] == "0.5000"
    assert utils.make_table(table, "groups").splitlines()[0].startswith("|Groups")
    partial = write_run(tmp_path / "partial", ANSWERS, n_expected=5)
    command.main(["score", str(partial)])
    text = utils.make_table(results_of(partial))
    assert "|partial_accuracy" in text
    assert "|video_mme (partial: 4 of 5)|" in text

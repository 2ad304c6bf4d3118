"""Logs of scored runs in inspect-ai's own reader, and `score` without inspect-ai."""

import json
import math

import pytest
from answers_rig import answer, write_run

from evr1.evals import inspect_log
from evr1.evals.__main__ import main
from evr1.evals.examples import EXAMPLES
from evr1.evals.show import gold
from evr1.evals.tasks import TASKS
from evr1.evals.tasks.base import JUDGE, Verdict

ANSWERS = [
    answer("1", "A", "well", video="x"),
    answer("2", "B", "A", video="x", duration="long"),
    answer("3", "The answer is A", "A", video="y", cut=True),
]


@pytest.fixture
def log():
    """inspect-ai's module of logs; the test is skipped where it is not installed."""
    return pytest.importorskip("inspect_ai.log")


def score(folder, answers, n_expected, **manifest):
    """Scores a run, and returns its log as inspect-ai finds and reads it, and its results."""
    log = pytest.importorskip("inspect_ai.log")
    run = write_run(folder, answers, n_expected=n_expected, **manifest)
    main(["score", str(run)])
    (info,) = log.list_eval_logs(str(run / "logs"))
    (path,) = run.glob("results_*.json")
    return log.read_eval_log(info), json.loads(path.read_text("utf-8"))


def test_metrics_are_those_of_the_results(log, tmp_path):
    found, table = score(tmp_path, ANSWERS, 3, model="org/m", seed=5)
    assert (found.status, found.eval.task, found.eval.model) == ("success", "video_mme", "org/m")
    assert found.eval.task_args == {"prompt": "official", "preset": "smoke"}
    assert (found.results.total_samples, found.results.completed_samples) == (6, 6)
    ours = {k: v for k, v in table["results"]["video_mme"].items() if "," in k}
    theirs = {
        f"{name},{each.name}": metric.value
        for each in found.results.scores
        for name, metric in each.metrics.items()
        if name != "stderr"
    }
    assert theirs == {name: value for name, value in ours.items() if "_stderr," not in name}
    for each in found.results.scores:
        error = each.metrics["stderr"].value if "stderr" in each.metrics else "N/A"
        assert error == ours[f"{next(iter(each.metrics))}_stderr,{each.name}"]
        assert each.scored_samples == table["counts"]["video_mme"][each.name]["n_scored"]
    first = found.results.scores[0].metrics["accuracy"]
    interval = table["intervals"]["video_mme"]["accuracy,evr1"]
    assert [first.metadata["low"], first.metadata["high"]] == interval
    headline = log.headline_metric(found)
    assert (headline.score.name, headline.name) == ("evr1", "accuracy")


def test_a_response_is_a_sample(log, tmp_path):
    found, _ = score(tmp_path, ANSWERS, 3)
    by_place = {(each.id, each.epoch): each for each in found.samples}
    assert list(by_place) == [(id, epoch) for epoch in (1, 2) for id in "123"]
    one, cut = by_place["1", 2], by_place["3", 1]
    assert one.input.startswith("<video data/x.mp4>\n")
    assert "A. red\nB. blue" in one.input
    assert (one.target, one.output.completion, cut.output.stop_reason) == (
        "A",
        "well",
        "max_tokens",
    )
    assert [message.role for message in one.messages] == ["user", "assistant"]
    assert list(one.scores) == [name for name in TASKS["video_mme"].rules if name != "qwen3vl"]
    assert (one.scores["evr1"].value, one.scores["evr1"].explanation) == (0, "nothing was read")
    assert (cut.scores["evr1"].value, cut.scores["evr1"].answer) == (1, "A")
    left_out = one.scores["official_parse_answer"]  # leaves the authors' denominator
    assert math.isnan(left_out.value)
    assert left_out.explanation == "nothing was read; the rule gives no score"
    assert cut.metadata["status"] == "truncated"
    assert cut.metadata["tags"] == {"duration": "short", "domain": "Film & Television, Arts"}
    assert cut.metadata["prompt"] == {"profile": "official", "sha256": "0" * 64}
    assert cut.metadata["frames"][0]["times"] == [0.0, 1.5]


def test_a_partial_run_is_no_success(log, tmp_path):
    failed = answer("4", video="z", detail="no video stream")
    found, _ = score(tmp_path, [answer("1", "A"), failed], 3)
    assert (found.status, found.error.message) == ("error", "partial: 1 of 3 samples are scored")
    assert next(iter(found.results.scores[0].metrics)) == "partial_accuracy"
    sample = next(each for each in found.samples if each.id == "4")
    assert sample.error.message == "undecodable: no video stream"
    assert not sample.scores


def test_what_differs_is_explained(log):
    task = TASKS["video_reason_bench"]
    name, reason = next(iter(task.differs.items()))
    made = inspect_log.to_score(task, Verdict(["a", 1], 0.5, name))
    assert (made.value, made.answer) == (0.5, '["a", 1]')
    assert made.explanation == f'read: ["a", 1]; differs from the kit: {reason}'
    assert inspect_log.to_score(task, Verdict(JUDGE, 0.0)).answer == JUDGE


def test_equal_answers_give_equal_names(log, tmp_path):
    specs = [score(tmp_path / str(n), ANSWERS[::step], 3)[0].eval for n, step in ((0, 1), (1, -1))]
    assert specs[0].eval_id == specs[1].eval_id


def test_without_it_a_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inspect_log, "is_available", lambda: False)
    run = write_run(tmp_path, ANSWERS, n_expected=3)
    main(["score", str(run)])
    assert "no logs for inspect view: pip install -e '" in capsys.readouterr().out
    main(["score", str(run), "--no-logs"])
    assert "inspect" not in capsys.readouterr().out
    assert not (run / "logs").exists()


@pytest.mark.parametrize("name", EXAMPLES)
def test_rows_show_what_is_right(name):
    assert gold(EXAMPLES[name].doc)

"""report.html: one safe static file with the run's numbers in it."""

import json

import numpy as np
import pytest
from pages import NASTY, check_nothing_from_outside, check_policy
from report_rig import CONFIG, build, make_run, metric, rollout

from evr1 import report
from evr1.report import numbers
from evr1.report.html import embed_json
from evr1.report.spread import spread


def test_numbers_before_and_after(tmp_path):
    page = build(make_run(tmp_path / "my run"))
    assert "my run" in page.visible
    assert "25.0 → 75.0 %" in page.visible
    # standard error of 40 rows at 0.75: sqrt(0.75 * 0.25 / 40) = 6.8 points
    assert "+50.0 points; 40 rows, standard error up to 6.8 points" in page.visible
    assert "ocr 8 50.0 % 25.0 % -25.0" in page.visible
    assert "all 40 25.0 % 75.0 % +50.0" in page.visible
    assert "2 of 4 steps" in page.visible
    assert "tiny" in page.visible
    assert "commit 0123456789+changes" in page.visible


def test_curves_merge_the_lines_of_a_step(tmp_path):
    data = build(make_run(tmp_path)).data
    assert data["steps"] == [0, 1, 2]
    assert data["metrics"]["eval/accuracy"] == [0.25, None, 0.75]
    assert data["metrics"]["reward/overall"] == [None, 0.2, None]
    assert data["metrics"]["time/step_s"] == [None, 4.5, 3.5 + 6.5]
    assert not [c for c in data["charts"] if c["title"].startswith("Benchmarks")]
    stacked = [c for c in data["charts"] if c.get("stacked")][0]
    assert [label for _, label in stacked["series"]] == ["eval", "rollout", "update"]


def test_benchmarks_have_a_chart_where_there_are_some(tmp_path):
    """Of their headlines; one that is partial is another number."""
    names = ("lvbench@64", "lvbench@64/official", "lvbench@64/failed_share")
    names += ("partial_mvbench@8", "mvbench@8/failed_share")
    asked = {"step": 0} | {f"eval/{name}": 0.5 for name in names}
    (chart,) = [
        c
        for c in build(make_run(tmp_path, metrics=[asked])).data["charts"]
        if c["title"].startswith("Benchmarks")
    ]
    assert chart["series"] == [["eval/lvbench@64", "lvbench@64"]]


def test_nothing_from_outside_and_no_script_but_ours(tmp_path):
    run = make_run(
        tmp_path / NASTY.replace("/", "_")[:60],
        [rollout(completion=NASTY, prompt=NASTY, problem_id=NASTY, extracted=NASTY, answer=NASTY)],
        config=CONFIG | {"model": NASTY},
    )
    page = build(run)
    check_nothing_from_outside(page)
    assert page.data["groups"][0]["completions"][0][0] == NASTY
    assert page.data["prompts"] == [NASTY]


def test_the_policy_names_the_very_script_and_style(tmp_path):
    check_policy(build(make_run(tmp_path)))


@pytest.mark.parametrize("value", [NASTY, {"a": [NASTY, 1.5, None, True]}, "é \ud83d\ude00"])
def test_embedded_json_reads_back(value):
    text = str(embed_json(value))
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_completions_of_a_prompt_stand_together(tmp_path):
    records = [
        rollout(1, "p1", completion="a"),
        rollout(1, "p1", completion="b", finished=False),
        rollout(1, "p2", prompt="other", answer={"box": [1, 2]}),
        rollout(2, "p1", split="eval", advantage=None),
    ]
    data = build(make_run(tmp_path, records)).data
    assert [(g["step"], g["split"], g["id"]) for g in data["groups"]] == [
        (1, "train", "p1"),
        (1, "train", "p2"),
        (2, "eval", "p1"),
    ]
    assert [c[0] for c in data["groups"][0]["completions"]] == ["a", "b"]
    assert data["groups"][0]["completions"][0][4] == 0.1235
    assert data["groups"][2]["completions"][0][4] is None
    assert data["groups"][1]["answer"] == '{"box": [1, 2]}'
    assert data["prompts"] == ["<video> Read the digits.", "other"]
    assert [g["prompt"] for g in data["groups"]] == [0, 1, 0]
    assert data["groups"][0]["media"] == ["a.mp4"]


def test_a_long_run_is_thinned_out_evenly(tmp_path):
    records = [
        rollout(step, f"p{step}-{k}", completion="word " * 400)
        for step in range(1, 101)
        for k in range(10)
    ]
    run = make_run(tmp_path, records)
    page = build(run, max_bytes=400_000)
    steps = [g["step"] for g in page.data["groups"]]
    assert 50 < len(steps) < 150
    assert steps == sorted(steps)
    quarters = [sum(25 * q < s <= 25 * (q + 1) for s in steps) for q in range(4)]
    assert max(quarters) - min(quarters) <= 3
    assert (run / "report.html").stat().st_size < 400_000
    assert f"{len(steps)} of 1,000 groups" in page.visible


def test_any_first_part_is_spread_evenly():
    order = spread(1000)
    assert sorted(order) == list(range(1000))
    for count in (10, 37, 200):
        gaps = np.diff(sorted([0, *order[:count], 1000]))
        assert gaps.max() <= 3 * 1000 / count
    assert spread(8) == [0, 5, 2, 7, 4, 1, 6, 3]


def test_several_sources_stand_with_their_weights(tmp_path):
    data = {"train": "", "sources": [["a.jsonl", 0.6], ["b.jsonl", 0.4]]}
    shown = numbers.settings(CONFIG | {"data": data})
    assert ("training sources, weights", "a.jsonl 0.6, b.jsonl 0.4") in shown
    labels = [label for label, _ in numbers.settings(CONFIG | {"data": data | {"sources": []}})]
    assert not any("training" in label for label in labels)


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    page = build(tmp_path)
    assert "recorded no rollouts" in page.visible
    assert page.data["steps"] == []


def test_half_a_last_line_is_left_and_a_bad_one_named(tmp_path):
    run = make_run(tmp_path, [rollout()])
    with (run / "rollouts.jsonl").open("a") as file:
        file.write('{"step": 2, "comp')
    assert len(build(run).data["groups"]) == 1
    (run / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not a JSON object with a step"):
        report.build(run)
    (run / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"metrics\.jsonl does not exist; give the workdir"):
        report.build(run)


def test_many_steps_are_thinned_but_evaluations_stay(tmp_path):
    metrics = [metric(s, reward__overall=0.5) for s in range(5001)]
    metrics += [metric(s, eval__accuracy=0.1) for s in (0, 1234, 5000)]
    steps, values = report.read_metrics(make_run(tmp_path, metrics=metrics) / "metrics.jsonl")
    assert len(steps) < 2500
    assert steps[-1] == 5000
    assert [s for s, v in zip(steps, values["eval/accuracy"], strict=True) if v is not None] == [
        0,
        1234,
        5000,
    ]


def test_the_text_table_has_a_line_over_all_and_one_a_kind(tmp_path):
    run = make_run(tmp_path)
    assert report.accuracy_table(report.read_metrics(run / "metrics.jsonl")).splitlines() == [
        "held-out accuracy",
        "  all, step 0 to 2               25.0% →  75.0%   +50.0 points",
        "  ocr                            50.0% →  25.0%   -25.0 points",
    ]
    shown = {"eval/accuracy": [0.25, 0.5], "eval/rows": [4, 4], "eval/failed_rows": [1, 1]}
    few = report.Metrics([0, 2], shown | {"eval/accuracy_answered": [0.333, 0.6667]})
    note = "1 of 4 failed and count as wrong, 0.667 without them"
    assert report.accuracy_table(few).splitlines()[2:] == [f"  {note}"]
    assert note in numbers.tiles(few)[0]["note"]
    name = "eval/lvbench@64"
    parts = {name: [0.25, 0.5], f"{name}/official": [0, 0.5], f"{name}/failed_share": [0, 0]}
    assert report.accuracy_table(report.Metrics([0, 4], parts)).splitlines() == [
        "no held-out rows",
        "benchmarks",
        "  lvbench@64                     25.0% →  50.0%   +25.0 points",
    ]
    of_a_kind = report.Metrics([0, 4, 9], {"eval/accuracy/modality/video": [0.5, None, 0.75]})
    assert report.accuracy_table(of_a_kind).splitlines()[1:] == [
        "  modality/video                 50.0% →  75.0%   +25.0 points"
    ]
    assert report.accuracy_table(report.Metrics([1], {"loss/x": [1.0]})) == "no held-out rows"

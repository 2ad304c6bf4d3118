"""Spans, boxes and tracks of truth and answer, in seconds and in fractions of the picture."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from pages import NASTY, check_nothing_from_outside
from repo import ROOT
from report_rig import CONFIG, build, make_run, metric, rollout

from evr1.data.shown import Frame, Shown
from evr1.report import places
from evr1.report.frames import Pictures

HALF = [0.25, 0.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        ("temporal grounding", '{"time": [1, 2.5]}', {"spans": [[1, 2.5]]}),
        ("spatial grounding", '{"boxes": [16, 0, 32, 24]}', {"boxes": [HALF]}),
        ("tracking", '{"boxes": {"3": [16, 0, 32, 24]}}', {"tube": [[3, *HALF]]}),
        (
            "spatial-temporal grounding",
            '{"time": [0, 4], "boxes": {"3": [16, 0, 32, 24]}}',
            {"spans": [[0, 4]], "tube": [[3, *HALF]]},
        ),
        ("open-ended", '{"time": [1, 2.5]}', None),
        ("temporal grounding", "never", None),
    ],
)
def test_truth_and_answer_are_read_as_the_scorers_read_them(kind, answer, expected):
    pictures = Pictures([], size=(64, 48))
    assert places.truth(kind, answer, "pixels", pictures) == expected
    assert places.answer(kind, answer, "pixels", pictures) == expected


def test_boxes_count_what_row_and_prompt_say():
    """The truth in pixels of the row, the answer in thousandths as asked; without a size none."""
    known = Pictures([], size=(64, 48), box_scale="pixels")
    box = '{"boxes": [250, 0, 500, 500]}'
    truth = places.truth("spatial grounding", '{"boxes": [16, 0, 32, 24]}', "thousand", known)
    assert truth == places.answer("spatial grounding", box, "thousand", known) == {"boxes": [HALF]}
    assert places.answer("spatial grounding", box, "thousand", None) == {"boxes": [HALF]}
    both = '{"time": [0, 4], "boxes": {"3": [16, 0, 32, 24]}}'
    assert places.truth("spatial-temporal grounding", both, "pixels", None) == {"spans": [[0, 4]]}
    assert places.truth("spatial grounding", both, "pixels", Pictures([])) is None


def test_the_page_has_places_origins_and_what_rows_show(tmp_path):
    frame = Frame(np.zeros((48, 64, 3), np.uint8), 2.0)
    box = {"completion": "<answer>…</answer>", "extracted": '{"boxes": {"2": [32, 0, 64, 24]}}'}
    records = [
        rollout(problem_type="tracking", answer={"boxes": {"2": [16, 0, 32, 24]}}, **box),
        rollout(problem_type="tracking", origin="offline", extracted="nothing"),
        rollout(2, "p2", prompt="<image><video>?"),
        rollout(2, "p3", prompt="Why?", media=[]),
    ]
    config = CONFIG | {"rewards": {"box_scale": "pixels"}}
    run = make_run(tmp_path, records, config=config)
    data = build(run, lambda split, name: Shown([frame], 1, (64, 48))).data
    first = data["groups"][0]
    assert first["truth"] == {"tube": [[2, *HALF]]}
    assert [c[-2] for c in first["completions"]] == ["policy", "offline"]
    assert [c[-1] for c in first["completions"]] == [{"tube": [[2, 0.5, 0, 1, 0.5]]}, None]
    assert [g["shows"] for g in data["groups"]] == ["video", "both", "text"]
    assert data["frames"]["train/p1"]["frames"][0][1] == 2.0


def test_nothing_in_clip_names_and_origins_runs(tmp_path):
    fields = {"media": [NASTY], "origin": NASTY, "problem_type": NASTY, "status": NASTY}
    page = build(make_run(tmp_path, [rollout(**fields)]))
    check_nothing_from_outside(page)
    assert page.data["groups"][0]["completions"][0][-2] == NASTY


def test_what_rows_show_is_no_problem_type(tmp_path):
    """A part of its own in the table, under a heading."""
    names = {"eval__accuracy__ocr": 0.5, "eval__accuracy__modality__video": 0.25}
    values = [metric(s, eval__accuracy=0.5, **names) for s in (0, 2)]
    text = build(make_run(tmp_path, metrics=values)).visible
    assert text.index("ocr –") < text.index("all –") < text.index("by what the row shows video –")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_which_boxes_stand_on_which_frame():
    """Within half a second of theirs; those without a second on images and on every frame."""
    script = (
        (ROOT / "evr1/assets/report/places.js").read_text()
        + """
    const place = { boxes: [[9]], tube: [[1, 1], [2, 2], [2, 3]], spans: [[0, 4]] };
    console.log(JSON.stringify([boxesAt(place, null), boxesAt(place, 1.4), boxesAt(place, 2.5),
      boxesAt(place, 3), boxesAt(null, 1), timesOf(place).length, timesOf(null)]));
    """
    )
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [
        [[9]],
        [[9], [1]],
        [[9], [2], [3]],
        [[9]],
        [],
        4,
        [],
    ]

"""VSI-Bench from its official files, and what our rule reads."""

import json

import pytest

from evr1.evals.tasks import vsi_bench
from evr1.evals.tasks.base import Media, Record
from evr1.evals.tasks.kits import vlmevalkit_spatial

LETTERED = ["A. sofa", "B. lamp", "C. door", "D. bed"]
ROWS = [
    ("object_counting", "How many chair(s) are in this room?", "4", None),
    ("room_size_estimation", "How large is this room (in square metres)?", "21.5", None),
    ("object_rel_distance", "Which object is closest to the desk?", "C", LETTERED),
    ("object_rel_direction_easy", "Is the lamp to the left?", "A", ["A. left", "B. right"]),
    ("object_rel_direction_hard", "Where is the bed?", "B", LETTERED),
]
NAMES = ("question_type", "question", "ground_truth", "options")


def write(folder, rows):
    rows = [dict(zip(NAMES, row, strict=True)) for row in rows]
    rows = [
        {"id": i, "dataset": "scannet", "scene_name": f"s{i % 2}", **row}
        for i, row in enumerate(rows)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def samples(tmp_path):
    write(tmp_path, ROWS)
    return list(vsi_bench.load(tmp_path))


def results(samples, responses, profile="evr1"):
    rule = vsi_bench.TASK.rules[profile]
    records = [Record(s, rule(s.doc, r)) for s, r in zip(samples, responses, strict=True)]
    means = vsi_bench.TASK.aggregates[profile](records)
    assert vsi_bench.TASK.aggregates[profile](records[::-1]) == means
    return means


def test_loads_the_official_files(samples, tmp_path):
    assert [s.id for s in samples] == ["0", "1", "2", "3", "4"]
    assert samples[1].media == (Media("scannet/s1.mp4"),)
    assert samples[3].tags == {"question_type": "object_rel_direction_easy", "dataset": "scannet"}
    for row, error in (
        (("object_rel_distance", "?", "E", LETTERED), "answer 'E' is none of A, B, C, D"),
        (("object_counting", "?", "few", None), "ground_truth 'few' is no number"),
        (("object_weight", "?", "1", None), "question_type 'object_weight' is none of"),
    ):
        write(tmp_path, [row])
        with pytest.raises(ValueError, match=error):
            list(vsi_bench.load(tmp_path))


@pytest.mark.parametrize("form", ["{}", "<answer>{}</answer>", "**{}**", "The answer is {}."])
def test_gold_in_every_form_is_right(samples, form):
    gold = [form.format(s.doc["ground_truth"]) for s in samples]
    assert set(results(samples, gold).values()) == {1.0}


def test_the_headline_is_the_mean_over_types(samples):
    means = results(samples, ["4", "43", "C", "A", "A"])
    assert means["question_type/object_rel_direction"] == 0.5
    assert means["question_type/object_rel_direction_hard"] == 0
    assert means["overall"] == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert results(samples, [""] * 5)["overall"] == 0
    reference = results(samples, ["4", "43", "C", "A", "A"], "easyvideor1")
    assert reference == {"mean_acc": pytest.approx(2 / 3), "mean_mra": 0.5}


@pytest.mark.parametrize(
    ("response", "number"),
    [
        ("[3, 4]", 3.0),
        ("[about 3]", None),
        ("<answer>2.5 metres</answer> of 7", 2.5),
        ("<think>1 or 2</think> none", 2.0),
        ("three to five", 5.0),
        ("x", None),
    ],
)
def test_numbers_that_vlmevalkit_reads(response, number):
    assert vlmevalkit_spatial.read_number(response) == number

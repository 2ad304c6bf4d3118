"""Segmentation by hand: boxes, points, masks, and what must not earn a point."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evr1 import rewards
from evr1.rewards import Status, segmentation
from evr1.rewards.geometry import masks
from evr1.rewards.gold import gold_answer

ON = [[20, 20], [30, 20], [20, 40]]
OFF = [[5, 5], [60, 20], [48, 48]]
TRUTH = {"boxes": [10, 10, 50, 50], "positive_points": ON, "negative_points": OFF}
# An L: its right lower quarter is not on the object.
SHAPE = [[10, 10, 50, 10, 50, 30, 30, 30, 30, 50, 10, 50]]
SQUARE = {"size": [6, 8], "counts": [13, 3, 3, 3, 26]}  # columns 2 and 3, rows 1 to 3


def score(answer, truth=TRUTH, **fields):
    response = f"<answer>{answer if isinstance(answer, str) else json.dumps(answer)}</answer>"
    return rewards.score(response, {"problem_type": "segmentation", "answer": truth, **fields})


# (what the answer changes, accuracy, format)
CASES = [
    ({}, 1, 1),
    ({"boxes": [10, 10, 50, 30]}, 0.75, 1),
    ({"boxes": [60, 60, 90, 90]}, 0.5, 1),
    ({"boxes": [50, 50, 10, 10]}, 0.5, 0),
    ({"boxes": None}, 0.5, 0),
    ({"bbox": [10, 10, 50, 50], "boxes": None}, 1, 0),
    ({"positive_points": OFF}, 0.5, 1),
    ({"negative_points": ON}, 0.5, 1),
    ({"positive_points": OFF, "negative_points": ON}, 0.5, 1),
    ({"positive_points": [[20, 20]] * 3}, 0.5 + 1 / 6, 1),  # three copies count once
    ({"positive_points": [[20, 20], [20.1, 20], [20, 20.1]]}, 0.5 + 1 / 6, 1),
    ({"positive_points": ON[:2]}, 0.5 + 1 / 3, 0),
    ({"positive_points": []}, 0.5, 0),
    ({"positive_points": [[20, 20], [30, 20], "x"]}, 0.5, 0),
    ({"positive_points": [*ON, [90, 90], [91, 91], [92, 92]]}, 0.75, 0),  # many guesses
    ({"positive_points": [*ON[:2], [32, 40]]}, 0.5 + 0.5 * 2.8 / 3, 1),
    ({"negative_points": [[900, 900], [901, 950], [950, 901]]}, 1, 1),
    ({"time": 3}, 1, 1),
]


@pytest.mark.parametrize(("change", "accuracy", "form"), CASES)
def test_cases(change, accuracy, form):
    result = score({k: v for k, v in {**TRUTH, **change}.items() if v is not None})
    assert result.detail == ""
    assert (result.accuracy, result.format) == (pytest.approx(accuracy, abs=1e-3), form)


@pytest.mark.parametrize(
    "answer", ["", "{}", "see above", "[1, 2, 3, 4]", '{"boxes": "x"}', '{"boxes": [1, 2, NaN, 4]}']
)
def test_what_selects_nothing_is_unparsed(answer):
    result = score(answer)
    assert (result.status, result.overall) == (Status.UNPARSED, 0)


def test_points_alone_in_corners_earn_nothing():
    corners = [[0, 0], [0, 99], [99, 0]]
    answer = {"boxes": [0, 0, 1, 1], "positive_points": corners, "negative_points": corners}
    assert score(answer).accuracy == 0
    assert score(answer, mask=SHAPE).accuracy == 0


@pytest.mark.parametrize(
    ("time", "accuracy"),
    [(4, 1), (4.5, 1), (3.5, 1), (5.5, 0.5), (2.5, 0.5), (6.5, 0), (99, 0), (None, 0), ([4], 1)],
)
def test_the_frame_counts_where_the_truth_has_one(time, accuracy):
    result = score({**TRUTH, "time": time}, {**TRUTH, "time": 4})
    assert result.accuracy == pytest.approx(accuracy)
    assert result.format == (time is not None)


def test_a_mask_decides_over_points():
    inside = [[15, 15], [45, 15], [15, 45]]
    outside = [[45, 45], [40, 40], [5, 5]]  # two of them in the box
    answer = {**TRUTH, "positive_points": inside, "negative_points": outside}
    assert score(answer, mask=SHAPE).accuracy == 1
    assert score({**answer, "positive_points": outside}, mask=SHAPE).accuracy == 0.5
    assert score({**answer, "negative_points": inside}, mask=SHAPE).accuracy == 0.5
    one_off = [[15, 15], [45, 15], [45, 45]]
    assert score({**answer, "positive_points": one_off}, mask=SHAPE).accuracy == pytest.approx(
        5 / 6
    )
    assert score(answer, {"boxes": TRUTH["boxes"], "mask": SHAPE}).accuracy == 1
    assert score(answer, json.dumps(TRUTH), segmentation=np.array(SHAPE)).accuracy == 1


def test_runs_by_hand():
    mask = masks.read_mask(SQUARE)
    assert mask.box == (2, 1, 4, 4)
    inside = {(x, y) for x in range(8) for y in range(6) if mask.contains((x + 0.5, y + 0.5))}
    assert inside == {(x, y) for x in (2, 3) for y in (1, 2, 3)}
    assert not mask.contains((-1, 2))
    assert not mask.contains((2, 6))
    tall = masks.read_mask({"size": [2, 3], "counts": [1, 4, 1]})  # wraps from column to column
    assert tall.box == (0, 0, 3, 2)


def test_compressed_runs_by_hand():
    # 13 = 0 01101 → chr(48 + 13) "="; the fourth and fifth are differences: 3 - 3, 26 - 3
    assert masks.decode_counts("=330g0") == SQUARE["counts"]
    assert masks.decode_counts("=33k") is None  # cut off
    assert masks.decode_counts("= 3") is None
    assert masks.decode_counts("l2") == [92]
    assert masks.decode_counts("5552N") == [5, 5, 5, 7, 3]  # "N" is 30: minus 2
    compressed = masks.read_mask({"size": [6, 8], "counts": "=330g0"})
    assert compressed.contains((2, 1))


def test_polygons_by_hand():
    for data in (SHAPE, SHAPE[0], [[[10, 10], [50, 10], [50, 30], [30, 30], [30, 50], [10, 50]]]):
        if isinstance(data[0], int):
            data = [data]
        mask = masks.read_mask(data)
        assert mask.box == (10, 10, 50, 50)
        assert mask.contains((20, 40))
        assert not mask.contains((40, 40))
    two = masks.read_mask([[0, 0, 2, 0, 0, 2], [10, 10, 12, 10, 10, 12]])
    assert two.contains((10.5, 10.5))
    assert two.contains((0.5, 0.5))
    assert not two.contains((5, 5))


@pytest.mark.parametrize(
    ("answer", "fields", "message"),
    [
        ("a cat", {}, "has no box"),
        ({"positive_points": ON}, {}, "has no box"),
        ({"boxes": [5, 5, 5, 5]}, {}, "has no box"),
        ({**TRUTH, "time": [1, 2]}, {}, "not one number of seconds"),
        (TRUTH, {"mask": "x"}, "neither runs"),
        (TRUTH, {"mask": []}, "neither runs"),
        (TRUTH, {"mask": [[1, 2, 3]]}, "neither runs"),
        (TRUTH, {"mask": [[1, 1, 2, 2, 3, 3]]}, "neither runs"),  # no area
        (TRUTH, {"mask": {"size": [6, 8], "counts": [48]}}, "neither runs"),  # empty
        (TRUTH, {"mask": {"size": [6, 8], "counts": [1, 2]}}, "neither runs"),
        (TRUTH, {"mask": {"size": [6, 8], "counts": "=3k"}}, "neither runs"),
        (TRUTH, {"mask": SQUARE}, "not of one object in one unit"),
    ],
)
def test_truths_that_cannot_be_read_are_refused(answer, fields, message):
    with pytest.raises(ValueError, match=message):
        rewards.check_row({"problem_type": "segmentation", "answer": answer, **fields})


@pytest.mark.parametrize(
    "row",
    [
        {"answer": TRUTH},
        {"answer": json.dumps({**TRUTH, "time": 3})},
        {"answer": TRUTH, "mask": SHAPE},
        {"answer": {"boxes": [10, 10, 50, 50]}},
        {"answer": {"boxes": [10, 10, 50, 50], "positive_points": [[20, 20]]}},
        {"answer": {"boxes": [2, 1, 4, 4]}, "mask": SQUARE},
        {"answer": json.dumps({"mask": SQUARE})},
        {"answer": {"boxes": [0, 0, 1, 1]}, "mask": {"size": [5, 5], "counts": [0, 1, 24]}},
    ],
)
def test_gold_answers(row):
    row = {"problem_type": "segmentation", **row}
    assert rewards.score(gold_answer(row), row).overall == 1


NUMBERS = st.integers(-50, 150)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=5)


@settings(max_examples=200, deadline=None)
@given(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), POINTS, POINTS, st.booleans())
def test_any_selection_scores_in_bounds(box, on, off, has_mask):
    answer = {"boxes": box, "positive_points": on, "negative_points": off}
    result = score(answer, mask=SHAPE if has_mask else None)
    assert 0 <= result.accuracy <= 1
    assert result.status is Status.OK
    turned = {**answer, "positive_points": on[::-1], "negative_points": off[::-1]}
    if len(segmentation._distinct([(float(x), float(y)) for x, y in on], 40)) == len(on):
        assert score(turned, mask=SHAPE if has_mask else None).accuracy == pytest.approx(
            result.accuracy
        )

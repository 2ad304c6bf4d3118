"""Spans, boxes and boxes over time as models spell them, right and wrong, one or several.

`golden/reward_spellings.jsonl` was written by hand, with the accuracy that each must get.
"""

import itertools
import json
import statistics
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repo import GOLDEN

from evr1 import rewards
from evr1.rewards import Status
from evr1.rewards.geometry import overlap
from evr1.rewards.gold import gold_answer

TUBE = {"boxes": {"1": [10, 20, 110, 220], "2": [12, 20, 112, 220]}}
SPANS = [[1, 2], [5, 7.5]]
BOXES = [[0, 0, 10, 10], [20, 20, 30, 40]]

LINES = (GOLDEN / "reward_spellings.jsonl").read_text("utf-8").strip().split("\n")
CASES = [json.loads(line) for line in LINES]
TRUTHS_OF = {json.dumps([case["problem_type"], case["answer"]]) for case in CASES}


def score(kind, content, answer, **fields):
    row = {"problem_type": kind, "answer": answer, **fields}
    return rewards.score(f"<answer>{content}</answer>", row)


@pytest.mark.parametrize("truth", sorted(TRUTHS_OF))
def test_spellings(truth):
    wrong = []
    for case in CASES:
        kind, answer, content = case["problem_type"], case["answer"], case["content"]
        if json.dumps([kind, answer]) == truth:
            result = score(kind, content, answer)
            is_read = result.status in (Status.OK, Status.UNPARSED)
            if result.accuracy != pytest.approx(case["accuracy"]) or not is_read:
                wrong.append((case, result))
    assert not wrong


# (answer, accuracy by hand)
SHARES = {
    ("temporal grounding", json.dumps(SPANS)): [
        ([[1, 2]], 1 / 3.5),
        ([[5, 7.5]], 2.5 / 3.5),
        ([[1, 7.5]], 3.5 / 6.5),  # one span over both
        ([[0, 10]], 3.5 / 10),
        ([[0, 1000]], 0.0035),
        ([[1, 2], [5, 7.5], [8, 9.5]], 3.5 / 5),
        ([[1.5, 2], [5, 6]], 1.5 / 3.5),
        ([[0, 2], [6, 8]], 2.5 / 5),
        ([[k, k + 0.1] for k in range(10)], 0.1 * 4 / (3.5 + 0.1 * 6)),  # 1, 5, 6, 7 are inside
    ],
    ("spatial grounding", json.dumps(BOXES)): [
        ([[0, 0, 10, 10]], 1 / 2),
        ([[20, 20, 30, 40]], 1 / 2),
        ([[0, 0, 10, 5], [20, 20, 30, 40]], 1.5 / 2),
        ([[0, 0, 10, 5], [0, 5, 10, 10], [20, 20, 30, 40]], 1.5 / 3),  # split in two
        ([[0, 0, 10, 10], [20, 20, 30, 40], [50, 50, 60, 60]], 2 / 3),
        ([[0, 0, 30, 40]], 200 / 1200 / 2),  # one box round both
        ([[0, 0, 10, 10], [0, 0, 10, 9.99]], 1 / 2),  # nearly the same box twice
        ([[0, 0, 10, 10], [5, 0, 15, 10]], 1 / 2),
    ],
}


@pytest.mark.parametrize(
    ("kind", "truth", "answer", "accuracy"),
    [(*row, answer, share) for row, cases in SHARES.items() for answer, share in cases],
)
def test_parts_of_a_set_by_hand(kind, truth, answer, accuracy):
    key = "time" if kind == "temporal grounding" else "boxes"
    result = score(kind, json.dumps({key: answer}), truth)
    assert (result.accuracy, result.format) == (pytest.approx(accuracy, abs=1e-6), 1)


TRUTHS = [
    # as public sets of videos, captions and pictures write them
    ("temporal grounding", {"relevant_windows": [[0, 16], [30, 44]], "qid": 3, "duration": 126}),
    ("temporal grounding", {"timestamps": [[0, 16], [30, 44]], "sentences": ["a", "b"]}),
    ("temporal grounding", [[0, 16], [30, 44]]),
    ("temporal grounding", "[[0, 16], [30, 44]]"),
    ("temporal grounding", "<answer>[[0, 16], [30, 44]]</answer>"),
    ("temporal grounding", [{"start": 0, "end": 16}, {"start": 30, "end": 44}]),
    ("temporal grounding", '{"time": [[0, 16], [30, 44]]}'),
    ("temporal grounding", {"segments": [{"start": "0:00", "end": "0:16"}, [30, 44]]}),
    ("temporal grounding", "0 - 16 s, 30 - 44 s"),
    ("temporal grounding", {"relevant_windows": [[0, 16]]}),
    ("temporal grounding", [[30, 44]]),
    ("temporal grounding", [30, 44]),
    ("spatial grounding", [[0, 0, 9, 9], [10, 10, 29, 39]]),
    ("spatial grounding", "[[0, 0, 9, 9], [10, 10, 29, 39]]"),
    ("spatial grounding", {"boxes": [[0, 0, 9, 9], [10, 10, 29, 39]]}),
    ("spatial grounding", {"bboxes": [[0, 0, 9, 9], [10, 10, 29, 39]]}),
    ("spatial grounding", [{"bbox_2d": [0, 0, 9, 9], "label": "a"}, {"bbox_2d": [1, 1, 9, 9]}]),
    ("spatial grounding", [[0, 0, 9, 9]]),
    ("spatial grounding", [0, 0, 9, 9]),
    ("spatial-temporal grounding", {"time": [[0, 2], [5, 6]], "boxes": {"1": [0, 0, 9, 9]}}),
    ("spatial-temporal grounding", {"time": [[0, 2], [5, 6]]}),
]


@pytest.mark.parametrize(("kind", "truth"), TRUTHS)
def test_truths_of_public_sets(kind, truth):
    row = {"problem_type": kind, "answer": truth}
    rewards.check_row(row)
    assert rewards.score(gold_answer(row), row).overall == 1


@pytest.mark.parametrize(
    ("kind", "truth"),
    [
        ("temporal grounding", []),
        ("temporal grounding", [[2, 1], [5, 7]]),
        ("temporal grounding", [[1, 2], [5]]),
        ("temporal grounding", [1, 2, 3]),
        ("spatial grounding", []),
        ("spatial grounding", [[0, 0, 9, 9], [9, 9, 0, 0]]),
        ("spatial grounding", [[0, 0, 9, 9]] * 101),
        ("tracking", {"boxes": {"1": [9, 9, 0, 0]}}),
    ],
)
def test_truths_that_no_answer_meets_are_refused(kind, truth):
    with pytest.raises(ValueError, match="correct the row"):
        rewards.check_row({"problem_type": kind, "answer": truth})


def test_a_truth_of_one_span_or_box_asks_for_one():
    for kind, key, one, two in (
        ("temporal grounding", "time", [1, 2], [[1, 2], [5, 6]]),
        ("spatial grounding", "boxes", [0, 0, 9, 9], [[0, 0, 9, 9], [10, 10, 19, 19]]),
    ):
        answer = json.dumps({key: two})
        assert score(kind, answer, one).status is Status.UNPARSED  # it does not choose
        assert score(kind, answer, [one]).accuracy == pytest.approx(1 / 2)  # there may be several
        assert score(kind, json.dumps({key: one}), [one]).overall == 1
        assert score(kind, json.dumps({key: [one]}), [one]).overall == 1


def test_one_empty_span_or_box_among_several_is_not_in_form():
    spans = {"time": [[1, 2], [5, 7.5], [9, 8]]}
    boxes = {"boxes": [*BOXES, [60, 60, 50, 50]]}
    assert score("temporal grounding", json.dumps(spans), SPANS)[1:3] == (1, 0)
    result = score("spatial grounding", json.dumps(boxes), BOXES)
    assert result[1:3] == (pytest.approx(2 / 3), 0)
    tube = {"boxes": {**TUBE["boxes"], "2": [112, 220, 12, 20]}}
    assert score("tracking", json.dumps(tube), TUBE)[1:3] == (0.5, 0)
    out_of_view = {"boxes": {**TUBE["boxes"], "3": [0, 0, 0, 0]}}
    assert score("tracking", json.dumps(out_of_view), out_of_view).overall == 1


NUMBERS = st.integers(0, 40)
SPAN_LISTS = st.lists(st.tuples(NUMBERS, st.integers(1, 9)), min_size=1, max_size=6).map(
    lambda pairs: [(a, a + length) for a, length in pairs]
)
BOX_LISTS = st.lists(
    st.tuples(NUMBERS, NUMBERS, st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5
).map(lambda boxes: [(x, y, x + w, y + h) for x, y, w, h in boxes])


def accuracy(kind, parts, truth):
    key = "time" if kind == "temporal grounding" else "boxes"
    return score(kind, json.dumps({key: parts}), [list(part) for part in truth]).accuracy


@settings(max_examples=150, deadline=None)
@given(SPAN_LISTS, SPAN_LISTS, BOX_LISTS, BOX_LISTS, st.randoms(use_true_random=False))
def test_sets_are_symmetric_and_blind_to_order_and_duplicates(s, t, a, b, random):
    for kind, left, right in (("temporal grounding", s, t), ("spatial grounding", a, b)):
        value = accuracy(kind, left, right)
        assert 0 <= value <= 1
        assert value == pytest.approx(accuracy(kind, right, left))
        assert accuracy(kind, right, right) == 1
        shuffled = [*left, random.choice(left)]
        random.shuffle(shuffled)
        assert accuracy(kind, shuffled, right) == pytest.approx(value)


@settings(max_examples=150, deadline=None)
@given(SPAN_LISTS, SPAN_LISTS, st.floats(0, 1))
def test_splitting_spans_changes_nothing(answer, truth, share):
    value = accuracy("temporal grounding", answer, truth)
    halves = [(a, a + share * (b - a)) for a, b in answer]
    halves += [(a + share * (b - a), b) for a, b in answer]
    assert accuracy("temporal grounding", halves, truth) == pytest.approx(value)


@settings(max_examples=150, deadline=None)
@given(BOX_LISTS, st.integers(0, 4), st.integers(1, 3))
def test_splitting_a_right_box_or_adding_others_costs(boxes, at, extra):
    boxes = list(dict.fromkeys(boxes))
    left, top, right, bottom = split = boxes[at % len(boxes)]
    middle = (left + right) / 2
    rest = [box for box in boxes if box != split]
    parts = [*rest, (left, top, middle, bottom), (middle, top, right, bottom)]
    assert accuracy("spatial grounding", parts, boxes) < 1
    more = [*boxes, *((90 + k, 90, 99 + k, 99) for k in range(extra))]
    expected = len(boxes) / (len(boxes) + extra)
    assert accuracy("spatial grounding", more, boxes) == pytest.approx(expected)


@given(BOX_LISTS, BOX_LISTS)
def test_the_matching_is_the_best_of_all(a, b):
    a, b = sorted((list(dict.fromkeys(a)), list(dict.fromkeys(b))), key=len)
    best = max(
        sum(overlap.box_iou(p, q) for p, q in zip(a, order, strict=True))
        for order in itertools.permutations(b, len(a))
    )
    assert overlap.boxes_iou(a, b) == pytest.approx(best / len(b))


LONG = {
    "spans": lambda n: json.dumps({"time": [[k, k + 1] for k in range(n)]}),
    "boxes": lambda n: json.dumps({"boxes": [[k, k, k + 1, k + 2] for k in range(n)]}),
    "objects": lambda n: '{"time": [1, 2]}\n' * n,
    "open objects": lambda n: '{"time": [' * n,
    "closings": lambda n: "]}" * n,
    "moments": lambda n: "00:01 - 00:02, " * n,
    "joins": lambda n: "1 to " * n,
    "brackets": lambda n: "[" * n + "1, 2" + "]" * n,
    "quotes": lambda n: "{'a" * n,
    "slashes": lambda n: "{" + "// " * n,
    "numbers": lambda n: "[" + "1 " * n + "]",
    "keys": lambda n: "{" + "1s," * n + "}",
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("truth", sorted(TRUTHS_OF))
def test_the_time_grows_no_faster_than_the_text(name, truth):
    kind, truth = json.loads(truth)
    seconds = []
    for n in (2_000, 8_000):
        start = time.process_time()
        score(kind, LONG[name](n), truth)
        seconds.append(time.process_time() - start)
    assert seconds[1] < max(0.5, 10 * seconds[0])


def test_no_constant_set_beats_one_plain_guess():
    random = Random(0)

    def span_list():
        ends = sorted(random.sample(range(101), 2 * random.randint(1, 4)))
        return [ends[i : i + 2] for i in range(0, len(ends), 2)]

    def box_list():
        corners = [(random.randint(0, 700), random.randint(0, 700)) for _ in range(4)]
        boxes = [(x, y, x + random.randint(99, 300), y + 200) for x, y in corners]
        return boxes[: random.randint(1, 4)]

    thirds = [(333 * i, 333 * j, 333 * i + 333, 333 * j + 333) for i in range(3) for j in range(3)]
    middle = (300, 300, 700, 700)
    for kind, make, plain, guesses in (
        (
            "temporal grounding",
            span_list,
            [(0, 100)],
            [
                [(k, k + 1) for k in range(100)],
                [(k, k + 5) for k in range(0, 100, 10)],
                [(10, 40), (60, 90)],
            ],
        ),
        (
            "spatial grounding",
            box_list,
            [middle],
            [thirds, [(0, 0, 1000, 1000)], [(300 + k, *middle[1:]) for k in range(4)]],
        ),
    ):
        truths = [make() for _ in range(100)]
        baseline = statistics.mean(accuracy(kind, plain, t) for t in truths)
        for guess in guesses:
            assert statistics.mean(accuracy(kind, guess, t) for t in truths) < baseline + 0.05

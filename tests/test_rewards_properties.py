"""Properties of every scorer: bounds, symmetry, and that the truth in the asked form scores 1."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evr1 import rewards
from evr1.rewards import Status, grounding, number, text
from evr1.rewards.gold import gold_answer

FINITE = st.integers(-999, 999).map(lambda x: x / 8)
INTERVALS = st.tuples(FINITE, FINITE).map(lambda p: tuple(sorted(p)))
BOXES = st.tuples(FINITE, FINITE, FINITE, FINITE).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
TUBES = st.dictionaries(st.integers(0, 9), BOXES, min_size=1, max_size=5)
WORDS = st.lists(
    st.sampled_from(["the", "cat", "Sat", "on", "停", "车", "été", "12", "mat!"]),
    min_size=1,
    max_size=8,
)


@st.composite
def truths(draw):
    """A problem type with a ground truth and the text that the prompt asks for."""
    kind = draw(st.sampled_from([k for k in rewards.SCORERS if k not in ("math", "code")]))
    if kind == "multiple choice":
        answer = draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    elif kind in ("numerical", "regression"):
        answer = draw(st.one_of(st.integers(-(10**9), 10**9), FINITE))
    elif kind == "boolean":
        answer = draw(st.sampled_from(["Yes", "No"]))
    elif kind == "preference":
        answer = draw(st.sampled_from(["Response 1", "Response 2", "Tie"]))
    elif kind in ("ocr", "open-ended"):
        answer = " ".join(draw(WORDS))
    elif kind == "svg-code":
        x, y = draw(FINITE), draw(FINITE)
        answer = f"<svg><g><rect x='{x}' fill='red'/></g><text y='{y}'>a b</text></svg>"
    elif kind == "html-code":
        answer = f"<ul><li class='{draw(FINITE)}'>one</li></ul><p>{draw(FINITE)} cats</p>"
    elif kind == "segmentation":
        left, top = draw(FINITE), draw(FINITE)
        answer = {"boxes": [left, top, left + 8, top + 16]}
        answer["positive_points"] = [[left + i, top + i] for i in (2, 4, 6)]
        answer["negative_points"] = [[left - i, top + i] for i in (2, 4, 6)]
    elif kind == "temporal grounding":
        answer = {"time": list(draw(INTERVALS))}
    elif kind == "spatial grounding":
        answer = {"boxes": list(draw(BOXES))}
    else:
        answer = {"boxes": {str(k): list(v) for k, v in draw(TUBES).items()}}
        if kind == "spatial-temporal grounding":
            answer["time"] = list(draw(INTERVALS))
    return kind, answer, json.dumps(answer) if isinstance(answer, dict) else str(answer)


@settings(max_examples=200, deadline=None)
@given(truths(), st.sampled_from(["", "<think>so <answer>no</answer></think>\n"]), st.booleans())
def test_truth_in_the_asked_form_scores_one(truth, before, as_text):
    kind, answer, written = truth
    row = {"problem_type": kind, "answer": written if as_text else answer}
    result = rewards.score(f"{before}<answer>{written}</answer>", row)
    assert (result.overall, result.status) == (1.0, Status.OK)


@settings(max_examples=100, deadline=None)
@given(truths(), st.booleans(), st.booleans())
def test_the_gold_answer_scores_one(truth, thinking, tagged):
    kind, answer, written = truth
    row = {"problem_type": kind, "answer": f"<answer>{written}</answer>" if tagged else answer}
    assert rewards.score(gold_answer(row, thinking=thinking), row).overall == 1


@pytest.mark.parametrize(
    ("kind", "answer", "gold"),
    [
        ("multiple choice", ["C", "A"], "A, C"),
        ("numerical", "three", "3"),
        ("numerical", "about 12.5 m", "25/2"),
        ("boolean", 1, "Yes"),
        ("temporal grounding", "from 1 to 2.5 s", '{"time": [1.0, 2.5]}'),
        ("spatial grounding", [[1, 2, 3, 4]], '{"boxes": [1.0, 2.0, 3.0, 4.0]}'),
        ("tracking", {"bbox": {"01": [1, 2, 3, 4]}}, '{"boxes": {"1": [1.0, 2.0, 3.0, 4.0]}}'),
        ("spatial-temporal grounding", {"time": [1, 2]}, '{"time": [1.0, 2.0]}'),
        ("open-ended", ["a cat", "the cat"], "a cat"),
        ("math", r"$\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        ("preference", "b", "Response 2"),
    ],
)
def test_gold_answers_of_odd_truths(kind, answer, gold):
    row = {"problem_type": kind, "answer": answer}
    assert gold_answer(row) == f"<answer>{gold}</answer>"
    assert rewards.score(gold_answer(row), row).overall == 1


@settings(max_examples=300, deadline=None)
@given(truths(), st.text(max_size=80), st.booleans())
def test_any_response_scores_in_bounds(truth, response, tagged):
    kind, answer, _ = truth
    response = f"<answer>{response}</answer>" if tagged else response
    result = rewards.score(response, {"problem_type": kind, "answer": answer})
    assert 0 <= result.accuracy <= 1
    assert result.format in (0, 1)
    assert 0 <= result.overall <= 1
    assert result.status in (Status.OK, Status.UNPARSED)
    assert result.status is Status.OK or result.overall == 0


@settings(max_examples=100, deadline=None)
@given(truths(), truths())
def test_crossed_answers_never_break(truth, other):
    row = {"problem_type": truth[0], "answer": truth[1]}
    result = rewards.score(f"<answer>{other[2]}</answer>", row)
    assert result.status is not Status.ERROR


@given(BOXES, BOXES, INTERVALS, INTERVALS, TUBES, TUBES)
def test_iou_is_symmetric_and_bounded(a, b, s, t, tube, other):
    for iou, x, y in (
        (grounding.box_iou, a, b),
        (grounding.interval_iou, s, t),
        (grounding.tube_iou, tube, other),
    ):
        assert iou(x, y) == iou(y, x)
        assert 0 <= iou(x, y) <= 1
        assert iou(x, x) == 1


@given(TUBES)
def test_leaving_out_a_frame_costs_its_share(tube):
    part = dict(list(tube.items())[1:])
    assert abs(grounding.tube_iou(part, tube) - len(part) / len(tube)) < 1e-9


@given(WORDS, WORDS)
def test_text_scores_do_not_depend_on_form(a, b):
    joined, other = " ".join(a), " ".join(b)
    changed = unicodedata.normalize("NFD", joined).upper().replace(" ", " \n ")
    assert text.tokens(joined) == text.tokens(changed)
    assert text.units(joined) == text.units(changed)
    assert text.rouge(text.tokens(joined), text.tokens(other)) == text.rouge(
        text.tokens(other), text.tokens(joined)
    )


@given(st.integers(-(10**12), 10**12))
def test_integers_in_any_writing(n):
    sign = "\u2212" if n < 0 else ""
    for written in (str(n), f"{n:,}", f"{n}.0", f"{sign}{abs(n)}", f" {n} frames."):
        reading = number.read_number(written)
        assert reading is not None
        assert reading.value.value == n


@given(FINITE.filter(lambda x: x != 0), st.fractions(0, 2))
def test_relative_accuracy_falls_with_the_error(truth, error):
    t = number.read_truth(truth).value
    near, far = (number.mean_relative_accuracy(t + t * e, t) for e in (error / 2, error))
    assert near >= far

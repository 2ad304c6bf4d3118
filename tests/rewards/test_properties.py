"""Properties of every scorer: bounds, symmetry, and that the truth in the asked form scores 1."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evr1 import rewards
from evr1.rewards import Status, math, number, text
from evr1.rewards.formulas import symbolic
from evr1.rewards.geometry import overlap
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
        (overlap.box_iou, a, b),
        (overlap.interval_iou, s, t),
        (overlap.tube_iou, tube, other),
    ):
        assert iou(x, y) == iou(y, x)
        assert 0 <= iou(x, y) <= 1
        assert iou(x, x) == 1


@given(TUBES)
def test_leaving_out_a_frame_costs_its_share(tube):
    part = dict(list(tube.items())[1:])
    assert abs(overlap.tube_iou(part, tube) - len(part) / len(tube)) < 1e-9


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


INLINE = {
    **rewards.SCORERS,
    "math": lambda response, task: math.score(response, task, symbolic.equal_inline),
}


def accuracy(kind, content, answer) -> float:
    row = {"problem_type": kind, "answer": answer}
    return rewards.score(f"<answer>{content}</answer>", row, scorers=INLINE).accuracy


@settings(max_examples=200, deadline=None)
@given(truths(), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]), st.data())
def test_spacing_case_and_unicode_forms_do_not_matter(truth, form, data):
    kind, answer, written = truth
    unseen = [] if kind.endswith("code") else ["\u200b", "\u3000"]  # text, in a page
    space = data.draw(st.sampled_from(["", " ", "\n", "\t ", *unseen]))
    changed = unicodedata.normalize(form, f"{space}{written}{space}")
    if kind in ("boolean", "preference", "multiple choice", "ocr", "open-ended"):
        changed = data.draw(st.sampled_from([changed, changed.upper(), changed.lower()]))
    assert accuracy(kind, changed, answer) == 1


@settings(max_examples=200, deadline=None)
@given(truths(), truths())
def test_another_answer_scores_less(truth, other):
    """Damage: the answer of another row of the same type, unless it says the same."""
    kind, answer, written = truth
    wrong = other[2] if other[0] == kind else "zzz"
    score = accuracy(kind, wrong, answer)
    if score < 1:
        return
    back = accuracy(kind, written, other[1])
    near = kind in ("numerical", "regression")  # within a tolerance
    assert back == 1 or near
    if kind not in ("ocr", "open-ended") and not near:
        assert answer == other[1]


@settings(max_examples=100, deadline=None)
@given(TUBES, st.randoms(use_true_random=False), INTERVALS)
def test_the_order_of_seconds_and_keys_does_not_matter(tube, random, time):
    items = [(str(k), list(v)) for k, v in tube.items()]
    answer = {"time": list(time), "boxes": dict(items)}
    random.shuffle(items)
    shuffled = json.dumps({"boxes": dict(items), "time": list(time)})
    assert accuracy("tracking", shuffled, answer) == 1
    assert accuracy("spatial-temporal grounding", shuffled, answer) == 1


@settings(max_examples=100, deadline=None)
@given(TUBES, BOXES)
def test_a_wrong_or_an_extra_box_costs(tube, box):
    answer = {"boxes": {str(k): list(v) for k, v in tube.items()}}
    more = {"boxes": {**answer["boxes"], "77": list(box)}}
    share = len(tube) / (len(tube) + 1)
    assert accuracy("tracking", json.dumps(more), answer) == pytest.approx(share)
    second, right = next(iter(answer["boxes"].items()))
    moved = {"boxes": {**answer["boxes"], second: [x + 1000 for x in right]}}
    expected = 1 - 1 / len(tube)
    assert accuracy("tracking", json.dumps(moved), answer) == pytest.approx(expected)


@given(INTERVALS, INTERVALS, FINITE)
def test_interval_overlap_moves_and_scales_with_its_intervals(a, b, shift):
    iou = overlap.interval_iou
    moved = [(x[0] + shift, x[1] + shift) for x in (a, b)]
    assert iou(*moved) == pytest.approx(iou(a, b))
    wider = (a[0] - 1, a[1] + 1)
    assert iou(wider, a) < 1


@settings(max_examples=100, deadline=None)
@given(WORDS, st.integers(0, 7))
def test_losing_words_costs(words, at):
    answer = " ".join(words)
    fewer = [w for i, w in enumerate(words) if i != at % len(words)]
    for kind in ("ocr", "open-ended"):
        assert accuracy(kind, " ".join(fewer), answer) < 1
        assert accuracy(kind, answer, answer) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(-99, 99), st.integers(1, 99), st.integers(2, 9))
def test_fractions_in_any_writing(top, bottom, factor):
    writings = [
        f"{top}/{bottom}",
        rf"\frac{{{top}}}{{{bottom}}}",
        f"{top * factor}/{bottom * factor}",
    ]
    for written in writings:
        for truth in writings:
            assert accuracy("math", written, truth) == 1
            assert accuracy("numerical", written, truth) == 1
        assert accuracy("math", f"{top + bottom}/{bottom}", written) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(-9, 9), st.integers(-9, 9))
def test_polynomials_in_any_order(a, b, c):
    truth = f"{a}x^2{b:+d}x{c:+d}"
    assert accuracy("math", f"{c}{b:+d}x{a:+d}x^2", truth) == 1
    assert accuracy("math", f"x({a}x{b:+d}){c:+d}", truth) == 1
    assert accuracy("math", f"{a}x^2{b:+d}x{c + 1:+d}", truth) == 0
    assert accuracy("math", f"{a + 1}x^2{b:+d}x{c:+d}", truth) == 0


@given(FINITE.filter(bool), st.integers(2, 50))
def test_a_number_off_by_a_part_is_wrong(truth, parts):
    off = truth + truth / parts
    assert accuracy("numerical", repr(off), truth) == 0
    assert accuracy("regression", repr(off), truth) < 1 or parts >= 20

"""Coordinate frames: a score does not depend on the frame, and a row says what is missing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows_rig import make_row

from evr1 import rewards
from evr1.data import prompts
from evr1.formats import box_frames
from evr1.rewards import Status, __main__
from evr1.rewards.base import make_task
from evr1.rewards.geometry import overlap
from evr1.rewards.gold import gold_answer
from evr1.rewards.pool import RewardPool

SIZE = {"width": 640, "height": 480}
# one box, in the middle of the medium and a quarter of it, in each frame
BOX = {"pixels": [160, 120, 480, 360], "unit": [0.25, 0.25, 0.75, 0.75]}
BOX["thousand"] = [250, 250, 750, 750]
# its left half
HALF = {"pixels": [160, 120, 320, 360], "unit": [0.25, 0.25, 0.5, 0.75]}
HALF["thousand"] = [250, 250, 500, 750]
FRAMES = box_frames.SCALES


def answers(box):
    """A box as the answer of each type that has boxes, and the accuracy it leaves at IoU 1/2."""
    return {
        "spatial grounding": ({"boxes": box}, 0.5),
        "tracking": ({"boxes": {"1": box, "2": box}}, 0.5),
        "spatial-temporal grounding": ({"time": [1, 2], "boxes": {"1": box, "2": box}}, 0.75),
    }


def row(kind, box, frame, **fields):
    fields = {**SIZE, "box_scale": frame, **fields}
    return {"problem_type": kind, "answer": answers(box)[kind][0], **fields}


def tag(answer) -> str:
    return f"<answer>{json.dumps(answer)}</answer>"


@pytest.mark.parametrize(
    ("source", "target", "size", "expected"),
    [
        ("pixels", "unit", (640, 480), (1 / 640, 1 / 480)),
        ("pixels", "thousand", (500, 200), (2, 5)),
        ("thousand", "pixels", (500, 200), (0.5, 0.2)),
        ("unit", "pixels", (500, 200), (500, 200)),
        ("unit", "thousand", None, (1000, 1000)),
        ("thousand", "unit", None, (0.001, 0.001)),
        ("pixels", "pixels", None, (1, 1)),
    ],
)
def test_factors_by_hand(source, target, size, expected):
    assert box_frames.factors(source, target, size) == pytest.approx(expected)


@pytest.mark.parametrize("asked", FRAMES)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", answers(None))
def test_scores_do_not_depend_on_the_frames(kind, frame, asked):
    task = row(kind, BOX[frame], frame)
    for box, accuracy in ((BOX[asked], 1), (HALF[asked], answers(None)[kind][1])):
        result = rewards.score(tag(answers(box)[kind][0]), task, box_scale=asked)
        assert result.accuracy == pytest.approx(accuracy)
        assert result.format == 1


NUMBERS = st.integers(0, 2000)


@given(st.tuples(*[NUMBERS] * 4), st.tuples(*[NUMBERS] * 4), st.integers(1, 4000), NUMBERS)
def test_iou_of_any_boxes_is_the_same_in_every_frame(given_box, truth, width, height):
    size = (width, height + 1)
    found = []
    for frame in FRAMES:
        x, y = box_frames.factors("pixels", frame, size)
        a, b = (
            [v * f for v, f in zip(box, (x, y, x, y), strict=True)] for box in (given_box, truth)
        )
        found.append(overlap.box_iou(tuple(a), tuple(b)))
    assert found == pytest.approx([found[0]] * 3, abs=1e-9)


def test_a_truth_without_a_frame_is_in_the_asked_one():
    plain = {"problem_type": "spatial grounding", "answer": BOX["thousand"]}
    for asked in ("", *FRAMES):
        assert rewards.score(tag({"boxes": BOX["thousand"]}), plain, box_scale=asked).overall == 1


def test_without_an_asked_frame_the_truth_stays_in_its_own():
    assert rewards.score(
        tag({"boxes": BOX["unit"]}), row("spatial grounding", BOX["unit"], "unit")
    )[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("fields", "asked", "message"),
    [
        (
            {"box_scale": "pixels"},
            "thousand",
            "in pixels and rewards.box_scale asks for thousand; add",
        ),
        ({"box_scale": "unit"}, "pixels", "add width and height .pixels of the source medium."),
        (
            {"box_scale": "inches"},
            "unit",
            "box_scale is 'inches'; give one of pixels, unit, thousand",
        ),
        ({"box_scale": "inches"}, "", "box_scale is 'inches'"),
        ({"width": 640}, "pixels", "width and height: got .640, None."),
        ({"width": 0, "height": 4}, "pixels", "above 0"),
        ({"width": "640", "height": 480}, "pixels", "width and height: got"),
        ({"width": True, "height": True}, "pixels", "width and height: got"),
        ({"image_size": [640]}, "pixels", "image_size: got"),
        ({"image_size": [float("nan"), 2]}, "pixels", "image_size: got"),
        ({"video_size": "64"}, "pixels", "video_size: got"),
        ({"video_size": [640, 480], "width": 1, "height": 1}, "pixels", "differ"),
    ],
)
@pytest.mark.parametrize("kind", answers(None))
def test_rows_that_lack_a_frame_or_a_size_are_refused(kind, fields, asked, message):
    task = {"problem_type": kind, "answer": answers(BOX["pixels"])[kind][0], **fields}
    with pytest.raises(ValueError, match=message) as e:
        rewards.check_row(task, box_scale=asked)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("fields", [{"image_size": [640, 480]}, {"video_size": (640.0, 480)}, SIZE])
def test_the_size_may_have_any_of_its_names(fields):
    task = {"problem_type": "spatial grounding", "answer": BOX["pixels"], "box_scale": "pixels"}
    rewards.check_row({**task, **fields}, box_scale="unit")
    assert box_frames.size_of(fields) == (640, 480)


def test_fractions_and_thousandths_need_no_size():
    task = {"problem_type": "spatial grounding", "answer": BOX["unit"], "box_scale": "unit"}
    assert rewards.score(tag({"boxes": BOX["thousand"]}), task, box_scale="thousand").accuracy == 1


def test_fields_of_the_same_name_mean_nothing_to_other_types():
    task = {"problem_type": "numerical", "answer": 3, "width": "narrow", "box_scale": "inches"}
    rewards.check_row(task, box_scale="unit")
    text = prompts.render_task(
        make_row("How many?", extra={"width": "narrow"}),
        prompts.built_in_template(),
        thinking=False,
        box_scale="pixels",
    )
    assert "narrow" not in text


@pytest.mark.parametrize(
    ("box", "accuracy"),
    [
        ([-1000, -1000, 2000, 2000], 1 / 9),  # clipped, this would be the whole frame: 1
        ([0, 0, 2000, 1000], 0.5),
        ([1000, 0, 2000, 1000], 0),
        (BOX["unit"], 0.25e-6),  # another frame than the asked one is not guessed
    ],
)
def test_answers_beyond_the_frame_are_not_clipped(box, accuracy):
    task = row("spatial grounding", [0, 0, 640, 480], "pixels")
    result = rewards.score(tag({"boxes": box}), task, box_scale="thousand")
    assert result.accuracy == pytest.approx(accuracy)


def test_an_answer_cannot_choose_its_frame():
    task = row("spatial grounding", BOX["pixels"], "pixels")
    given_box = {"boxes": BOX["unit"], "box_scale": "unit", "width": 1, "height": 1}
    assert rewards.score(tag(given_box), task, box_scale="thousand").accuracy < 1e-3


@pytest.mark.parametrize("asked", FRAMES)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("kind", answers(None))
def test_gold_answers_are_in_the_asked_frame(kind, frame, asked):
    task = row(kind, BOX[frame], frame)
    gold = json.loads(gold_answer(task, box_scale=asked)[len("<answer>") : -len("</answer>")])
    boxes = gold["boxes"].values() if isinstance(gold["boxes"], dict) else [gold["boxes"]]
    for box in boxes:
        assert box == pytest.approx(BOX[asked])
    assert rewards.score(gold_answer(task, box_scale=asked), task, box_scale=asked).overall == 1


@given(
    st.tuples(*[NUMBERS] * 4), st.integers(1, 4000), st.integers(1, 4000), st.sampled_from(FRAMES)
)
def test_gold_answers_score_one_in_any_frame(box, width, height, asked):
    corners = [min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])]
    task = {"problem_type": "spatial grounding", "answer": corners, "box_scale": "pixels"}
    task |= {"width": width, "height": height}
    assert rewards.score(gold_answer(task, box_scale=asked), task, box_scale=asked).overall == 1


@pytest.mark.parametrize(
    ("data_type", "scale", "extra", "words"),
    [
        ("video", "pixels", SIZE, "the box in pixels of the original 640 x 480 video:"),
        ("image", "pixels", {"image_size": [64, 48]}, "in pixels of the original 64 x 48 image:"),
        ("mixed", "pixels", SIZE, "in pixels of the original 640 x 480 input:"),
        ("text", "pixels", SIZE, "in pixels of the original 640 x 480 image:"),
        ("video", "pixels", {}, "the box in pixels:"),
        ("video", "unit", SIZE, "the box in fractions (0 to 1) of width and height:"),
        ("video", "thousand", SIZE, "the box on a scale of 0 to 1000:"),
    ],
)
def test_the_prompt_says_what_the_coordinates_count(data_type, scale, extra, words):
    asked = make_row("Where?", "spatial grounding", data_type=data_type, extra=extra)
    text = prompts.render_task(asked, prompts.built_in_template(), thinking=False, box_scale=scale)
    assert words in text


def test_the_pool_converts_too():
    task = row("tracking", BOX["pixels"], "pixels")
    response = tag({"boxes": {"1": BOX["thousand"], "2": BOX["thousand"]}})
    with RewardPool(workers=1, box_scale="thousand") as pool:
        assert pool.score_batch([response], [task])[0].overall == pytest.approx(1)
    assert make_task(task, "thousand").box_scale == "thousand"


def test_the_command_converts_too(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = row("spatial grounding", BOX["pixels"], "pixels") | {
        "response": tag({"boxes": BOX["thousand"]})
    }
    bad = {k: v for k, v in good.items() if k not in SIZE}
    source.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    flags = [f"--rows={source}", f"--out={out}", "--workers=1", "--box_scale=thousand"]
    __main__.main(flags)
    first, second = map(json.loads, out.read_text().splitlines())
    assert (first["overall"], first["box_scale"]) == (pytest.approx(1), "pixels")
    assert second["status"] == Status.ERROR
    assert "add width and height" in second["detail"]

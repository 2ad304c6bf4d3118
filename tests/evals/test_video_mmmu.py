"""Video-MMMU: files in miniature, native answers, three tracks, and what lectures add."""

import json
import random

import miniatures
import pytest

from evr1.evals.tasks import TASKS, video_mmmu
from evr1.evals.tasks.base import Media, Record, Show
from evr1.evals.tasks.kits import mmmu

TASK = TASKS["video_mmmu"]
ROW = {
    "id": "validation_Art_Theory_3",
    "question": "What does the girl hold?",
    "options": ["a red car", "a blue ball", "a green kite"],
    "answer": "C",
    "question_type": "multiple-choice",
}
OPEN = ROW | {
    "id": "new_Physics_1",
    "options": [],
    "answer": "12",
    "question_type": "open",
    "image": {"bytes": b"png", "path": "new_Physics_1.png"},
}


def write(folder, rows=(ROW,), adaptation=(OPEN,)):
    for name in ("Perception", "Comprehension", "Adaptation"):
        listed = adaptation if name == "Adaptation" else rows
        miniatures.write_rows(folder / name / "test-00000-of-00001.parquet", listed)


def test_tracks_are_loaded(tmp_path):
    write(tmp_path)
    perceived, understood, adapted, before = TASK.load(tmp_path)
    assert perceived.id == "perception/validation_Art_Theory_3"
    assert perceived.media == (Media("Art/validation_Art_Theory_3.mp4"),)
    assert understood.tags == {
        "track": "comprehension",
        "discipline": "Art",
        "subject": "Art_Theory",
    }
    image = Media("images/new_Physics_1.png", "image")
    assert adapted.media == (Media("Science/new_Physics_1.mp4"), image)
    assert json.loads(json.dumps(adapted.doc)) == adapted.doc
    assert before.id == "question_only/new_Physics_1"
    assert before.media == (Media("question_only/new_Physics_1_image.mp4"),)
    assert before.cluster == adapted.cluster  # the lecture, so that both are drawn together


def test_an_image_without_a_name_has_that_of_its_question(tmp_path):
    write(tmp_path, adaptation=(OPEN | {"image": {"bytes": b"png", "path": None}},))
    adapted = list(TASK.load(tmp_path))[2]
    assert adapted.media[1] == Media("images/new_Physics_1.png", "image")
    assert list(TASK.embedded(tmp_path)) == [("images/new_Physics_1.png", b"png")]


def test_prompts_follow_the_track(tmp_path):
    write(tmp_path)
    perceived, _, adapted, before = TASK.load(tmp_path)
    assert str(TASK.prompts["official"](perceived)[1]).startswith(
        ROW["question"] + "\nA. a red car\n"
    )
    assert "open-ended" in str(TASK.prompts["official"](adapted)[1])
    assert "watch and learn" not in str(TASK.prompts["official"](before)[1])
    assert TASK.prompts["vlmevalkit"](adapted)[:2] == (Show(0), Show(1))
    lettered = dict(perceived.doc) | {
        "options": ["A. a red car", "B. a blue ball", "C. a green kite"]
    }
    assert video_mmmu._text(lettered, "perception") == video_mmmu._text(ROW, "perception")


def test_the_authors_own_files_are_loaded(tmp_path):
    (tmp_path / "data").mkdir()
    for track in ("perception", "comprehension", "adaptation"):
        row = ROW if track == "adaptation" else {k: v for k, v in ROW.items() if k[-4:] != "type"}
        (tmp_path / "data" / f"{track}_video.json").write_text(json.dumps([row]))
    samples = list(TASK.load(tmp_path))
    assert [sample.doc["question_type"] for sample in samples] == ["multiple-choice"] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [({"answer": "D"}, "answer 'D' is none of A, B, C"), ({"id": "dev_Magic_1"}, "no known sub")],
)
def test_wrong_rows_are_told_in_one_line(tmp_path, change, message):
    write(tmp_path, [ROW | change])
    with pytest.raises(ValueError, match=message):
        list(TASK.load(tmp_path))
    with pytest.raises(ValueError, match="holds no Perception"):
        list(TASK.load(tmp_path / "Perception"))


@pytest.mark.parametrize(
    ("answer", "options", "right", "wrong"),
    [
        (
            "C",
            ROW["options"],
            ["C", "(C)", "C. a green kite", "**C**", "a green kite", "The answer is C."],
            ["B", "", "I cannot see it.", "B or C", "D"],
        ),
        ("12", [], ["12", "12.0", "12 m/s", "\\boxed{12}", "The answer is 12."], ["13", "1,2", ""]),
        ("12", [], ["<think>15</think>12"], ["12 or 13", "It is 10, 11, 12, 13"]),
        ("-3", [], ["-3", "−3"], ["3"]),
        ("A", [], ["A", "The answer is A."], ["B", "", "The picture is a little unclear."]),
        ("['24/7', '3.429', '3.43]", [], ["24/7", "3.43", "3.429"], ["3.4", "24", "7"]),
    ],
)
def test_our_rule(answer, options, right, wrong):
    doc = ROW | {"answer": answer, "options": options}
    rule = TASK.rules["evr1"]
    assert {text: rule(doc, text).score for text in right} == dict.fromkeys(right, 1.0)
    assert {text: rule(doc, text).score for text in wrong} == dict.fromkeys(wrong, 0.0)


def test_numbers_are_read_in_linear_time():
    for text in ("9" * 200_000 + ",", "1." * 100_000, "1e" * 100_000, "1,234" * 40_000):
        mmmu.read_open(text)


def records(samples, answers, profile="evr1"):
    rule = TASK.rules[profile]
    return [Record(sample, rule(sample.doc, answers(sample))) for sample in samples]


def test_gain_compares_the_question_before_and_after(tmp_path):
    write(tmp_path, adaptation=[OPEN | {"id": f"new_Physics_{i}"} for i in range(4)])
    samples = list(TASK.load(tmp_path))
    right = records(samples, lambda sample: sample.doc["answer"])
    means = TASK.aggregates["evr1"](right)
    assert next(iter(means)) == "accuracy"
    assert means["accuracy"] == means["track/perception"] == means["discipline/Art"] == 1

    def answer(sample):  # two of four before, and of these one is lost; both others are gained
        place = int(sample.id[-1])
        is_right = place >= 2 if sample.tags["track"] == "question_only" else place != 3
        return sample.doc["answer"] if is_right else "99"

    scored = records(samples, answer)
    means = TASK.aggregates["evr1"](scored)
    assert means["track/question_only"] == 0.5
    assert means["track/adaptation"] == 0.75
    assert (means["delta_knowledge"], means["wrong_to_right"], means["right_to_wrong"]) == (
        0.5,
        1.0,
        0.5,
    )
    random.Random(0).shuffle(scored)
    assert TASK.aggregates["evr1"](scored) == means
    assert TASK.aggregates["evr1"](records(samples, lambda _: ""))["accuracy"] == 0


def test_the_authors_leave_out_what_is_empty(tmp_path):
    write(tmp_path)
    samples = list(TASK.load(tmp_path))
    scored = records(samples, lambda s: "C" if s.id.startswith("perc") else "", "official")
    assert TASK.aggregates["official"](scored)["accuracy"] == 1
    assert TASK.aggregates["evr1"](scored)["accuracy"] == pytest.approx(1 / 3)

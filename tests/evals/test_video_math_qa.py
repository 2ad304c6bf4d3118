"""VideoMathQA: files in miniature, native answers, and pairs that count together."""

import miniatures
import pytest

from evr1.evals.tasks import TASKS
from evr1.evals.tasks.base import Media, Record

TASK = TASKS["video_math_qa"]
ROW = {
    "question_id": "7",
    "videoID": "v7",
    "question": "How many triangles are there?",
    "options": ["A. 12", "B. 18", "C. 24", "D. 28", "E. 30"],
    "answer": "C",
    "category": "Counting",
    "length": "short",
}


def load(folder):
    miniatures.write("video_math_qa", folder)
    return list(TASK.load(folder))


def test_both_forms_are_loaded(tmp_path):
    mcq, other, *pairs = load(tmp_path)
    assert [sample.id for sample in (mcq, other)] == ["mcq/0", "mcq/2"]
    assert [s.id for s in pairs] == [f"mbin/{q}/{i}" for q in (0, 2) for i in (1, 2, 3, 4)]
    assert mcq.media == (Media("videos/mini_v0.mp4"),)
    assert other.media == (Media("videos/mini_v2.mkv"),)
    assert mcq.tags == {"format": "mcq", "length": "short", "category": "Counting"}
    assert (mcq.group, {pair.group for pair in pairs[:4]}) == ("", {"0"})
    assert (mcq.subtitles, other.subtitles) == ("subtitles/mini_v0.srt", "")
    texts = {name: "".join(map(str, ask(pairs[0]))) for name, ask in TASK.prompts.items()}
    assert all("(A or B)" in text for name, text in texts.items() if "easyvideor1" not in name)
    assert "step by step" in texts["official_cot"]
    with_subtitles = TASK.prompts["official_subtitles"](mcq)
    assert "and the subtitles" in str(with_subtitles[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"answer": "F"}, r"test-.*row 1: answer 'F' is none of"), ({"answer": "24"}, "'24'")],
)
def test_wrong_rows_are_told_in_one_line(tmp_path, change, message):
    load(tmp_path)
    miniatures.change_row(tmp_path / "mcq" / "test-00000-of-00001.parquet", **change)
    with pytest.raises(ValueError, match=message):
        list(TASK.load(tmp_path))


def test_missing_files_are_told_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"holds no mcq/\*\.parquet or"):
        list(TASK.load(tmp_path))


@pytest.mark.parametrize("text", ["C", "(C)", "C. 24", "\\boxed{C}", "The answer is C.", "24"])
def test_our_rule_reads_native_answers(text):
    assert TASK.rules["evr1"](ROW, text).score == 1
    assert TASK.rules["evr1"](ROW, text.replace("C", "D").replace("24", "28")).score == 0
    assert TASK.rules["evr1"](ROW, "").score == 0


def records(samples, answer, profile="evr1"):
    rule = TASK.rules[profile]
    return [Record(sample, rule(sample.doc, answer(sample))) for sample in samples]


def test_all_pairs_of_a_question_must_be_right(tmp_path):
    samples = load(tmp_path)
    scored = records(samples, lambda sample: sample.doc["answer"])
    means = TASK.aggregates["evr1"](scored)
    assert next(iter(means)) == "mcq"
    assert set(means.values()) == {1.0}
    assert means.keys() >= {"mbin", "mcq/category/Counting", "mbin/length/short"}
    other = {"A": "B", "B": "A"}
    one_wrong = records(
        samples,
        lambda s: other[s.doc["answer"]] if s.id.endswith("2/4") else s.doc["answer"],
    )
    assert TASK.aggregates["evr1"](one_wrong)["mbin"] == 0.5
    assert TASK.aggregates["easyvideor1"](one_wrong)["accuracy"] == 0.9
    for profile, expected in (("evr1", 0.5), ("official", 1.0)):  # a pair that is lost
        assert TASK.aggregates[profile](one_wrong[:-1])["mbin"] == expected

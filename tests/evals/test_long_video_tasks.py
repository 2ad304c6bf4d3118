"""Benchmarks about long videos and reasoning: mirrors, bad rows, short answers, means."""

import json
import random

import miniatures
import pytest

from evr1.evals.tasks import TASKS, metrics
from evr1.evals.tasks.base import Media, Record, Sample, Verdict
from evr1.evals.tasks.judging import steps

MLVU = {
    "video": "x.mp4",
    "duration": 300.0,
    "question": "Which tool?",
    "candidates": ["Rake", "Shears", "Trowel", "Hose"],
    "answer": "Trowel",
    "question_type": "plotQA",
}
MLVU_MIRROR = {
    "video_name": "x.mp4",
    "task_type": "order",
    "question": "Which tool?\n(A) Rake\n(B) Shears\n(C) Trowel",
    "answer": "C",
}
MINERVA = {
    "key": "vid:1",
    "video_id": "vid",
    "question": "Which tool?",
    "answer": "Trowel",
    "answer_id": 2,
    "question_type": "Counting, Reading",
    "split": "sports",
    "category": "tennis",
    **{f"answer_choice_{i}": t for i, t in enumerate(["Rake", "Hoe", "Trowel", "Hose", "Pot"])},
}
MMVU_OPEN = {
    "id": "validation_3",
    "video": "https://host/datasets/yale-nlp/MMVU/resolve/main/videos/Biology/3.mp4",
    "question_type": "open-ended",
    "question": "Which tool?",
    "choices": dict.fromkeys("ABCDE", ""),
    "answer": "Trowel",
}
VCR_OPEN = {
    "id": 3,
    "video_path": "video/set/x.mp4",
    "duration": 179,
    "dimension": "Video Plot Analysis",
    "question": "Which tool?",
    "multiple-choice": False,
    "choices": dict.fromkeys("ABCD", ""),
    "answer": "Trowel",
    "reasoning": ["1. 0:07-0:55, she digs."],
}
LVB_PARQUET = {
    "id": "b_0",
    "video_path": "a.mp4",
    "question": "Which tool?",
    "correct_choice": 2,
    **{f"option{i}": t for i, t in enumerate(["Rake", "Shears", "Trowel", "N/A", "N/A"])},
}
# Layouts of mirrors: task, file, row, id, medium. Those of the official files are miniatures.
MIRRORS = [
    (
        "longvideobench",
        "validation-00000-of-00001.parquet",
        LVB_PARQUET,
        "b_0",
        "videos/a.mp4",
    ),
    ("mlvu", "data/test-00000-of-00001.parquet", MLVU_MIRROR, "order/1", "video/x.mp4"),
]


@pytest.mark.parametrize(("task", "name", "row", "id_", "medium"), MIRRORS)
def test_mirrors_are_read(tmp_path, task, name, row, id_, medium):
    miniatures.write_rows(tmp_path / name, [row])
    (sample,) = TASKS[task].load(tmp_path)
    assert (sample.id, sample.media[0].path) == (id_, medium)
    assert json.loads(json.dumps(sample.doc)) == row
    for prompt in TASKS[task].prompts.values():
        assert "Trowel" in "".join(part for part in prompt(sample) if isinstance(part, str))
    scores = [TASKS[task].rules["evr1"](row, text).score for text in ("C", "A", "A or C", "")]
    assert scores == [1.0, 0.0, 0.0, 0.0]


BROKEN = [
    ("longvideobench", "lvb_val.json", {"id": "a"}, "no field candidates"),
    (
        "mlvu_test",
        "test_question.json",
        {"question_id": "1", "question_type": "x"},
        "no field answ",
    ),
    ("mmvu", "data/validation.json", MMVU_OPEN | {"answer": ""}, "the answer is empty"),
]


@pytest.mark.parametrize(("task", "name", "row", "message"), BROKEN)
def test_a_bad_row_is_told_in_one_line(tmp_path, task, name, row, message):
    miniatures.write_rows(tmp_path / name, [row])
    with pytest.raises(ValueError, match=message) as error:
        list(TASKS[task].load(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("task", ["longvideobench", "longvideobench_sub", "mlvu_test", "mmvu"])
def test_a_missing_file_is_told_in_one_line(tmp_path, task):
    with pytest.raises(ValueError, match="download it there"):
        list(TASKS[task].load(tmp_path))


def test_equal_options_are_right_together_and_absent_ones_never():
    rule = TASKS["mlvu"].rules["evr1"]
    twins = MLVU | {"candidates": ["Trowel", "Rake", "Hose", "Trowel"]}
    assert [rule(twins, letter).score for letter in "ABCD"] == [1.0, 0.0, 0.0, 1.0]
    assert rule(MLVU | {"answer": "Spade"}, "A").score == 0.0


def test_averages_do_not_depend_on_the_order_of_records():
    task = TASKS["mlvu"]
    template = {"plotQA": [1, 0, 0, 0], "ego": [1, 1, 1, 0], "needle": [1] * 10, "order": [0, 0]}
    pairs = [(kind, right) for kind, rights in template.items() for right in rights]
    results = []
    for seed in range(3):
        random.Random(seed).shuffle(pairs)
        results.append({p: f(_records(task, pairs)) for p, f in task.aggregates.items()})
    assert results[0] == results[1] == results[2]
    assert results[0]["evr1"]["m_avg"] == 0.5  # the authors': a mean over the kinds that occur
    assert results[0]["lmms_eval"]["m_avg"] == 2 / 7  # absent kinds count 0
    assert results[0]["vlmevalkit"]["m_avg"] == 0.7  # a mean over questions
    assert results[0]["evr1"]["kind/ego"] == 0.75


def _records(task, pairs):
    rule = task.rules["evr1"]
    return [
        Record(
            Sample(str(i), MLVU, (Media("x.mp4"),), {"kind": kind}),
            rule(MLVU, "C" if right else "A"),
        )
        for i, (kind, right) in enumerate(pairs)
    ]


def test_a_question_counts_for_each_of_its_types(tmp_path):
    miniatures.write_rows(tmp_path / "minerva.json", [MINERVA])
    (sample,) = TASKS["minerva"].load(tmp_path)
    means = TASKS["minerva"].aggregates["evr1"](
        [Record(sample, TASKS["minerva"].rules["evr1"](sample.doc, "C"))]
    )
    assert means["question_type/Counting"] == means["question_type/Reading"] == 1.0
    assert metrics.macro({"a": means["accuracy"], "b": 0.0}) == 0.5


SHORT = [
    ("endosymbiotic theory", "Therefore, the final answer is: endosymbiotic theory", 1.0),
    ("endosymbiotic theory", "Endosymbiotic theory.", 1.0),
    ("endosymbiotic theory", "natural selection", None),
    ("12", "The answer is 12.", 1.0),
    ("12", "<answer>12.0</answer>", 1.0),
    ("O(n²)", "\\boxed{O(n^2)}", 1.0),
    ("the membrane is dissolved by enzymes", "the membrane is dissolved by enzymes", 1.0),
    ("glucose", "", 0.0),
]


@pytest.mark.parametrize(("answer", "response", "score"), SHORT)
def test_a_short_answer_is_right_by_rule_or_left_to_a_judge(answer, response, score):
    verdict = TASKS["mmvu"].rules["evr1"](MMVU_OPEN | {"answer": answer}, response)
    assert verdict.score == score
    assert (verdict.extracted == "<JUDGE>") == (score is None)


REGIONS = [
    ("[10, 20]", "[10, 20]", 1.0),
    ("[10, 20]", "From 10 to 20 seconds.", 1.0),
    ("[10, 20]", "[10, 17]", 0.0),  # exactly 0.7 is too little
    ("[10, 20]", "[10, 18]", 1.0),
    (" [2, 21]", "<answer>[2, 21]</answer>", 1.0),
    ("[10, 20]", "", 0.0),
    ("[0, 0, 10, 10]", "[0, 0, 10, 10]", 1.0),
    ("[0, 0, 10, 10]", "[0, 0, 10, 5]", 0.0),  # exactly half
    ("[0, 0, 10, 10]", "[0, 0, 10, 6]", 1.0),
    ("[0, 0, 10, 10]", "I see no box.", 0.0),
    ("Kitchen", "The answer is kitchen.", 1.0),
    ("Kitchen", "A bedroom", None),
    ("Kitchen", "", 0.0),
]


@pytest.mark.parametrize(("answer", "response", "score"), REGIONS)
def test_spans_and_boxes_need_the_authors_overlap(answer, response, score):
    assert TASKS["vcr_bench"].rules["evr1"](VCR_OPEN | {"answer": answer}, response).score == score


def test_shares_of_steps_are_means_over_defined_ones():
    def reply(*judgments):
        steps = [{"step_type": f"{t} Steps", "judgment": j} for t, j in judgments]
        return json.dumps(steps)

    video, logic = "Video Description", "Logical Inference"
    half = reply((video, "Matched"), (video, "Unmatched"))
    recall = steps.shares(half, "recall")
    assert recall is not None
    assert (recall["Video_recall"], recall["logic_recall"]) == (0.5, "")
    found = reply((video, "Matched"), (logic, "Wrong"), (logic, "Redundant"), (video, "Redundant"))
    precision = steps.shares(found, "precision")
    assert precision is not None
    assert (precision["overall_precision"], precision["efficiency"]) == (0.5, 0.5)
    none = steps.shares(reply((video, "Unmatched")), "recall")
    assert none is not None
    rows = [Record(Sample("1", {}, ()), Verdict(each, 0.5)) for each in (recall | precision, none)]
    scores = steps.means(rows)
    assert scores["overall_recall"] == 0.25  # zeros count
    assert scores["overall_f1"] == pytest.approx(2 * 0.5 * 0.25 / 0.75)
    assert steps.means_as_vlmevalkit(rows)["overall_f1"] == 0.5
    assert steps.shares("no list", "recall") is steps.shares("[]", "precision") is None

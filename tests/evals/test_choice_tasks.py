"""Tasks with options from official files: what is loaded, and what our rule reads."""

import json

import miniatures
import pytest

from evr1.evals.tasks import TASKS
from evr1.evals.tasks.base import JUDGE, Media, Record
from evr1.evals.tasks.video_mme_v2 import score_group

MVBENCH = [
    {
        "video": "a.mp4",
        "question": "Which fruit is cut?",
        "candidates": ["Apple", "Pear", "Plum"],
        "answer": "Plum",
    },
    {
        "video": "b.mp4",
        "question": "Which fruit falls?",
        "candidates": ["Apple", "Pear", "Apple"],
        "answer": "Apple",
        "start": 1.5,
        "end": 9.0,
    },
]


NUMBERS = (1, 2, 3, 4)
# Task: ids; the medium and the tags of the last sample.
LOADED = {
    "video_mme": (
        [f"00{video}-{number}" for video in (1, 2) for number in (1, 2, 3)],
        Media("data/mini_vid1.mp4"),
        {
            "duration": "long",
            "domain": "Knowledge",
            "sub_category": "Geography",
            "task_type": "Attribute Perception",
            "subtitles": "no",
        },
    ),
    "video_mme_v2": (
        [f"00{video}-{number}" for video in NUMBERS for number in NUMBERS],
        Media("videos/004.mp4"),
        {"group_type": "logic", "level": "3", "second_head": "Motion"},
    ),
    "motionbench": (
        ["u0", "u1", "u2", "u3"],  # the answer of the fifth is hidden
        Media("MotionBench/public-dataset/clip3_10_40.mp4"),
        {"question_type": "Location-related Motion"},
    ),
    "lvbench": (
        [*(str(uid) for uid in range(20, 28)), "0", "1"],
        Media("videos/mini_key0.mp4"),
        {"capability": ("event understanding",), "video_type": "cartoon"},
    ),
    "mlvu": (
        [f"{kind}/1" for kind in ["plotQA", "needle", "ego", "count", "order", "anomaly_reco"]]
        + ["topic_reasoning/1"],
        Media("video/7_topic_reasoning/topic_reasoning_6.mp4"),
        {"kind": "topic_reasoning"},
    ),
    "video_holmes": (
        [f"film{film}/q{number}" for film in (0, 3) for number in (0, 1, 2)],
        Media("videos_cropped/film3.mp4"),
        {"question_type": "PAR"},
    ),
    "minerva": (
        [f"mini_yt{video}:{number}" for video in (0, 1, 2) for number in (0, 1)],
        Media("videos/mini_yt2.mkv"),
        {
            "question_type": ("Counting", "Reading"),
            "split": "short films",
            "category": "animation",
        },
    ),
    "longvideo_reason": (
        ["0", "1", "2", "3"],
        Media("longvideo_eval_subset2/long3.mp4"),
        {"problem_type": "spatial", "options": "four"},
    ),
}


@pytest.mark.parametrize("name", LOADED)
def test_files_give_samples(name, tmp_path):
    ids, medium, tags = LOADED[name]
    with pytest.raises(ValueError, match="holds no .*; download it there"):
        list(TASKS[name].load(tmp_path))
    miniatures.write(name, tmp_path)
    samples = list(TASKS[name].load(tmp_path))
    assert [sample.id for sample in samples] == ids
    assert samples[-1].media == (medium,)
    assert samples[-1].tags == tags
    json.dumps([sample.doc for sample in samples])


def test_mvbench_has_whole_videos_in_revision_main(tmp_path):
    miniatures.write("mvbench", tmp_path)
    samples = {sample.id: sample for sample in TASKS["mvbench"].load(tmp_path)}
    cut = Media("video/star/Charades_v1_480/0.mp4", start_s=1.0, end_s=3.0)
    assert samples["action_sequence/0"].media == (cut,)
    assert samples["action_antonym/0"].media == (Media("video/ssv2_video/0.webm"),)
    frames = Media("video/tvqa/frames_fps3_hq/0", start_s=0.5, end_s=2.5, frames_per_s=3.0)
    assert samples["episodic_reasoning/0"].media == (frames,)


BAD = {
    "video_mme": ("videomme/test-00000-of-00001.parquet", {"answer": "E"}, "'E' is none of A, B"),
    "video_mme_v2": ("test.parquet", {"answer": "J"}, "answer 'J' is none of A, B, C"),
    "motionbench": (
        "MotionBench/video_info.meta.jsonl",
        {"qa": [{"uid": "u0", "question": "Who?\nA. Tom\nB. Ann", "answer": "D"}]},
        "answer 'D' is none of A, B",
    ),
    "mvbench": (
        "json/action_count.json",
        {"answer": "Cherry"},
        "answer 'Cherry' is none of the candidates",
    ),
    "longvideobench": ("lvb_val.json", {"correct_choice": 6}, "answer 'G' is none of A, B, C, D"),
    "mlvu": ("json/1_plotQA.json", {"answer": "Spade"}, "answer 'Spade' is none of 'red'"),
    "mlvu_test": (
        "test-ground-truth/test_mcq_gt.json",
        {"answer": "Spade"},
        "answer 'Spade' is none of",
    ),
    "video_holmes": ("test_Video-Holmes.json", {"Answer": "G"}, "'G' is none of A, B, C, D, E, F"),
    "minerva": ("minerva.json", {"answer_id": None, "answer": "Axe"}, "'' is none of A, B, C"),
    "vcr_bench": ("v1/videos/meta_info_video.json", {"answer": "E"}, "'E' is none of A, B, C, D"),
    "mmvu": ("validation.json", {"answer": "F"}, "'F' is none of A, B, C, D, E"),
    "longvideo_reason": (
        "data/test-00000-of-00001.parquet",
        {"answer": "<answer>E</answer>"},
        "'<answer>E</answer>' is none of A, B, C, D",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_an_answer_outside_of_the_options_is_told(name, tmp_path):
    path, fields, message = BAD[name]
    miniatures.write(name, tmp_path)
    miniatures.change_row(tmp_path / path, **fields)
    with pytest.raises(ValueError, match=message) as error:
        list(TASKS[name].load(tmp_path))
    assert "\n" not in str(error.value)


def test_mvbench_with_cut_clips(tmp_path):
    data = {
        "root": {"Action Sequence": "star/Charades_segment/"},
        "meta": {"Action Sequence": MVBENCH},
    }
    (tmp_path / "test.json").write_text(json.dumps(data))
    samples = list(TASKS["mvbench"].load(tmp_path))
    assert samples[1].media == (Media("star/Charades_segment/b.mp4"),)
    assert [s.id for s in samples] == ["action_sequence/0", "action_sequence/1"]
    (tmp_path / "test.json").write_text(json.dumps({"root": {}, "meta": {"Juggling": MVBENCH}}))
    with pytest.raises(ValueError, match="no task 'Juggling'; there is action_antonym, "):
        list(TASKS["mvbench"].load(tmp_path))


@pytest.mark.parametrize("response", ["A", "C", "(C) Apple", "Apple"])
def test_mvbench_takes_each_of_equal_candidates(response):
    assert TASKS["mvbench"].rules["evr1"](MVBENCH[1], response).score == 1
    assert TASKS["mvbench"].rules["evr1"](MVBENCH[1], "B").score == 0


def results(name, samples, responses, profile="evr1"):
    rule, aggregate = TASKS[name].rules[profile], TASKS[name].aggregates[profile]
    return aggregate([Record(s, rule(s.doc, r)) for s, r in zip(samples, responses, strict=True)])


def test_groups_are_not_scored_by_halves(tmp_path):
    miniatures.write("video_mme_v2", tmp_path)
    samples = list(TASKS["video_mme_v2"].load(tmp_path))
    is_first = {"1": True, "2": True, "3": False, "4": False}
    half = results(
        "video_mme_v2",
        samples,
        [s.doc["answer"] if is_first[s.id[-1]] else "" for s in samples],
    )
    assert half["accuracy"] == 0.5
    assert half["group_type/relevance"] == 0.25
    # Chains of which two questions are right: of 16, 12 and 10 points.
    assert half["group_type/logic"] == pytest.approx((4 / 16 + 4 / 12 + 2 / 10) / 3)
    assert half["level/3"] == pytest.approx((4 / 12 + 2 / 10) / 2)
    # The authors take what they cannot read for right in a chain.
    assert results("video_mme_v2", samples, [""] * 16, "official")["group_type/logic"] == 1
    with pytest.raises(ValueError, match="no rule for a logic group of structure nothing"):
        score_group("logic", "nothing", [1, 1, 1, 1])


def test_tempcompass(tmp_path):
    task = TASKS["tempcompass"]
    with pytest.raises(ValueError, match="holds no multi-choice/test"):
        list(task.load(tmp_path))
    miniatures.write("tempcompass", tmp_path)
    samples = list(task.load(tmp_path))
    names = ["multi-choice", "yes_no", "caption_matching", "captioning"]
    dims = ["action", "direction"]
    assert [s.id for s in samples] == [f"{name}/mini1/{dim}/0" for name in names for dim in dims]
    assert samples[0].media == (Media("videos/mini1.mp4"),)
    assert samples[7].tags == {
        "task": "captioning",
        "dim": "direction",
        "task_dim": "captioning.direction",
    }
    for sample in samples[:6]:
        for response in ("", "North", "1 and 2", "Z"):
            assert task.rules["evr1"](sample.doc, response).score == 0, (sample.id, response)
    found = results("tempcompass", samples, ["B", "C", "no", "no", "2", "B", "It is red.", ""])
    assert found["mean_of_3"] == pytest.approx(2 / 3)
    assert "mean_of_4" not in found
    assert found["task/multi-choice"] == 1
    for profile in task.rules:
        assert task.rules[profile](samples[7].doc, "It is fast.").extracted == JUDGE


def test_tempcompass_of_its_repository(tmp_path):
    choice = {"question": "How fast?\nA. Slower\nB. Faster", "answer": "B. Faster"}
    questions = tmp_path / "questions"
    questions.mkdir()
    for name, row in (
        ("multi-choice", choice),
        ("yes_no", {"question": "Is it fast?", "answer": "yes"}),
        (
            "caption_matching",
            {"question": "Which?\nCaption A: x\nCaption B: y", "answer": "Caption A: x"},
        ),
        ("captioning", {"question": "Describe it.", "answer": ""}),
    ):
        (questions / f"{name}.json").write_text(json.dumps({"v1": {"speed": [row]}}))
    meta = {"v1": {"eval_dim": {"speed": {"type": "absolute speed"}}}}
    (tmp_path / "meta_info.json").write_text(json.dumps(meta))
    samples = list(TASKS["tempcompass"].load(tmp_path))
    assert len(samples) == 4
    assert samples[0].tags["type"] == "absolute speed"
    assert samples[3].doc["mc_answer"] == "B. Faster"
    wrong = {"v1": {"speed": [{"question": "Is it?", "answer": "perhaps"}]}}
    (questions / "yes_no.json").write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match="answer 'perhaps' is none of 'yes', 'no'"):
        list(TASKS["tempcompass"].load(tmp_path))


LMMS_EVAL = [  # question, labels that lmms-eval keeps
    ("Who?\nA. Tom\nB. Ann", "AB"),
    ("Who?\nA) Tom\nB: Ann", "AB"),
    ("Who?\n(A) Tom\n(B) Ann", ""),
    ("Who? A. Tom B. Ann", ""),
    ("Who?\nA. Tom\nB.Ann", "A"),
    ("Who?\nA. Tom\nB.\nC. Bob", "AB"),
]


@pytest.mark.parametrize(("question", "labels"), LMMS_EVAL)
def test_motionbench_options_as_lmms_eval_splits_them(question, labels):
    row = {"key": "k", "video_path": "k.mp4", "video_type": None, "question_type": "Camera Motion"}
    doc = row | {"qa": [{"uid": "u", "question": question, "answer": "A"}]}
    found = TASKS["motionbench"].facts["load", "lmms_eval"](doc, None).extracted
    assert "".join(option["label"] for each in found for option in each["options"]) == labels

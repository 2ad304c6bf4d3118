"""A made-up question of each benchmark, to show what its prompts look like."""

from collections.abc import Mapping
from typing import Any

from evr1.evals.tasks.base import Media, Sample

_QUESTION = "What does the cook add last?"
_TEXTS = ("Salt", "Basil", "Lemon juice", "Butter", "Cream", "Pepper", "Sugar", "Oil")
_LINES = [f"{letter}. {text}" for letter, text in zip("ABCDEFGH", _TEXTS, strict=True)]
_BRACKETED = "\n".join(f"({line[0]}){line[2:]}" for line in _LINES[:4])


def _sample(doc: Mapping[str, Any], tags: Mapping[str, Any], subtitles: str = "") -> Sample:
    return Sample("example", doc, (Media("videos/example.mp4"),), tags, subtitles=subtitles)


def _lettered(count: int) -> dict[str, str]:
    return dict(zip("ABCDEFGH"[:count], _TEXTS, strict=False))


_LONGVIDEOBENCH = {
    "question": _QUESTION,
    "candidates": list(_TEXTS[:5]),
    "correct_choice": 1,
    "duration_group": 60,
    "starting_timestamp_for_subtitles": 0,
    "duration": 58.2,
}
_LONGVIDEOBENCH_TAGS = {
    "duration_group": "60",
    "question_category": "T2E",
    "level": "L2-Relation",
    "topic_category": "CK-Cooking",
}
_MMVU = {
    "question_type": "multiple-choice",
    "question": _QUESTION,
    "choices": _lettered(5),
    "answer": "B",
}
_TUBE = {
    "question": "Who puts the lid on the pan?",
    "qtype": "interrogative",
    "fps": 25,
    "segment": [0, 250],
    "span": [50, 150],
    "width": 640,
    "height": 360,
    "boxes": {str(frame): [100, 50, 120, 240] for frame in range(50, 150)},
}

EXAMPLES: dict[str, Sample] = {
    "video_mme": _sample(
        {"question": _QUESTION, "options": _LINES[:4], "answer": "B"},
        {
            "duration": "short",
            "domain": "Life Record",
            "sub_category": "Food",
            "task_type": "Temporal Reasoning",
        },
        "subtitle/example.srt",
    ),
    "video_mme_v2": Sample(
        "example",
        {
            "question": _QUESTION,
            "options": "\n".join(_LINES),
            "answer": "B",
            "group_type": "relevance",
            "group_structure": "None",
            "question_id": "001-1",
        },
        (Media("videos/001.mp4"),),
        {"group_type": "relevance", "level": "2", "second_head": "Order", "third_head": "Steps"},
        "001",
        "subtitle/001.jsonl",
    ),
    "mvbench": _sample(
        {"question": _QUESTION, "candidates": list(_TEXTS[:4]), "answer": "Basil"},
        {"task": "action_sequence"},
    ),
    "tempcompass": _sample(
        {
            "task": "multi-choice",
            "question": "\n".join([_QUESTION, *_LINES[:4]]),
            "answer": _LINES[1],
        },
        {"task": "multi-choice", "dim": "order", "task_dim": "multi-choice.order", "type": "order"},
    ),
    "motionbench": _sample(
        {"qa": [{"question": "\n".join([_QUESTION, *_LINES[:4]]), "answer": "B"}]},
        {"question_type": "Action Order"},
    ),
    "lvbench": _sample(
        {"question": f"{_QUESTION}\n{_BRACKETED}", "answer": "B"},
        {"capability": ("temporal grounding", "reasoning"), "video_type": "lifestyle"},
    ),
    "longvideobench": _sample(_LONGVIDEOBENCH, _LONGVIDEOBENCH_TAGS),
    "longvideobench_sub": _sample(
        _LONGVIDEOBENCH, _LONGVIDEOBENCH_TAGS, "subtitles/example_en.json"
    ),
    "mlvu": _sample(
        {"question": _QUESTION, "candidates": list(_TEXTS[:4]), "answer": "Basil"},
        {"kind": "order"},
    ),
    "mlvu_test": _sample(
        {"question": _QUESTION, "candidates": list(_TEXTS[:6]), "answer": "Basil"},
        {"kind": "tutorialQA"},
    ),
    "mlvu_generation": _sample(
        {
            "question": "Describe how the cook seasons the sauce.",
            "answer": "She tastes it and adds basil.",
            "scoring_points": ["tastes", "adds basil"],
            "task": "sub_scene",
        },
        {"kind": "sub_scene"},
    ),
    "video_holmes": _sample(
        {"Question": _QUESTION, "Options": _lettered(6), "Answer": "B"}, {"question_type": "TCI"}
    ),
    "minerva": _sample(
        {
            "question": _QUESTION,
            "answer": "Basil",
            "answer_id": 1,
            **{f"answer_choice_{place}": text for place, text in enumerate(_TEXTS[:5])},
        },
        {"question_type": ("Event Occurrence",), "split": "short films", "category": "cooking"},
    ),
    "vcr_bench": _sample(
        {
            "question": _QUESTION + "\n".join(_LINES[:4]),
            "multiple-choice": True,
            "choices": _lettered(4),
            "answer": "B",
        },
        {"dimension": "Video Plot Analysis", "duration": "60-300", "kind": "choice"},
    ),
    "video_reason_bench": _sample(
        {
            "video": "videos/cup/state3_op5_end.mp4",
            "question": "Three cups hold one coin, and cups are swapped five times. Where is the "
            "coin at the start? Put your answer behind 'Final Answer:'.",
            "answer": "Cup 2",
            "dim": "order_state",
            "visible_time": "end",
            "num_state": 3,
            "num_operation": 5,
            "states": [],
            "moves": [],
        },
        {
            "demo": "cup",
            "dimension": "infer_state",
            "level": "infer",
            "visible_time": "end",
            "operations": "5-9",
            "states": "1",
        },
    ),
    "longvideo_reason": _sample(
        {"problem": "\n".join([_QUESTION, *_LINES[:4]]), "answer": "<answer>B</answer>"},
        {"problem_type": "temporal", "options": "four"},
    ),
    "mmvu": _sample(
        _MMVU,
        {"question_type": "multiple-choice", "discipline": "Science", "subject": "Chemistry"},
    ),
    "video_mmmu": _sample(
        {
            "id": "validation_Art_1",
            "question": _QUESTION,
            "options": list(_TEXTS),
            "answer": "B",
            "question_type": "multiple-choice",
        },
        {"track": "Perception", "discipline": "Art", "subject": "Art"},
    ),
    "video_math_qa": _sample(
        {"question": "How long is the side?", "options": _LINES[:5], "answer": "B"},
        {"format": "mcq", "length": "short", "category": "Geometry Length"},
        "subtitles/example.srt",
    ),
    "vsi_bench": _sample(
        {
            "question_type": "object_counting",
            "question": "How many chairs are in this room?",
            "ground_truth": "4",
            "options": None,
        },
        {"question_type": "object_counting", "dataset": "scannet"},
    ),
    "charades_sta": _sample(
        {"video": "EXAMP.mp4", "caption": "a person puts on shoes.", "timestamp": [4.2, 11.0]}, {}
    ),
    "stvg": _sample(_TUBE, {"qtype": "interrogative"}),
    "ovo_bench": _sample(
        {"task": "EPM", "question": _QUESTION, "options": list(_TEXTS[:4]), "gt": 1},
        {"task": "EPM", "category": "backward"},
    ),
    "odv_bench": _sample(
        {
            "question": "Which way does the van turn?",
            "candidates": ["Left", "Right", "It does not turn"],
            "answer": "Left",
        },
        {"config": "dynamic", "task": "Prediction", "subtask": "Turns"},
    ),
    "livesports3k_qa": _sample(
        {
            "question": "Who takes the corner?",
            "options": ["A: Number 4", "B: Number 7", "C: Number 9", "D: Number 11"],
            "answer": "B",
        },
        {"q_type": "Who", "OCR": "yes"},
    ),
}

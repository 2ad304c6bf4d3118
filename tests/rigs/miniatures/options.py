"""Miniatures of the benchmarks with options whose videos are short, or cut."""

import json
from pathlib import Path

from . import scenes
from .files import Mini, of_question, write_rows, write_srt, write_text
from .scenes import ask


def video_mme(folder: Path) -> Mini:
    """Three questions a video; one of the two videos has subtitles."""
    rows, golds = [], {}
    for scene, duration in enumerate(("short", "long")):
        name = f"mini_vid{scene}"
        scenes.write(folder / "data" / f"{name}.mp4", scene)
        for number in range(3):
            question = ask(scene, number)
            golds[f"00{scene + 1}-{number + 1}"] = of_question(question)
            rows.append(
                {
                    "video_id": f"00{scene + 1}",
                    "duration": duration,
                    "domain": "Knowledge",
                    "sub_category": "Geography",
                    "url": "",
                    "videoID": name,
                    "question_id": f"00{scene + 1}-{number + 1}",
                    "task_type": ("Attribute Perception", "Object Recognition")[number % 2],
                    "question": question.text,
                    "options": [f"{line}." for line in question.lines()],
                    "answer": question.letter,
                }
            )
    write_rows(folder / "videomme" / "test-00000-of-00001.parquet", rows)
    lines = [(0.2, 1.4, "Look,"), (1.5, 2.2, "it starts\non the left."), (3.0, 3.9, "It is there!")]
    write_srt(folder / "subtitle" / "mini_vid0.srt", lines)
    counts = {
        "duration": {"short": 3, "long": 3},
        "domain": {"Knowledge": 6},
        "sub_category": {"Geography": 6},
        "task_type": {"Attribute Perception": 4, "Object Recognition": 2},
        "subtitles": {"no": 3, "yes": 3},
    }
    return Mini(6, counts, golds)


def video_mme_v2(folder: Path) -> Mini:
    """Groups of four questions on a video, one of each kind; every word of subtitles is timed."""
    groups = (
        ("relevance", "None", "1"),
        ("logic", "[1, 2, 3, 4]", "2"),
        ("logic", "[1, [2, 3], 4]", "3"),
        ("logic", "[[1, 2], 3, 4]", "3"),
    )
    rows, golds = [], {}
    for scene, (kind, structure, level) in enumerate(groups):
        name = f"{scene + 1:03}"
        scenes.write(folder / "videos" / f"{name}.mp4", scene)
        words = [
            {"text": word, "start_time": 0.5 * place, "end_time": 0.5 * place + 0.4}
            for place, word in enumerate(["Look", "at", "it", "move."])
        ]
        write_rows(folder / "subtitle" / f"{name}.jsonl", words)
        for number in range(4):
            question, last = ask(scene, number, 8), number == 3
            golds[f"{name}-{number + 1}"] = of_question(question)
            rows.append(
                {
                    "video_id": name,
                    "url": "",
                    "group_type": kind,
                    "group_structure": structure,
                    "question_id": f"{name}-{number + 1}",
                    "question": question.text,
                    "options": "\n".join(question.lines()),
                    "answer": question.letter,
                    "level": level if last else None,
                    "second_head": "Motion" if last else None,
                    "third_head": None,
                }
            )
    write_rows(folder / "test.parquet", rows)
    counts = {
        "group_type": {"relevance": 4, "logic": 12},
        "level": {"1": 1, "2": 1, "3": 2},
        "second_head": {"Motion": 4},
    }
    return Mini(16, counts, golds)


# Revision main: task -> folder under video/, ending, bounds. Those of episodic_reasoning are
# folders of frames, and no files; its rows are left out.
_MVBENCH = {
    "action_antonym": ("ssv2_video", "webm", None),
    "action_count": ("perception/videos", "mp4", None),
    "action_localization": ("sta/sta_video", "mp4", (0.5, 2.5)),
    "action_prediction": ("star/Charades_v1_480", "mp4", (0.0, 1.5)),
    "action_sequence": ("star/Charades_v1_480", "mp4", (1.0, 3.0)),
    "character_order": ("perception/videos", "mp4", None),
    "counterfactual_inference": ("clevrer/video_validation", "mp4", None),
    "egocentric_navigation": ("vlnqa", "mp4", None),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", "", (0.5, 2.5)),
    "fine_grained_action": ("Moments_in_Time_Raw/videos", "mp4", None),
    "fine_grained_pose": ("nturgbd", "avi", None),
    "moving_attribute": ("clevrer/video_validation", "mp4", None),
    "moving_count": ("clevrer/video_validation", "mp4", None),
    "moving_direction": ("clevrer/video_validation", "mp4", None),
    "object_existence": ("clevrer/video_validation", "mp4", None),
    "object_interaction": ("star/Charades_v1_480", "mp4", (0.5, 2.0)),
    "object_shuffle": ("perception/videos", "mp4", None),
    "scene_transition": ("scene_qa/video", "mp4", None),
    "state_change": ("perception/videos", "mp4", None),
    "unexpected_action": ("FunQA_test/test", "mp4", None),
}


def mvbench(folder: Path) -> Mini:
    """A question a task, as in revision main: whole videos with bounds, one as images."""
    golds = {}
    for place, (task, (root, ending, bounds)) in enumerate(_MVBENCH.items()):
        question = ask(place % 4, place, 3 + place % 3)
        golds[f"{task}/0"] = of_question(question)
        video = f"{place % 4}.{ending}".rstrip(".")  # other folders have the same names
        write = scenes.write if ending else scenes.write_frames
        write(folder / "video" / root / video, place % 4)
        row = {
            "video": video,
            "question": question.text,
            "candidates": question.options,
            "answer": question.answer,
        }
        row |= {"start": bounds[0], "end": bounds[1]} if bounds else {}
        write_rows(folder / "json" / f"{task}.json", [row])
    return Mini(20, {"task": dict.fromkeys(_MVBENCH, 1)}, golds)


def motionbench(folder: Path) -> Mini:
    """A question a video; the answer of one of five is hidden."""
    rows, golds = [], {}
    for place in range(5):
        question, is_hidden = ask(place % 4, place, (4, 4, 3, 2, 4)[place]), place == 4
        part = "public-dataset" if place % 2 else "self-collected"
        name = f"clip{place}_10_40.mp4" if place % 2 else f"clip{place}.mp4"
        scenes.write(folder / "MotionBench" / part / name, place % 4)
        if not is_hidden:
            golds[f"u{place}"] = of_question(question)
        qa = {
            "uid": f"u{place}",
            "start": None,
            "end": None,
            "answer": "NA" if is_hidden else question.letter,
            "question": "\n".join([question.text, *question.lines()]),
        }
        rows.append(
            {
                "key": f"k{place}",
                "question_type": "Action Order" if place < 2 else "Location-related Motion",
                "video_type": None,
                "video_path": name,
                "video_info": {"duration": scenes.SCENES[place % 4].seconds, "fps": scenes.FPS},
                "qa": [qa],
            }
        )
    write_rows(folder / "MotionBench" / "video_info.meta.jsonl", rows)
    types = {"Action Order": 2, "Location-related Motion": 2}
    return Mini(4, {"question_type": types}, golds)


def video_holmes(folder: Path) -> Mini:
    """Three questions a film, six options each."""
    rows, golds = [], {}
    for scene in (0, 3):
        scenes.write(folder / "videos_cropped" / f"film{scene}.mp4", scene)
        for number, kind in enumerate(("SR", "TCI", "PAR")):
            question = ask(scene, number + 3, 6)
            golds[f"film{scene}/q{number}"] = of_question(question)
            rows.append(
                {
                    "video ID": f"film{scene}",
                    "Question ID": f"q{number}",
                    "Question Type": kind,
                    "Question": question.text,
                    "Options": dict(zip("ABCDEF", question.options, strict=True)),
                    "Answer": question.letter,
                    "Explanation": "One sees it.",
                }
            )
    write_rows(folder / "test_Video-Holmes.json", rows)
    return Mini(6, {"question_type": {"SR": 2, "TCI": 2, "PAR": 2}}, golds)


def odv_bench(folder: Path) -> Mini:
    """Two questions a file, on clips of one video; an answer is a text."""
    golds = {}
    configs = {
        "static": "targeting_single_static_objects_v4",
        "dynamic": "targeting_single_dynamic_objects_v4",
        "multi_agent": "targeting_multi_object_interaction_scenarios_or_events_v4",
    }
    for scene, (config, name) in enumerate(configs.items()):
        rows = []
        scenes.write(folder / "videos" / "drives" / f"{scene}.mp4", scene)
        for number in range(2):
            question = ask(scene, number)
            golds[f"{config}_{number}"] = of_question(question)
            rows.append(
                {
                    "video": f"drives/{scene}.mp4",
                    "start": 0.5 * number,
                    "end": 1.5 + number,
                    "question": question.text,
                    "candidates": question.options,
                    "answer": question.answer,
                    "task": "Real-time",
                    "subtask": "Signs",
                }
            )
            if number:
                rows[-1]["subsubtask"] = "Far"
        write_rows(folder / "anno" / "eval" / "ODVBench" / f"{name}.json", rows)
    counts = {
        "config": dict.fromkeys(configs, 2),
        "task": {"Real-time": 6},
        "subtask": {"Signs": 6},
        "subsubtask": {"Far": 3},
    }
    return Mini(6, counts, golds)


def livesports3k_qa(folder: Path) -> Mini:
    """Three questions a clip, two clips of a video."""
    clips, golds = [], {}
    scenes.write(folder / "videos" / "match.mp4", 2)
    for begin, end in ((0.5, 3.0), (3.0, 5.5)):
        questions = []
        for number, kind in enumerate(("Who", "When", "What")):
            question, name = ask(2, number + round(begin)), f"e{round(begin)}_q{number}"
            golds[f"match_{begin:g}_{name}"] = of_question(question)
            questions.append(
                {
                    "question_id": name,
                    "q_type": kind,
                    "OCR": int(kind == "When"),
                    "question": question.text,
                    "options": [f"{line}." for line in question.lines("{letter}: {text}")],
                    "answer": question.letter,
                }
            )
        clip = {"video_id": "match", "video": "match.mp4", "begin": begin, "end": end}
        clips.append(clip | {"questions": questions})
    write_text(folder / "LiveSports-3K-QA.json", json.dumps(clips))
    kinds = {"Who": 2, "When": 2, "What": 2}
    return Mini(6, {"q_type": kinds, "OCR": {"yes": 2, "no": 4}}, golds)

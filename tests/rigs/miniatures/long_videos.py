"""Miniatures of the benchmarks with options whose videos are long."""

from pathlib import Path

from . import scenes
from .files import Mini, of_question, write_rows
from .scenes import ask


def lvbench(folder: Path) -> Mini:
    """Eight questions on one video, two on another."""
    rows, golds = [], {}
    for scene, count in ((2, 8), (0, 2)):
        questions = []
        for number in range(count):
            question, uid = ask(scene, number), str(10 * scene + number)
            golds[uid] = of_question(question)
            labels = ["reasoning", "entity recognition"] if number == 0 else ["event understanding"]
            questions.append(
                {
                    "uid": uid,
                    "question": "\n".join([question.text, *question.lines("({letter}) {text}")]),
                    "answer": question.letter,
                    "question_type": labels,
                    "time_reference": "00:01-00:03",
                }
            )
        scenes.write(folder / "videos" / f"mini_key{scene}.mp4", scene)
        rows.append(
            {
                "key": f"mini_key{scene}",
                "type": "sport" if scene else "cartoon",
                "video_info": {"resolution": {"width": scenes.WIDTH, "height": scenes.HEIGHT}},
                "qa": questions,
            }
        )
    write_rows(folder / "video_info.meta.jsonl", rows)
    capabilities = {"reasoning": 2, "entity recognition": 2, "event understanding": 8}
    return Mini(10, {"capability": capabilities, "video_type": {"sport": 8, "cartoon": 2}}, golds)


def longvideobench(folder: Path) -> Mini:
    """Two questions a clip; subtitles of both forms, one with times of the uncut video."""
    rows, golds = [], {}
    offsets = {1: 60.0, 2: 0.0}  # where a clip starts in the time of its subtitles
    for scene, offset in offsets.items():
        scenes.write(folder / "videos" / f"v{scene}.mp4", scene)
        for number in range(2):
            question = ask(scene, number, 5 - number)
            golds[f"v{scene}_{number}"] = of_question(question)
            rows.append(
                {
                    "video_id": f"v{scene}",
                    "question": f"When it says “It moves”: {question.text}",
                    "question_wo_referring_query": question.text,
                    "candidates": question.options,
                    "correct_choice": question.place,
                    "position": [8],
                    "topic_category": "KG-Knowledge-Geography",
                    "question_category": "S2E" if number else "T2E",
                    "level": "L1-Perception",
                    "id": f"v{scene}_{number}",
                    "video_path": f"v{scene}.mp4",
                    "subtitle_path": f"v{scene}_en.json",
                    "duration_group": 15,
                    "starting_timestamp_for_subtitles": offset,
                    "duration": float(scenes.SCENES[scene].seconds),
                    "view_count": 100,
                }
            )
    write_rows(folder / "lvb_val.json", rows)
    clocked = [
        {"start": "00:01:00.100", "end": "00:01:01.300", "line": "It moves"},
        {"start": "00:01:01.400", "end": "00:01:02.900", "line": "to the other side."},
    ]
    timed = [
        {"timestamp": [0.5, 2.5], "text": "It moves"},
        {"timestamp": [4.0, None], "text": "and stops."},
    ]
    for scene, lines in ((1, clocked), (2, timed)):
        write_rows(folder / "subtitles" / f"v{scene}_en.json", lines)
    counts = {
        "duration_group": {"15": 4},
        "question_category": {"S2E": 2, "T2E": 2},
        "level": {"L1-Perception": 4},
        "topic_category": {"KG-Knowledge-Geography": 4},
    }
    return Mini(4, counts, golds)


_MLVU = ["plotQA", "needle", "ego", "count", "order", "anomaly_reco", "topic_reasoning"]


def mlvu(folder: Path) -> Mini:
    """A question a kind, and an empty row."""
    golds = {}
    for place, kind in enumerate(_MLVU):
        question = ask(place % 4, place)
        video = f"{kind}_{place}.mp4"
        row = {
            "video": video,
            "duration": float(scenes.SCENES[place % 4].seconds),
            "question": question.text,
            "candidates": question.options,
            "answer": question.answer,
            "question_type": {"needle": "findNeedle"}.get(kind, kind),
        }
        empty = row | {"question": "", "candidates": [], "answer": ""}
        scenes.write(folder / "video" / f"{place + 1}_{kind}" / video, place % 4)
        write_rows(folder / "json" / f"{place + 1}_{kind}.json", [row] + [empty] * (place == 0))
        golds[f"{kind}/1"] = of_question(question)
    return Mini(7, {"kind": dict.fromkeys(_MLVU, 1)}, golds)


def mlvu_generation(folder: Path) -> Mini:
    """A question about a scene, with points, and one for a summary."""
    for place, kind in ((8, "sub_scene"), (9, "summary")):
        scenes.write(folder / "video" / f"{place}_{kind}" / f"{kind}.mp4", place - 8)
        row = {
            "video": f"{kind}.mp4",
            "duration": float(scenes.SCENES[place - 8].seconds),
            "question": "What happens?",
            "answer": f"It goes {scenes.SCENES[place - 8].way}.",
            "question_type": kind,
        }
        row |= {"scoring_points": ["it moves", "its way"]} if kind == "sub_scene" else {}
        write_rows(folder / "json" / f"{place}_{kind}.json", [row])
    return Mini(2, {"kind": {"sub_scene": 1, "summary": 1}}, {})


def mlvu_test(folder: Path) -> Mini:
    """Three kinds with six options."""
    rows, golds = [], {}
    for place, kind in enumerate(("anomaly_reco", "sportsQA", "tutorialQA", "sportsQA")):
        question, name = ask(place, place + 2, 6), f"{kind[:2].upper()}_{place}"
        scenes.write(folder / "video" / f"test_{kind}_{place}.mp4", place)
        golds[name] = of_question(question)
        rows.append(
            {
                "question_id": name,
                "question_type": kind,
                "video": f"test_{kind}_{place}.mp4",
                "duration": float(scenes.SCENES[place].seconds),
                "question": question.text,
                "candidates": question.options,
                "answer": question.answer,
            }
        )
    write_rows(folder / "test-ground-truth" / "test_mcq_gt.json", rows)
    return Mini(4, {"kind": {"anomaly_reco": 1, "sportsQA": 2, "tutorialQA": 1}}, golds)


def minerva(folder: Path) -> Mini:
    """Videos in whatever container they were had; a question may be of several types."""
    rows, golds = [], {}
    for scene, ending in enumerate(("mp4", "webm", "mkv")):
        scenes.write(folder / "videos" / f"mini_yt{scene}.{ending}", scene)
        for number in range(2):
            question, key = ask(scene, number, 5), f"mini_yt{scene}:{number}"
            golds[key] = of_question(question)
            rows.append(
                {
                    "key": key,
                    "video_id": f"mini_yt{scene}",
                    "question": question.text,
                    "answer": question.answer,
                    "answer_id": question.place,
                    **{f"answer_choice_{i}": text for i, text in enumerate(question.options)},
                    "reasoning": "At 00:01 one sees it.",
                    "question_type": "Counting, Reading" if number else "Spatial Perception",
                    "split": "short films" if scene else "sports",
                    "category": "animation",
                }
            )
    write_rows(folder / "minerva.json", rows)
    counts = {
        "question_type": {"Counting": 3, "Reading": 3, "Spatial Perception": 3},
        "split": {"short films": 4, "sports": 2},
        "category": {"animation": 6},
    }
    return Mini(6, counts, golds)


def longvideo_reason(folder: Path) -> Mini:
    """Videos of three containers, where two archives unpack them."""
    rows, golds = [], {}
    types = ("temporal", "goal", "plot", "spatial")
    for place, (kind, ending) in enumerate(zip(types, ("mp4", "webm", "mkv", "mp4"), strict=True)):
        question = ask(place, place + 1)
        root = folder / f"longvideo_eval_subset{1 + place % 2}"
        scenes.write(root / f"long{place}.{ending}", place)
        golds[str(place)] = of_question(question)
        rows.append(
            {
                "problem": "\n".join([question.text, *question.lines()]),
                "answer": f"<answer>{question.letter}</answer>",
                "videos": f"longvila_videos/long{place}.{ending}",
                "problem_id": place,
                "problem_type": kind,
            }
        )
    write_rows(folder / "data" / "test-00000-of-00001.parquet", rows)
    return Mini(4, {"problem_type": dict.fromkeys(types, 1), "options": {"four": 4}}, golds)

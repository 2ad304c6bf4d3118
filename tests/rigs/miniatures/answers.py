"""Miniatures of the benchmarks whose answers are also numbers, words, spans, boxes or plans."""

import json
from pathlib import Path

from . import plans, scenes
from .files import Gold, Mini, of_letter, of_question, of_span, of_word, write_rows, write_srt
from .scenes import ask


def tempcompass(folder: Path) -> Mini:
    """Two dimensions of a video in all four sub-tasks; captions are left to a judge."""
    golds, tables = {}, {}
    scenes.write(folder / "videos" / "mini1.mp4", 0)
    for number, dim in ((1, "action"), (2, "direction")):
        question = ask(0, number, 3)
        listed = "\n".join([question.text, *question.lines()])
        line = question.lines()[question.place]
        right, wrong = f"It goes {scenes.SCENES[0].way}.", "It does not move."
        captions = f"Which caption fits?\nOption 1: {wrong}\nOption 2: {right}"
        rows = {
            "multi-choice": {"question": listed, "answer": line},
            "yes_no": {"question": f"Is it {question.answer}?", "answer": "yes"},
            "caption_matching": {"question": captions, "answer": f"Option 2: {right}"},
            "captioning": {
                "question": "Tell what happens.\nGenerated Caption:",
                "answer": "",
                "mc_question": listed,
                "mc_answer": line,
            },
        }
        for task, row in rows.items():
            tables.setdefault(task, []).append({"video_id": "mini1", "dim": dim} | row)
        golds[f"multi-choice/mini1/{dim}/0"] = of_question(question)
        golds[f"yes_no/mini1/{dim}/0"] = of_word("yes", "no")
        forms = ("Option 2", "2", "B", "**Option 2**", f"Option 2: {right}", right.rstrip("."))
        golds[f"caption_matching/mini1/{dim}/0"] = Gold(forms, "Option 1")
    for task, listed in tables.items():
        write_rows(folder / task / "test-00000-of-00001.parquet", listed)
    counts = {
        "task": dict.fromkeys(tables, 2),
        "dim": {"action": 4, "direction": 4},
        "task_dim": {f"{task}.{dim}": 1 for task in tables for dim in ("action", "direction")},
    }
    return Mini(8, counts, golds)


def vcr_bench(folder: Path) -> Mini:
    """An option, a span, a box and a short answer."""
    question = ask(0, 0)
    # The first option follows the question without a blank.
    asked = question.text + "\n".join(question.lines()) + "\n"
    choices = dict(zip("ABCD", question.options, strict=True))
    none = dict.fromkeys("ABCD", "")
    kinds = (
        ("Video Plot Analysis", 40, asked, choices, question.letter),
        ("Video Temporal Grounding", 179, "When does the disc move? [start, end]", none, "[1, 3]"),
        ("Temporal Spatial Grounding", 40, "Where is it?", none, "[10, 20, 40, 60]"),
        ("Video Knowledge Reasoning", 400, "What do we call a thing like it?", none, "Crucifix"),
    )
    rows = []
    for place, (dimension, seconds, text, options, answer) in enumerate(kinds):
        scenes.write(folder / "v1" / "videos" / "video" / "set" / f"{place}.mp4", place)
        rows.append(
            {
                "id": place,
                "video_path": f"video/set/{place}.mp4",
                "duration": seconds,
                "dimension": dimension,
                "question": text,
                "multiple-choice": options is choices,
                "choices": options,
                "answer": answer,
                "reasoning": ["1. 0:01-0:02, it comes in.", "2. It goes on."],
            }
        )
    write_rows(folder / "v1" / "videos" / "meta_info_video.json", rows)
    span = ("[1, 3]", "<answer>[1, 3]</answer>", "From 1 to 3 seconds.")
    box = ("[10, 20, 40, 60]", "<answer>[10, 20, 40, 60]</answer>")
    golds = {
        "0": of_question(question),
        "1": Gold(span, "[1, 2]"),
        "2": Gold(box, "[10, 20, 40, 40]"),
        "3": of_word("Crucifix", "Circle"),
    }
    counts = {
        "dimension": {dimension: 1 for dimension, *_ in kinds},
        "duration": {"0-60": 2, "60-300": 1, "300+": 1},
        "kind": {"choice": 1, "span": 1, "box": 1, "open": 1},
    }
    return Mini(4, counts, golds)


def video_reason_bench(folder: Path) -> Mini:
    """A plan and an answer on each of the six demonstrations."""
    golds = {}
    for place, demo in enumerate(plans.QUESTIONS):
        rows = {
            "state3_op5_prediction_operation_start": plans.plan_row(demo),
            "state3_op12_order_state_start": plans.answer_row(demo),
        }
        for (key, row), gold in zip(
            rows.items(), (plans.GOLD[demo], "2 chips: 20, 5"), strict=True
        ):
            scenes.write(folder / row["video"], place % 4)
            forms = tuple(form.format(gold) for form in plans.FORMS)
            golds[f"{demo}_{key}"] = Gold(forms, f"Final Answer: {plans.DAMAGED[demo]}")
        bare = {k: {n: v for n, v in row.items() if n != "demo"} for k, row in rows.items()}
        (folder / "questions").mkdir(exist_ok=True)
        (folder / "questions" / f"{demo}.json").write_text(json.dumps(bare), "utf-8")
    counts = {
        "level": {"predict": 6, "infer": 6},
        "dimension": {"prediction_operation": 6, "infer_state": 6},
        "demo": dict.fromkeys(plans.QUESTIONS, 2),
        "visible_time": {"start": 12},
        "operations": {"5-9": 6, "10-14": 6},
        "states": {"1": 12},
    }
    return Mini(12, counts, golds)


def mmvu(folder: Path) -> Mini:
    """Two questions with options and one for a short answer on a video, by subject."""
    rows, golds = [], {}
    for scene, subject in ((1, "Biology"), (2, "Civil_Engineering")):
        scenes.write(folder / "videos" / subject / f"{scene}.mp4", scene)
        for number in range(3):
            question, is_open = ask(scene, number, 5), number == 1
            name, gold = f"validation_{3 * scene + number}", question.answer.capitalize()
            golds[name] = of_word(gold, "Something else") if is_open else of_question(question)
            choices = [""] * 5 if is_open else question.options
            rows.append(
                {
                    "id": name,
                    "video": "https://huggingface.co/datasets/yale-nlp/MMVU/resolve/main/videos/"
                    f"{subject}/{scene}.mp4",
                    "youtube_url": "",
                    "question_type": "open-ended" if is_open else "multiple-choice",
                    "question": question.text,
                    "answer": gold if is_open else question.letter,
                    "choices": dict(zip("ABCDE", choices, strict=True)),
                    "metadata": {"subject": subject, "rationale": "One sees it.", "knowledge": []},
                }
            )
    write_rows(folder / "validation.json", rows)
    counts = {
        "question_type": {"multiple-choice": 4, "open-ended": 2},
        "discipline": {"Science": 3, "Engineering": 3},
        "subject": {"Biology": 3, "Civil_Engineering": 3},
    }
    return Mini(6, counts, golds)


def video_mmmu(folder: Path) -> Mini:
    """One lecture an id: asked about in two tracks, applied to a question's image in the third."""
    tracks, golds = {name: [] for name in ("perception", "comprehension", "adaptation")}, {}
    lectures = (("validation_Art_Theory_3", "Art", 0), ("new_Physics_1", "Science", 3))
    for name, discipline, scene in lectures:
        scenes.write(folder / discipline / f"{name}.mp4", scene)
        scenes.write(folder / "question_only" / f"{name}_image.mp4", scene)
        scenes.write(folder / "images" / f"{name}.png", scene)
        for number, (track, rows) in enumerate(tracks.items()):
            question = ask(scene, number, 10 if track == "perception" else 4)
            is_open = track == "adaptation" and scene == 3
            row = {
                "id": name,
                "question": question.text,
                "options": [] if is_open else question.options,
                "answer": "12" if is_open else question.letter,
                "question_type": "open" if is_open else "multiple-choice",
            }
            gold = of_word("12", "13") if is_open else of_question(question)
            golds[f"{track}/{name}"] = gold
            if track == "adaptation":
                row["question"] = f"<image 1> {question.text}"
                row["image"] = {"bytes": scenes.picture(scene), "path": f"{name}.png"}
                golds[f"question_only/{name}"] = gold
            rows.append(row)
    for track, rows in tracks.items():
        write_rows(folder / track.capitalize() / "test-00000-of-00001.parquet", rows)
    counts = {
        "track": dict.fromkeys((*tracks, "question_only"), 2),
        "discipline": {"Art": 4, "Science": 4},
        "subject": {"Art_Theory": 4, "Physics": 4},
    }
    return Mini(8, counts, golds)


def video_math_qa(folder: Path) -> Mini:
    """Two questions, each with five options and as four pairs; one video has subtitles."""
    forms, golds = {"mcq": [], "multi_binary": []}, {}
    for scene, category in ((0, "Counting"), (2, "Chart")):
        question, name = ask(scene, scene + 2, 5), f"mini_v{scene}"
        scenes.write(folder / "videos" / f"{name}.{('mp4', '', 'mkv')[scene]}", scene)
        row = {
            "question_id": str(scene),
            "videoID": name,
            "question": question.text,
            "options": question.lines(),
            "answer": question.letter,
            "category": category,
            "length": "long" if scene else "short",
        }
        forms["mcq"].append(row)
        golds[f"mcq/{scene}"] = of_question(question)
        others = [text for text in question.options if text != question.answer]
        for number, other in enumerate(others):
            place = (number + scene) % 2
            pair = [other, question.answer] if place else [question.answer, other]
            lines = [f"A. {pair[0]}", f"B. {pair[1]}"]
            changed = {"options": lines, "answer": "AB"[place], "mbinary_id": number}
            forms["multi_binary"].append(row | changed)
            golds[f"mbin/{scene}/{number + 1}"] = of_letter("AB"[place], question.answer)
    for form, rows in forms.items():
        write_rows(folder / form / "test-00000-of-00001.parquet", rows)
    lines = [(0.0, 1.0, "How many"), (1.0, 2.5, "triangles are there?")]
    write_srt(folder / "subtitles" / "mini_v0.srt", lines)
    counts = {
        "format": {"mcq": 2, "mbin": 8},
        "length": {"short": 5, "long": 5},
        "category": {"Counting": 5, "Chart": 5},
    }
    return Mini(10, counts, golds)


def vsi_bench(folder: Path) -> Mini:
    """Every type of questions, on two rooms."""
    rows, golds = [], {}
    types = (
        ("object_counting", "How many chair(s) are in this room?", "4"),
        ("object_abs_distance", "How far is the lamp from the door (in metres)?", "2.5"),
        ("object_size_estimation", "How long is the table (in centimetres)?", "120"),
        ("room_size_estimation", "How large is this room (in square metres)?", "21.5"),
        ("object_rel_distance", "", 4),
        ("object_rel_direction_easy", "", 2),
        ("object_rel_direction_medium", "", 3),
        ("object_rel_direction_hard", "", 4),
        ("route_planning", "", 3),
        ("obj_appearance_order", "", 4),
    )
    for place, (kind, text, gold) in enumerate(types):
        scene, dataset = place % 2, ("scannet", "arkitscenes")[place % 2]
        question = ask(scene, place, gold if isinstance(gold, int) else 4)
        is_number = isinstance(gold, str)
        golds[str(place)] = (
            of_word(gold, str(1.3 * float(gold))) if is_number else of_question(question)
        )
        rows.append(
            {
                "id": place,
                "dataset": dataset,
                "scene_name": f"scene{scene}",
                "question_type": kind,
                "question": text or question.text,
                "ground_truth": gold if is_number else question.letter,
                "options": None if is_number else question.lines(),
            }
        )
        scenes.write(folder / dataset / f"scene{scene}.mp4", scene)
    write_rows(folder / "test-00000-of-00001.parquet", rows)
    counts = {
        "question_type": {kind: 1 for kind, *_ in types},
        "dataset": {"scannet": 5, "arkitscenes": 5},
    }
    return Mini(10, counts, golds)


def charades_sta(folder: Path) -> Mini:
    """Three sentences on a video, one on another."""
    spans = (
        ("MINI0.mp4", "the triangle comes in.", [0.0, 1.5]),
        ("MINI0.mp4", "the triangle goes down.", [1.0, 4.6]),
        ("MINI0.mp4", "the triangle touches the ground.", [4.8, 6.0]),
        ("MINI1.mp4", "a disc rolls to the left.", [0.6, 2.7]),
    )
    rows = [dict(zip(("video", "caption", "timestamp"), row, strict=True)) for row in spans]
    write_rows(folder / "data" / "test-00000-of-00001.parquet", rows)
    for name, scene in (("MINI0.mp4", 2), ("MINI1.mp4", 1)):
        scenes.write(folder / "Charades_v1_480" / name, scene)
    return Mini(4, {}, {f"{video}:{caption}": of_span(*span) for video, caption, span in spans})


def stvg(folder: Path) -> Mini:
    """Two sentences of ST-Align on a segment, with VidSTG's frame rates."""
    rows, golds = [], {}
    for number, text in enumerate(("Who goes to the right?", "a square goes to the right.")):
        boxes = {str(f): [2 * f, 20, 20, 20] for f in range(10, 27)}
        rows.append(
            {
                "video_path": "set/v0.mp4",
                "meta": {
                    "split": [4, 31],  # eight frames a second: half a second in
                    "width": scenes.WIDTH,
                    "height": scenes.HEIGHT,
                    "time_token": {"<s>": 12, "<e>": 26},
                    "spatial_token": {"<bboxes>": boxes},
                },
                "conversations": [{"value": f"<video>\n{text}"}, {"value": ""}],
            }
        )
        shown = {}  # at 1 and 2 s of the segment, in thousandths
        for second in (1, 2):
            x = 2 * (4 + scenes.FPS * second)
            corners = (x / 96, 20 / 64, (x + 20) / 96, 40 / 64)
            shown[str(second)] = [round(1000 * corner, 6) for corner in corners]
        plain = json.dumps({"time": [1.0, 2.75], "boxes": shown})
        forms = (plain, f"<answer>{plain}</answer>", f"```json\n{plain}\n```")
        damaged = json.dumps({"time": [1.0, 2.75], "boxes": {"1": shown["1"]}})
        golds[str(number)] = Gold(forms, damaged)
    write_rows(folder / "stvg.json", rows)
    write_rows(folder / "val_annotations.json", [{"vid": "v0", "fps": scenes.FPS}])
    scenes.write(folder / "videos" / "set" / "v0.mp4", 0)
    return Mini(2, {"qtype": {"interrogative": 1, "declarative": 1}}, golds)


def ovo_bench(folder: Path) -> Mini:
    """All twelve tasks on two whole videos; three ask again and again as the video goes on."""
    categories = {
        "backward": ("EPM", "HLD", "ASI"),
        "realtime": ("OJR", "STU", "OCR", "ATR", "ACR", "FPD"),
    }
    tasks = [task for names in categories.values() for task in names]
    rows, golds = [], {}
    for place, task in enumerate(tasks):
        scene = 2 + place % 2
        question = ask(scene, place, 5 if task == "FPD" else 4)
        golds[str(place)] = of_question(question)
        rows.append(
            {
                "id": place,
                "task": task,
                "video": f"walks/{scene}.mp4",
                "question": question.text,
                "answer": question.answer,
                "options": question.options,
                "gt": question.place,
                "realtime": 1.5 + place % 4,
            }
        )
    moments = {
        "REC": [{"realtime": 2, "count": 0}, {"realtime": 4.5, "count": 12}],
        "SSR": [{"realtime": t, "step": "put down", "type": int(t > 3)} for t in (2, 4.5)],
        "CRR": [{"realtime": t, "type": int(t > 3)} for t in (1.2, 2, 4.5)],
    }
    extra = {"REC": {"activity": "turn"}, "SSR": {"tutorial": "x"}, "CRR": {"question": "Who?"}}
    for number, (task, info) in enumerate(moments.items(), len(tasks)):
        row = {"id": number, "task": task, "video": "walks/2.mp4", "test_info": info}
        rows.append(row | extra[task])
        for place, moment in enumerate(info):
            gold = of_word("Yes", "No") if moment.get("type") else of_word("No", "Yes")
            if task == "REC":
                gold = of_word(str(moment["count"]), str(moment["count"] + 1))
            golds[f"{number}_{place}"] = gold
    write_rows(folder / "data" / "ovo_bench_new.json", rows)
    for scene in (2, 3):
        scenes.write(folder / "src_videos" / "walks" / f"{scene}.mp4", scene)
    counts = {
        "task": dict.fromkeys(tasks, 1) | {"REC": 2, "SSR": 2, "CRR": 3},
        "category": {"backward": 3, "realtime": 6, "forward": 7},
    }
    return Mini(16, counts, golds)

"""Rows as other tools write them load unchanged; what could be read two ways is refused."""

import json

import pytest

from evr1 import rewards
from evr1.data import rows
from evr1.data.media.requests import media_requests
from evr1.data.records import MediaItem, Turn

ASK = "<video>What is shown?"
VIDEO_R1 = {
    "problem_id": 2,
    "problem": "What is shown?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. A dog", "B. Bars"],
    "process": "",
    "solution": "<answer>B</answer>",
    "path": "./plain.mp4",
    "data_source": "X",
}
USER = {"role": "user", "content": ASK}
PART = {"type": "text", "text": "What is shown?"}
SYSTEM = {"role": "system", "content": "Be brief."}
VERL = {
    "data_source": "x",
    "prompt": [{"role": "user", "content": "<video>How many?"}],
    "videos": [{"type": "video", "video": "file:///data/p.mp4", "fps": 1.0, "max_frames": 8}],
    "reward_model": {"style": "rule", "ground_truth": "3"},
    "extra_info": {"index": 7, "split": "train"},
}
TIME_R1 = {"video": "p.mp4", "timestamp": [1.0, 4.0], "sentence": "Bars are shown.", "qid": "x|1"}
HUMAN = {"from": "human", "value": ASK}
SHAPES = {  # name: (row, problem, answer, media)
    "EasyVideoR1": (
        {"problem": "What?", "answer": "B", "videos": ["p.mp4"], "problem_type": "open-ended"},
        "<video>What?",
        "B",
        ["p.mp4"],
    ),
    "EasyVideoR1 evaluation, Video-R1": (
        VIDEO_R1,
        ASK,
        "<answer>B</answer>",
        ["./plain.mp4"],
    ),
    "EasyVideoR1 MVBench": (
        VIDEO_R1 | {"video": "plain.webm", "question": "Q", "answer": "Bars", "start": 1.0},
        ASK,
        "Bars",
        ["./plain.mp4"],
    ),
    "EasyVideoR1 VideoMMMU": (
        VIDEO_R1 | {"image_path": "./images/d.png", "problem": "<image 1> What?"},
        "<image><video><image 1> What?",
        "<answer>B</answer>",
        ["./images/d.png", "./plain.mp4"],
    ),
    "EasyVideoR1 VSI-Bench": (
        VIDEO_R1
        | {"options": None, "problem_type": "regression", "solution": "<answer>4</answer>"},
        ASK,
        "<answer>4</answer>",
        ["./plain.mp4"],
    ),
    "EasyVideoR1 Charades-STA": (
        VIDEO_R1
        | {"options": [], "problem_type": "temporal grounding"}
        | {"solution": '<think>{"time": [4.5, 9.25], "boxes": {}}</think><[lost]>'},
        ASK,
        '<think>{"time": [4.5, 9.25], "boxes": {}}</think><[lost]>',
        ["./plain.mp4"],
    ),
    "EasyVideoR1 VideoMMLU": (
        VIDEO_R1
        | {"problem": "", "options": [], "problem_type": "caption", "solution": "Bars."},
        "<video>Describe what the video shows.",
        "Bars.",
        ["./plain.mp4"],
    ),
    "an answer under two names": (
        {"question": "What?", "solution": "<answer>3</answer>", "ground_truth": 3},
        "What?",
        "<answer>3</answer>",
        [],
    ),
    "EasyR1": (
        {"images": ["f.png"], "problem": "<image>Find x.", "answer": "3"},
        "<image>Find x.",
        "3",
        ["f.png"],
    ),
    "open-r1-multimodal": (
        {"image": {"path": "f.png", "bytes": None}, "problem": "Find x.", "solution": "3"},
        "<image>Find x.",
        "3",
        ["f.png"],
    ),
    "VLM-R1": (
        {"id": 1, "image": "f.png", "conversations": [HUMAN | {"value": "<image>x?"}],
         "solution": "3"},
        "<image>x?",
        "3",
        ["f.png"],
    ),
    "ms-swift messages": (
        {"messages": [SYSTEM, USER], "videos": ["p.mp4"], "solution": "B"}, ASK, "B", ["p.mp4"],
    ),
    "ms-swift with an assistant": (
        {"messages": [USER, {"role": "assistant", "content": "A"}], "videos": "p.mp4",
         "solution": "B"},
        ASK,
        "B",
        ["p.mp4"],
    ),
    "ms-swift query": ({"query": ASK, "response": "B", "videos": ["p.mp4"]}, ASK, "B", ["p.mp4"]),
    "ms-swift conversation": (
        {"conversation": [{"human": ASK, "assistant": "B"}], "videos": ["p.mp4"]},
        ASK,
        "B",
        ["p.mp4"],
    ),
    "TRL": (
        {"prompt": [{"role": "user", "content": [{"type": "image"}, PART]}], "images": ["f.png"],
         "solution": "3"},
        "<image>What is shown?",
        "3",
        ["f.png"],
    ),
    "LLaMA-Factory ShareGPT": (
        {"conversations": [HUMAN, {"from": "gpt", "value": "B"}], "videos": ["p.mp4"]},
        ASK,
        "B",
        ["p.mp4"],
    ),
    "LLaMA-Factory Alpaca": (
        {"instruction": "Look.", "input": ASK, "output": "B", "videos": ["p.mp4"]},
        f"Look.\n{ASK}",
        "B",
        ["p.mp4"],
    ),
    "OpenAI parts": (
        {"messages": [{"role": "user", "content": [
            {"type": "video_url", "video_url": {"url": "file:///d/a%20b.mp4"}}, PART,
            {"type": "image_url", "image_url": {"url": "f.png", "detail": "low"}}]}],
         "answer": "B"},
        "<video>What is shown?<image>",
        "B",
        ["/d/a b.mp4", "f.png"],
    ),
    "parts that Arrow filled with null": (
        {"messages": [{"role": "user", "content": [
            {"type": "video", "video": "p.mp4", "text": None, "fps": None},
            {"type": "text", "video": None, "text": "What is shown?", "fps": None}]}],
         "answer": "B"},
        ASK,
        "B",
        ["p.mp4"],
    ),
    "messages as JSON": (
        {"messages": json.dumps([USER]), "videos": '["p.mp4"]', "solution": "B"},
        ASK,
        "B",
        ["p.mp4"],
    ),
    "Time-R1": (
        TIME_R1 | {"video_start": None, "video_end": None, "duration": 10.0},
        '<video>When in the video does this happen: "Bars are shown."',
        [1.0, 4.0],
        ["p.mp4"],
    ),
}  # fmt: skip


def parse(fields, **how):
    return rows.parse_row(fields, 0, "f.jsonl:1", rows.Schema(**how))


@pytest.mark.parametrize("name", SHAPES)
def test_rows_of_others_load(name):
    fields, problem, answer, media = SHAPES[name]
    row = parse(fields)
    assert (row.problem, row.answer) == (problem, answer)
    assert [str(medium) for _, medium in rows.media_refs(row)] == media


def test_verl():
    row = parse(VERL)
    assert (row.problem, row.answer, row.problem_id) == ("<video>How many?", "3", "7")
    limits = (("fps", 1.0), ("max_frames", 8))
    assert row.videos == (MediaItem("/data/p.mp4", limits=limits),)


@pytest.mark.parametrize(
    ("stated", "solution", "right", "wrong", "canonical"),
    [
        ("REC", "<answer>2</answer>", "2", "1", "numerical"),
        ("SSR", "<answer>Yes</answer>", "yes", "no", "boolean"),
        ("CRR", "<answer>No</answer>", "No", "Yes", "boolean"),
    ],
)
def test_the_types_of_ovo_bench(stated, solution, right, wrong, canonical):
    row = parse(VIDEO_R1 | {"problem_type": stated, "options": [], "solution": solution})
    rewards.check_row(row)
    got = [rewards.score(f"<answer>{a}</answer>", row).accuracy for a in (right, wrong)]
    assert (row.problem_type, got) == (canonical, [1.0, 0.0])


def test_an_interval_that_is_left_as_a_reason_alone():
    row = parse(SHAPES["EasyVideoR1 Charades-STA"][0])
    assert rewards.score('<answer>{"time": [4.5, 9.25]}</answer>', row).accuracy == 1.0
    assert rewards.score('<answer>{"time": [4.5, 14]}</answer>', row).accuracy == 0.5


def test_types_where_none_is_stated():
    assert parse(TIME_R1).problem_type == "temporal grounding"
    assert parse({"query": "q", "solution": "A", "options": {"A": "x", "B": "y"}}).problem_type == (
        "multiple choice"
    )
    assert parse({"query": "q", "solution": "A"}, problem_type="math").problem_type == "math"
    with pytest.raises(ValueError, match="problem_type: got nothing; .* named in data.columns"):
        parse({"query": "q", "solution": "A"}, problem_type="")


def test_earlier_turns_and_the_system_turn():
    chat = [
        SYSTEM,
        {"role": "user", "content": [{"type": "image", "image": "f.png"}, {"text": "Who?"}]},
        {"role": "assistant", "content": "Ann."},
        {"role": "user", "content": [PART, {"type": "video", "video": "p.mp4"}]},
    ]
    row = parse({"messages": chat, "answer": "B"})
    assert row.system == "Be brief."
    assert row.turns == (Turn("user", "<image>Who?"), Turn("assistant", "Ann."))
    assert row.problem == "What is shown?<video>"
    assert rows.media_refs(row) == (("image", "f.png"), ("video", "p.mp4"))
    pairs = parse({"query": "Why?", "history": [["Who?", "Ann."]], "response": "B"})
    assert pairs.turns == (Turn("user", "Who?"), Turn("assistant", "Ann."))


def test_media_in_a_chat_and_beside_it_keep_their_places():
    shown = [{"type": "image"}, {"type": "image", "image": "b.png"}, {"type": "image"}]
    fields = {
        "messages": [{"role": "user", "content": [*shown, PART]}],
        "images": ["a.png", "c.png"],
    }
    assert parse(fields | {"solution": "x"}).images == ("a.png", "b.png", "c.png")
    with pytest.raises(ValueError, match="images: got 1 for 2 places of the chat"):
        parse(fields | {"solution": "x", "images": ["a.png"]})


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        ({"problem": "q", "answer": "meta.gold", "videos": "clip"}, {"meta": {"gold": "B"}}),
        ({"problem": "q", "answer": "meta.gold", "videos": "clip"}, {"meta": '{"gold": "B"}'}),
        ({"problem": ["nothing", "q"], "answer": "a", "videos": "clip"}, {"a": "B"}),
    ],
)
def test_columns_are_renamed(columns, fields):
    row = parse({"q": "Q?", "clip": "p.mp4", **fields}, columns=columns)
    assert (row.problem, row.answer, row.videos) == ("<video>Q?", "B", ("p.mp4",))
    assert "clip" not in row.extra


def test_a_column_that_no_row_has_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"problem": "q", "answer": 1}\n')
    with pytest.raises(
        ValueError, match=r"data.columns: no row has the field 'clp' .* answer, problem"
    ):
        rows.load_rows(path, rows.Schema(columns={"videos": "clp"}))


BLIND = {"problem": "q", "answer": "a"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"clip": "a.mp4"}, r"""clip: got .* not read; set data.columns to {"videos": "clip"}"""),
        ({"thumb": {"path": "a.PNG"}}, 'thumb: got .* not read; set data.columns to {"images"'),
        ({"shots": ["a.jpg", "b.jpg"]}, "shots: got .* looks like media and is not read"),
        ({"meta": {"file": "x/a.webm"}}, "meta: got .* looks like media"),
        ({"raw": "data:image/png;base64,AA"}, "raw: got .* looks like media"),
        ({"video_dir": "clips/001", "fps": 2}, "video_dir: got 'clips/001', which looks"),
        ({"video_name": "v_123"}, 'video_name: got .* not read; set data.columns to {"videos"'),
        ({"videos": [{"video": "a.mp4", "start": 3, "end": 2}]}, "videos: got an end of 2 s with"),
        ({"videos": ["a.mp4"], "second": "b.mp4"}, "second: got 'b.mp4', which looks like media"),
        ({"video": "a.mp4", "video_path": "b.mp4"}, "video: got 'a.mp4' beside video_path 'b.mp4'"),
        ({"video": "https://x.y/a.mp4"}, "videos: got 'https.*; nothing is downloaded"),
        ({"videos": ["a.png"]}, "videos: got 'a.png', a picture; .*belongs in images"),
        ({"videos": ["a.png", "b.png"]}, "videos: got 'a.png', a picture; .* is one video"),
        ({"images": ["a.mp4"]}, "images: got 'a.mp4', a video; put it into videos"),
        ({"videos": [["a.png", "b.png"]]}, "videos: got 2 frames from 'a.png' without a rate; add"),
        ({"videos": [["a.mp4", "b.mp4"]], "fps": 1}, "videos: got 'a.mp4' in a list in a list"),
        ({"videos": [["a.png"]], "times": [0, 1]}, "times: got 2 for 1 frames"),
        ({"videos": [["a.png"]], "times": ["x"]}, "times: got 'x'; give a number from 0 on"),
        ({"videos": [["a.png", "b.png"]], "times": [1, 0]}, "times: got .* ascending order"),
        ({"videos": [[]], "fps": 1}, "videos: got an empty list of frames"),
        ({"videos": "a.mp4", "fps": "fast"}, "fps: got 'fast'; give a number over 0"),
        ({"videos": "a.mp4", "fps": 1, "nframes": 8}, "nframes: got it beside fps"),
        ({"images": [["a.png"]]}, "images: got .* a list in a list"),
        ({"solution": "b", "answer": None, "ground_truth": "c"}, "answer: got nothing, and sol"),
        ({"problem": None, "question": "x", "query": "y"}, "problem: got nothing, and ques"),
        ({"answer": "<bbox>", "objects": {"bbox": [[1, 2, 3, 4]]}}, "objects: got .*write the nam"),
        ({"problem": None, "messages": [{"role": "tool", "content": "x"}]}, "messages: got a tur"),
        ({"problem": None, "messages": [SYSTEM]}, "messages: got .* without a question"),
        ({"problem": None, "messages": [USER | {"content": 3}]}, "messages: got 3 as content"),
        ({"problem": None, "messages": [{"role": "user", "content": [{"type": "audio"}]}]},
         "messages: got .* parts are text"),
    ],
)  # fmt: skip
def test_nothing_is_guessed_and_nothing_trains_blind(fields, says):
    with pytest.raises(ValueError, match=says) as error:
        parse(BLIND | fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"video": "a.mp4", "name": "a.mp4"},
        {"videos": ["d/a.mp4"], "video": "a"},
        {"video_id": "v_1", "video_path": "x/clip.mp4", "video": "v_1"},
        {"videos": ["a.mp4"], "preprocessed_video": "b.mp4"},
        {
            "videos": ["a.mp4"],
            "mask_path": "m.png",
            "note": "see the end of clip one, two or three",
        },
        {"videos": ["a.mp4"], "frames": 128, "video_size": [3, 4]},
    ],
)
def test_other_names_of_what_is_shown_are_no_media(fields):
    assert len(parse(BLIND | fields).videos) == 1


def test_a_row_of_text_may_say_what_it_is_about():
    for fields in ({"data_type": "text", "video_id": "v"}, {"video_size": [3, 4], "image_id": 0}):
        assert parse(BLIND | fields).data_type == "text"


def test_frames_are_one_video():
    names = ["f1.png", "f2.png"]
    for videos in (
        names,
        [names],
        [{"video": names}],
        [{"frames": names}],
        [[{"image": n} for n in names]],
    ):
        row = parse(BLIND | {"videos": videos, "fps": 2.0})
        assert row.videos == (MediaItem(frames=tuple(names), fps=2.0),)
    timed = parse(BLIND | {"frames": names, "times": ["0", 3.5]})
    assert timed.videos == (MediaItem(frames=tuple(names), times=(0.0, 3.5)),)
    assert parse(BLIND | {"videos": [timed.videos[0].entry()]}).videos == timed.videos
    [request] = media_requests(timed)
    assert (request.name, request.frames, request.times) == (
        "f1.png",
        ("f1.png", "f2.png"),
        (0, 3.5),
    )


def test_an_entry_and_a_row_may_have_limits():
    videos = [{"video": "a.mp4", "nframes": 8, "start": 1, "video_end": "2.5"}, "b.mp4"]
    row = parse(BLIND | {"videos": videos, "max_pixels": 999, "images": "i.png"})
    first, second = row.videos
    assert (first.start, first.end) == (1.0, 2.5)
    assert first.limits == (("nframes", 8), ("max_pixels", 999))
    assert second.limits == row.images[0].limits == (("max_pixels", 999),)


def test_what_is_read_otherwise_is_told_once(tmp_path):
    path, said = tmp_path / "r.jsonl", []
    how = {"fps": 1, "resized_height": 280, "start": 0.5, "end": 2}
    lines = [BLIND | {"videos": "a.mp4", **how}] * 2
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows.load_rows(path, note=said.append)
    assert said == [
        f"{path}:1: 2 rows have no problem_type; it is open-ended (data.problem_type)",
        f"{path}:1: 2 rows have fps of their own, which goes before the run's budgets",
        f"{path}:1: 2 rows have resized_height, start, end, which is not read",
    ]


def test_the_rate_of_a_folder_is_no_limit_and_options_are_the_reason(tmp_path):
    path, said = tmp_path / "r.jsonl", []
    row = BLIND | {"videos": [{"video": "frames", "fps": 2.0}], "options": ["A. x", "B. y"]}
    path.write_text(json.dumps(row | {"answer": "A"}) + "\n")
    rows.load_rows(path, note=said.append)
    assert said == [
        f"{path}:1: 1 row has no problem_type; it is multiple choice (there are options)"
    ]


def test_bad_rows_are_passed_over_where_that_is_asked_for(tmp_path):
    path, said = tmp_path / "r.jsonl", []
    good = json.dumps(BLIND | {"problem_type": "math"}) + "\n"
    path.write_text(good * 8 + "{broken\n" + '{"problem": "", "answer": 1}\n')
    with pytest.raises(ValueError, match=":9: JSON"):
        rows.load_rows(path)
    with pytest.raises(ValueError, match=r":9: JSON.*1 more bad row.*max_bad_rows_share=0.1"):
        rows.load_rows(path, rows.Schema(max_bad_share=0.1))
    path.write_text(good + "{broken\n" + '{"problem": "", "answer": 1}\n' + good)
    kept = rows.load_rows(path, rows.Schema(max_bad_share=0.5), said.append)
    assert [row.index for row in kept] == [0, 3]
    assert said[0] == f"{path}: passed over as bad: 2 of 4 rows"
    assert said[1].startswith(f"  passed over {path}:2: JSON: ")
    assert said[2].startswith(f"  passed over {path}:3: problem: got ''")

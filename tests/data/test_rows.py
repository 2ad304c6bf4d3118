import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evr1.data import rows

GOOD = {"problem": "How many?", "answer": "3", "problem_type": "numerical"}


def write(path, items, *, as_lines=True):
    text = "\n".join(map(json.dumps, items)) if as_lines else json.dumps(items, indent=1)
    path.write_text(text)
    return path


def parse(**fields):
    return rows.parse_row(GOOD | fields, 7, "f.jsonl:8")


def test_a_row_with_everything():
    row = parse(
        videos="a.mp4",
        images=["x.png", "y.png"],
        problem_type=" MCQ ",
        options=["A. one", "B. two"],
        problem_id=12,
        video_start=1,
        video_end=2.5,
        offline_output="three",
        source_set="LLaVA",
    )
    assert row.problem == "<image><image><video>How many?"
    assert (row.images, row.videos) == (("x.png", "y.png"), ("a.mp4",))
    assert (row.problem_type, row.data_type) == ("multiple choice", "mixed")
    assert (row.options, row.problem_id) == (("A. one", "B. two"), "12")
    assert (row.video_start, row.video_end) == (1.0, 2.5)
    assert (row.index, row.source) == (7, "f.jsonl:8")
    assert row.extra == {"offline_output": "three", "source_set": "LLaVA"}


@pytest.mark.parametrize(
    ("problem", "images", "videos", "expected"),
    [
        ("Q", [], [], "Q"),
        ("Q", [], ["v"], "<video>Q"),
        ("Q", ["i"], [], "<image>Q"),
        ("a <video> b <video>", [], ["v", "w"], "a <video> b <video>"),
        ("a <video> b", ["i", "j"], ["v"], "<image><image>a <video> b"),
        ("a <video> b <image>", ["i"], ["v"], "a <video> b <image>"),
    ],
)
def test_markers_go_in_front_only_where_they_are_missing(problem, images, videos, expected):
    row = parse(problem=problem, images=images, videos=videos)
    assert row.problem == expected


def test_media_come_in_the_order_of_their_markers():
    row = parse(problem="<video> <image> <video>", images=["i"], videos=["v", "w"])
    assert rows.media_refs(row) == (("video", "v"), ("image", "i"), ("video", "w"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problem": ""}, "problem: got ''"),
        ({"problem": 5}, "problem: got 5"),
        ({"answer": None}, "answer: got nothing"),
        ({"problem_type": "multiple chioce"}, "problem_type: unknown.*multiple choice"),
        (
            {"problem": "<video>a<video>", "videos": ["v"]},
            "got 2 <video> markers for 1 video; write one marker per video, or none at all",
        ),
        (  # LLaVA's habit
            {"problem": "<image>a", "videos": ["v"]},
            "got 1 <image> marker for 0 images and 1 video; write <video> for each video, or none",
        ),
        ({"problem": "<image>a"}, "got 1 <image> marker for 0 images; write one marker per"),
        ({"videos": [3]}, "videos: got 3"),
        ({"videos": ["a\0.mp4"]}, "videos: got 'a"),
        ({"problem": "a\ud800"}, "problem: got half a surrogate pair"),
        ({"videos": ["v"], "video_start": 10**400}, "video_start: got inf"),
        ({"videos": {"a": 1}}, "videos: got .* is the path of a file"),
        ({"images": [{"bytes": ""}]}, "images: got"),
        ({"options": "A. one"}, "options: got 'A. one'; give a list"),
        ({"options": [1]}, "options: got 1"),
        ({"videos": 3}, "videos: got 3; give a path or a list of paths"),
        ({"problem_id": 1.5}, "problem_id: got 1.5"),
        ({"data_type": "audio"}, "data_type: got 'audio'; give one of"),
        (
            {"data_type": "video", "images": ["i"]},
            "got 'video' for a row with 1 image and 0 videos",
        ),
        ({"data_type": "text", "videos": ["v"]}, "write 'video'"),
        ({"videos": "v", "video_start": "3"}, "video_start: got '3'"),
        ({"videos": "v", "video_start": -1}, "video_start: got -1"),
        ({"videos": "v", "video_start": 3, "video_end": 3}, "video_end: got 3.0 .* must be later"),
        ({"videos": ["v", "w"], "video_end": 3}, "with 2 videos; it needs exactly one"),
        ({"video_end": 3}, "with 0 videos"),
        ({"has_offline_trajectory": True}, "offline_output: got None"),
    ],
)
def test_a_bad_field_is_named(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        parse(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["clip", "clip.v1"])
def test_a_folder_says_its_rate(tmp_path, name):
    (tmp_path / "media" / name).mkdir(parents=True)
    schema = rows.Schema(media_dir=str(tmp_path / "media"))
    path = write(tmp_path / "r.jsonl", [GOOD, GOOD | {"videos": [name]}])
    with pytest.raises(
        ValueError, match=r"r.jsonl:2: videos: got .* without a rate; add fps .* or"
    ):
        rows.load_rows(path, schema)
    for rate in ({"fps": 2.0}, {"times": [0.0, 0.5]}):
        [row] = rows.load_rows(
            write(tmp_path / "r.jsonl", [GOOD | {"videos": [name]} | rate]), schema
        )
        assert row.videos[0].path == name
    path = write(tmp_path / "r.jsonl", [GOOD | {"images": [name], "fps": 2.0}])
    with pytest.raises(ValueError, match=r"r.jsonl:1: images: got .*, a folder; give the paths"):
        rows.load_rows(path, schema)


def test_ids_may_repeat_and_default_to_the_index(tmp_path):
    items = [GOOD | {"problem_id": "a"}, GOOD | {"problem_id": "a"}, GOOD]
    loaded = rows.load_rows(write(tmp_path / "r.jsonl", items))
    assert [row.problem_id for row in loaded] == ["a", "a", "2"]


def test_the_three_formats_give_the_same_rows(tmp_path):
    from pyarrow import Table, parquet

    items = [GOOD | {"videos": ["v"], "options": ["A"], "n": i} for i in range(3)]
    parquet.write_table(Table.from_pylist(items), tmp_path / "r.parquet")
    loaded = [
        rows.load_rows(path)
        for path in (
            write(tmp_path / "r.jsonl", items),
            write(tmp_path / "r.json", items, as_lines=False),
            tmp_path / "r.parquet",
        )
    ]
    plain = [[{**vars(row), "source": ""} for row in each] for each in loaded]
    assert plain[0] == plain[1] == plain[2]


def test_a_bad_row_is_named_by_its_line(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{json.dumps(GOOD | {'problem': ''})}\n{{}}\n")
    with pytest.raises(ValueError, match=rf"^{path}:3: problem: .* \(1 more bad rows"):
        rows.load_rows(path)


def test_a_row_of_a_json_list_is_named_by_its_line(tmp_path):
    path = write(tmp_path / "r.json", [GOOD, GOOD | {"videos": 3}], as_lines=False)
    with pytest.raises(ValueError, match=rf"^{path}:7: videos: got 3"):
        rows.load_rows(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.jsonl", '{"a": 1}\n{"a": \n', ":2: JSON: .* column"),
        ("r.jsonl", '{"a": NaN}', ":1: JSON: got NaN"),
        ("r.jsonl", "[1]", ":1: row: got"),
        ("r.jsonl", "\n", "holds no rows"),
        ("r.json", '[{"a": 1},\n{"a" 1}]', ":2: JSON: "),
        ("r.json", '{"a": 1}', ":1: JSON: got no list"),
        ("r.json", '[{"problem": "q"} 5]', ":1: JSON: expected ','"),
        ("r.json", '[{"problem": "q"},', ":1: JSON: "),
        ("r.json", '[{"problem": "q"}', ":1: JSON: expected"),
        ("r.json", "[]\n[]", ":2: JSON: got more text after the list"),
        ("r.json", "[" * 100_000, ":1: JSON: nested too deeply"),
        ("r.jsonl", '{"a": ' + "[" * 100_000, ":1: JSON: nested too deeply"),
        ("r.parquet", "PAR1", "Parquet: "),
        ("r.csv", "", "got a .csv file; give one of .json"),
    ],
)
def test_wrong_files_are_refused(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        rows.load_rows(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_utf8_is_refused_by_line(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\n")
    with pytest.raises(ValueError, match=":2: text: not UTF-8"):
        rows.load_rows(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.jsonl: no such data file"):
        rows.load_rows(tmp_path / "nowhere.jsonl")


def test_tools_may_ask_for_less(tmp_path):
    path = write(tmp_path / "r.jsonl", [{"problem": "q"}])
    [row] = rows.load_rows(path, rows.Schema(required=("problem",)))
    assert (row.answer, row.problem_type) == (None, "open-ended")


@given(
    st.lists(st.sampled_from(["<image>", "<video>", "text "])).filter("".join),
    st.randoms(use_true_random=False),
)
def test_every_medium_has_one_marker_whatever_was_missing(parts, random):
    images = [f"i{n}" for n in range(parts.count("<image>") or random.randint(0, 3))]
    videos = [f"v{n}" for n in range(parts.count("<video>") or random.randint(0, 3))]
    row = parse(problem="q" + "".join(parts), images=images, videos=videos)
    refs = rows.media_refs(row)
    assert [path for kind, path in refs if kind == "image"] == images
    assert [path for kind, path in refs if kind == "video"] == videos
    assert row.problem.endswith("q" + "".join(parts))


@pytest.mark.parametrize(
    ("fields", "system"),
    [
        ({}, None),
        ({"system": None}, None),
        ({"system": ""}, None),
        ({"system": "Be brief."}, "Be brief."),
        ({"system_prompt": "Be brief."}, "Be brief."),
        ({"system": "Be brief.", "messages": [], "history": None}, "Be brief."),
        ({"prompt": "a text of theirs"}, None),
    ],
)
def test_a_system_turn_is_a_field_of_the_row(fields, system):
    row = parse(**fields)
    assert row.system == system
    assert "system" not in row.extra


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"system": ["a"]}, r"system: got \['a'\]; give a non-empty string"),
        ({"system": 3}, "system: got 3; give"),
        ({"system": " "}, "system: got ' '; give"),
        ({"messages": [{"role": "user", "content": "a"}]}, "messages: got .* beside problem; "),
        ({"messages": "hello"}, "messages: got 'hello'; give a list of turns"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "conversations: got .* beside"),
        ({"history": [["a", "b", "c"]]}, "history: got .*; give pairs of question and answer"),
        ({"prompt": [{"role": "user", "content": "a"}]}, "prompt: got .* beside problem; "),
    ],
)
def test_turns_that_can_be_read_two_ways_are_refused(tmp_path, fields, says):
    path = write(tmp_path / "f.jsonl", [GOOD, GOOD | fields])
    with pytest.raises(ValueError, match=rf"f\.jsonl:2: {says}") as error:
        rows.load_rows(path)
    assert "\n" not in str(error.value)


def test_multiple_choice_without_options_is_told(tmp_path):
    fields = {"problem": "q", "answer": "A", "problem_type": "multiple choice"}
    lines = [fields, fields, fields | {"options": ["x", "y"]}]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = []
    rows.load_rows(tmp_path / "r.jsonl", note=said.append)
    assert said == [
        f"{tmp_path / 'r.jsonl'}:1: 2 rows have no options, of multiple choice: what the question "
        "spells is all it shows"
    ]


def test_a_misspelt_field_is_named_with_the_one_that_it_may_be(tmp_path):
    """problem_typ was carried along as a field of one's own, and the row was open-ended."""
    path = tmp_path / "rows.jsonl"
    row = {"problem": "?", "answer": "1"}
    data = [
        {**row, "problem_typ": "ocr", "weight": 2, "video_id": 7, "answers": ["1"]},
        {**row, "problem_typ": "ocr", "problem_type": "ocr"},  # a field of one's own
        {**row, "problem_typ": "ocr"},
    ]
    path.write_text("\n".join(map(json.dumps, data)))
    said = []
    rows.load_rows(path, rows.Schema(), said.append)
    assert [line for line in said if "did you mean" in line] == [
        f"{path}:1: 2 rows have 'problem_typ', which is not read; did you mean 'problem_type'?"
    ]
    path.write_text(json.dumps({"probelm": "?", "answer": "1", "colour": "red"}))
    with pytest.raises(ValueError, match="'probelm': did you mean 'problem'. what is called other"):
        rows.load_rows(path)

"""Lines of answered samples: nothing is lost by a kill, and parts are merged in any order."""

import itertools
import json

import pytest
from answers_rig import answer, write_run

from evr1.evals import samples
from evr1.evals.samples import Writer


def write(path, answers):
    with Writer(path) as writer:
        for each in answers:
            writer.append(each)
    return path


def ids(part):
    return [each.sample.id for each in part.answers]


ODD = "two\nlines, \u2028, half a pair \ud83d, 答え"


@pytest.mark.parametrize(
    "made",
    [
        answer("1", "B"),
        answer("1", ODD, "", video="v", cut=True),
        answer("1", detail="no frame in it", reason="empty"),
    ],
    ids=["one", "several", "failed"],
)
def test_a_line_holds_all_of_an_answer(made, tmp_path):
    line = samples.encode(made)
    assert line.isascii()
    assert "\n" not in line
    assert samples.decode(line, "here") == made
    assert samples.read(write(tmp_path / "a.jsonl", [made])).answers == [made]


def test_a_line_tells_its_status_and_video():
    rows = [
        json.loads(samples.encode(each))
        for each in (answer("1", "B", video="v"), answer("1", "B", cut=True), answer("1"))
    ]
    assert [row["status"] for row in rows] == ["ok", "truncated", "error"]
    assert rows[0]["cluster"] == "data/v.mp4"
    assert rows[2]["reason"] == "undecodable"


def test_bytes_of_a_row_are_told_by_their_hash():
    made = answer("1", "B")
    made.sample.doc["image"] = b"abc"
    image = json.loads(samples.encode(made))["doc"]["image"]
    assert image["bytes"] == 3
    assert image["sha256"].startswith("ba7816bf")


def test_a_kill_at_any_byte_costs_at_most_the_line_that_was_being_written(tmp_path):
    first, second = answer("1", "B"), answer("2", "C")
    whole = write(tmp_path / "whole.jsonl", [first, second]).read_bytes()
    start = whole.index(b"\n") + 1
    for end in {0, 1, start - 2, start - 1, start, start + 1, len(whole) - 2, len(whole) - 1}:
        path = tmp_path / f"{end}.jsonl"
        path.write_bytes(whole[:end])
        expected = [
            each for each, size in ((first, start - 1), (second, len(whole) - 1)) if end >= size
        ]
        part = samples.read(path)
        assert part.answers == expected
        assert part.is_torn == (end not in (0, start - 1, start, len(whole) - 1))
        write(path, [answer("3", "D")])  # goes on behind the last whole line
        assert samples.read(path) == samples.Part([*expected, answer("3", "D")], False)


def test_a_long_torn_line_is_cut_off(tmp_path):
    path = write(tmp_path / "a.jsonl", [answer("1", "B"), answer("2", "x" * 300_000)])
    path.write_bytes(path.read_bytes()[:-5])
    write(path, [answer("2", "C")])
    assert ids(samples.read(path)) == ["1", "2"]


def test_a_file_has_one_writer(tmp_path):
    with Writer(tmp_path / "a.jsonl"), pytest.raises(ValueError, match="another job writes it"):
        Writer(tmp_path / "a.jsonl")
    Writer(tmp_path / "a.jsonl").close()


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", 3), ("seconds", "x"), ("responses", [None]), ("doc", []), ("tokens", 7), ("tags", 1)],
)
def test_a_field_of_another_type_is_named(tmp_path, field, value):
    row = json.loads(samples.encode(answer("1", "B"))) | {field: value}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"a.jsonl:1: {field} is .*no answered sample"):
        samples.read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("text", ["{", "[]", '{"tasks": []}', '{"tasks": {"lvbench": "x"}}'])
def test_a_broken_manifest_is_one_line(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json: .*restore it, or give another") as error:
        samples.read_manifest(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", r"a.jsonl:2: Expecting value.*correct or delete the line"),
        ("[1]", r"a.jsonl:2: got '\[1\]'; an answered sample is a JSON object"),
        ("{}", r"a.jsonl:2: no field id; it has"),
        ('{"id": "1", "doc": {}, "media": [{"file": "a"}]}', r"a.jsonl:2: .*no answered sample"),
    ],
)
def test_a_broken_line_is_named(line, message, tmp_path):
    path = write(tmp_path / "a.jsonl", [answer("1", "B")])
    path.write_text(path.read_text() + line + "\n" + samples.encode(answer("2", "B")) + "\n")
    with pytest.raises(ValueError, match=message):
        samples.read(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reason": "tired"}, "no reason 'tired'; there is missing"),
        ({"reason": "missing"}, "both responses and a reason"),
        ({"responses": ()}, "it has no response"),
        ({"tokens": ()}, "not equally many"),
        ({"finishes": ("end",)}, "finishes end are not all of stop, length"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=f"sample 1 of video_mme: .*{message}"):
        answer("1", "B", **fields)


def test_parts_are_merged_by_id_in_any_order():
    listed = [answer("b"), answer("a", "A"), answer("b", "B"), answer("c"), answer("a", "A")]
    for order in itertools.permutations(listed):
        merged = samples.merge(order)
        assert merged.answers == [answer("a", "A"), answer("b", "B"), answer("c")]
        assert merged.duplicates == ["a"]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (answer("a", "B"), "responses"),
        (answer("a", "A", preset="train"), "preset"),
        (answer("a", "A", prompt_sha256="1" * 64), "prompt_sha256"),
    ],
)
def test_two_different_answers_to_a_sample_are_refused(other, what):
    with pytest.raises(ValueError, match=f"a has two answers with different {what}"):
        samples.merge([answer("a", "A"), other])


def test_a_run_in_parts_reads_as_a_run_in_one(tmp_path):
    listed = [answer(str(i), "B") for i in range(5)]
    one = write_run(tmp_path / "one", listed, n_expected=5)
    for part in range(3):
        three = write_run(tmp_path / "three", listed[part::3], n_expected=5, part=part, parts=3)
    assert samples.read_run(one) == samples.read_run(three)
    assert len(list(three.glob("samples_video_mme.*of3.jsonl"))) == 3


def test_a_folder_without_samples_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no samples_\*.jsonl; give the folder of a run"):
        samples.read_run(tmp_path)
    write_run(tmp_path, [])  # a job that was ended before its first answer
    with pytest.raises(ValueError, match="no sample is answered yet; run the job first"):
        samples.read_run(tmp_path)
    run = write_run(tmp_path, [answer("1", "B")])
    (run / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="holds no JSON object"):
        samples.read_run(run)

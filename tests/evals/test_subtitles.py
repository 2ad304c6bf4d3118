"""Subtitles of prompts: read from the files of each benchmark, and filled in by hand."""

import time
from pathlib import Path

import miniatures
import pytest

from evr1.evals import subtitles
from evr1.evals.tasks import TASKS, lines
from evr1.evals.tasks.base import Sample, Show, Subtitles
from evr1.evals.tasks.lines import Line

SRT = """\ufeff1
00:00:01,000 --> 00:00:02,500
<font color="white" size=".72c">Hello</font>
<i>there.</i>

2
00:01:02,250 --> 00:01:04,000 X1:40
12

3
00:02:00,000 --> 00:02:01,000

4
01:00:00,000 --> 01:00:01,500
{\\an8}3 < 4
"""


def write(folder, name, text):
    (folder / name).write_text(text, "utf-8")
    return folder / name


def test_subrip_is_read_without_its_marks(tmp_path):
    assert lines.read(write(tmp_path, "a.srt", SRT)) == [
        Line(1.0, 2.5, "Hello there."),
        Line(62.25, 64.0, "12"),
        Line(120.0, 121.0, ""),
        Line(3600.0, 3601.5, "3 < 4"),
    ]


def test_rows_are_read_in_their_three_forms(tmp_path):
    clocked = '[{"start": "00:01:00.100", "end": "00:01:02.000", "line": "a"}]'
    timed = '[{"timestamp": [0.5, 2.5], "text": "b"}, {"timestamp": [4.0, null], "text": "c"}]'
    words = '{"text": "d", "start_time": 0.5, "end_time": 0.75}\n'
    assert lines.read(write(tmp_path, "a.json", clocked)) == [Line(60.1, 62.0, "a")]
    assert lines.read(write(tmp_path, "b.json", timed)) == [
        Line(0.5, 2.5, "b"),
        Line(4.0, None, "c"),
    ]
    assert lines.read(write(tmp_path, "c.jsonl", words)) == [Line(0.5, 0.75, "d")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.srt", None, "a.srt: no such subtitle file; download it, or ask without"),
        ("a.srt", "", "no line like 00:00:01,000 --> 00:00:02,500; download it again"),
        ("a.srt", "<html>\n404</html>", "no line like 00:00:01,000"),
        ("a.json", '{"a": 1}', "a.json: it holds no list of lines"),
        ("a.json", "[", "a.json: Expecting value"),
        ("a.json", '[{"line": "x"}]', "a.json: line 1: .* has no start, end and text"),
        ("a.json", '[{"start": "1", "end": "2", "line": "x"}]', "line 1: .* has no start, end"),
        ("a.json", '["x"]', "line 1: 'x' has no start, end and text"),
        ("a.jsonl", '{"text": "x", "start_time": "soon", "end_time": 1}', "line 1: .* has no"),
        ("a.jsonl", "x", "a.jsonl:1: Expecting value"),
    ],
)
def test_what_is_missing_or_broken_is_one_line(tmp_path, name, text, message):
    if text is not None:
        write(tmp_path, name, text)
    sample = Sample("1", {}, (), subtitles=name)
    with pytest.raises(ValueError, match=message) as error:
        subtitles.fill([Subtitles("")], sample, tmp_path, [0.0])
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_one_line(tmp_path):
    for name in ("a.srt", "a.json"):
        (tmp_path / name).write_bytes(b"\xff\xfe1")
        with pytest.raises(ValueError, match="can't decode byte .*; download it again"):
            lines.read(tmp_path / name)


THREE = [Line(1.0, 2.5, "one"), Line(2.5, 4.0, "two"), Line(9.0, 9.2, "three")]


@pytest.mark.parametrize(
    ("times", "offset_s", "texts"),
    [
        ([0.0, 2.0, 3.0, 9.1], 0.0, ["one", "two", "three"]),
        ([1.0, 2.5, 4.0], 0.0, []),  # on the bounds only
        ([2.4, 2.45], 0.0, ["one"]),  # once, however many frames
        ([0.6], 2.0, ["two"]),  # a clip from second 2 on
        ([], 0.0, []),
    ],
)
def test_lines_of_frames(times, offset_s, texts):
    assert [line.text for line in lines.shown(THREE, times, offset_s)] == texts


def fill(task, prompt, folder, times, number=0):
    sample = list(TASKS[task].load(folder))[number]
    *before, question = TASKS[task].prompts[prompt](sample)
    *filled, last = subtitles.fill((*before, question), sample, folder, times)
    assert last == question
    return filled


def test_video_mme_gives_the_lines_of_its_frames(tmp_path):
    miniatures.write("video_mme", tmp_path)
    two = "This video's subtitles are listed below:\nLook,\nit starts on the left.\n"
    assert fill("video_mme", "official_subtitles", tmp_path, [1.0, 2.0]) == [Show(), two]
    one = "This video's subtitles are listed below:\nLook, it starts on the left.\n"
    assert fill("video_mme", "qwen3vl_subtitles", tmp_path, [1.0, 2.0]) == [Show(), one]
    # No frame falls into a line; a video without subtitles; a prompt that has no place for them.
    assert fill("video_mme", "official_subtitles", tmp_path, [0.1, 2.5]) == [Show()]
    assert fill("video_mme", "official_subtitles", tmp_path, [1.0], 3) == [Show()]
    assert fill("video_mme", "official", tmp_path, [1.0]) == [Show()]


def test_video_mme_v2_gives_every_word(tmp_path):
    miniatures.write("video_mme_v2", tmp_path)
    said = (
        "These are the frames of a video. This video's subtitles are listed below:\n"
        "Look at it move.\n"
    )
    assert fill("video_mme_v2", "official_subtitles", tmp_path, [0.1]) == [Show(), said]


def test_video_math_qa_gives_the_lines_of_its_frames(tmp_path):
    miniatures.write("video_math_qa", tmp_path)
    listed = "This video's subtitles are listed below: \ntriangles are there?\n"
    assert fill("video_math_qa", "official_subtitles", tmp_path, [1.5]) == [Show(), listed]


def test_longvideobench_puts_lines_between_frames(tmp_path):
    miniatures.write("longvideobench_sub", tmp_path)
    # The clip starts at 60 s of its subtitles: lines at 0.1-1.3 and 1.4-2.9 s, middles 0.7, 2.15.
    times = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert fill("longvideobench_sub", "official", tmp_path, times) == [
        Show(0, (0, 2)),
        "It moves\n",
        Show(0, (2, 5)),
        "to the other side.\n",
        Show(0, (5, 6)),
    ]
    # Lines at 0.5-2.5 and from 4 to the end of the video, 6 s: middles 1.5 and 5.
    assert fill("longvideobench_sub", "official", tmp_path, [0.0, 2.0, 4.5], 2) == [
        Show(0, (0, 1)),
        "It moves\n",
        Show(0, (1, 3)),
        "and stops.\n",
    ]
    # Both lines stand behind the only frame that the first of them holds.
    both = [Line(0.0, 2.0, "a"), Line(0.9, 1.1, "b"), Line(5.0, 6.0, "c")]
    assert lines.interleave(both, [1.0], 0.0, 9.0) == [0, "a", "b"]


def test_frames_are_counted_in_whatever_the_times_are_of(tmp_path):
    miniatures.write("longvideobench_sub", tmp_path)
    pairs = [0.25, 1.25, 2.25]  # of temporal patches of two frames each
    shown = fill("longvideobench_sub", "official", tmp_path, pairs)
    assert [each.frames for each in shown if isinstance(each, Show)] == [(0, 1), (1, 2), (2, 3)]


def test_every_frame_is_shown_once_and_in_order(tmp_path):
    rows = [f'{{"timestamp": [{i}.0, {i + 2}.5], "text": "{i}"}}' for i in range(0, 40, 3)]
    write(tmp_path, "a.json", f"[{','.join(rows)}]")
    sample = Sample("1", {}, (), subtitles="a.json")
    parts = (Show(), Subtitles("<", " ", ">", between_frames=True, offset_s=1.0))
    times = [0.7 * i for i in range(60)]
    filled = subtitles.fill(parts, sample, tmp_path, times)
    shown = [place for part in filled if isinstance(part, Show) for place in range(*part.frames)]
    assert shown == list(range(60))
    said = "".join(part for part in filled if isinstance(part, str))
    assert said == "".join(f"<{i}>" for i in range(0, 40, 3))


@pytest.mark.parametrize("unit", ["<font ", "{\\an", "00:00:01,0", "1\n", "00:00:01,000 --> "])
def test_time_is_linear(unit, tmp_path):
    path = write(tmp_path, "a.srt", f"00:00:00,000 --> 00:00:01,000\n{unit * 60_000}")
    start = time.monotonic()
    assert lines.read(Path(path))
    assert time.monotonic() - start < 2

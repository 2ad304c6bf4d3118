"""What a data set holds, on rows whose every figure is known."""

import json
import re

import pytest
from clips import write_clip
from PIL import Image
from repo import ROOT

from evr1.cli import data_report
from evr1.data import rows, survey
from evr1.data.media.source import MediaSource, media_requests

MODEL = ROOT / "evr1/assets/demo_model"


def row(problem, answer, kind="numerical", **more):
    return {"problem": problem, "answer": answer, "problem_type": kind, **more}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two data files over three clips, one of them a copy, and one that is missing."""
    root = tmp_path_factory.mktemp("survey")
    write_clip(root / "a.mp4", 20)
    write_clip(root / "b.mp4", 40)
    (root / "copy.mp4").write_bytes((root / "a.mp4").read_bytes())
    Image.new("RGB", (64, 32), "red").save(root / "c.png")
    train = [
        row("How many?", "3", videos=["a.mp4"]),
        row("How  many? ", "3", videos=["copy.mp4"]),
        row("How many?", "4", videos=["b.mp4"]),
        row("How many?", "5", videos=["b.mp4"]),
        row("Which?", "A", "multiple choice", options=["x", "y"], images=["c.png"]),
        row("Where?", "9", videos=["missing.mp4"]),
    ]
    held_out = [row("How long?", "12 s", "open-ended", videos=["a.mp4"])]
    for name, data in (("train", train), ("held_out", held_out)):
        (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, data)))
    return root


@pytest.fixture(scope="module")
def data(folder):
    return [r for n in ("train", "held_out") for r in rows.load_rows(folder / f"{n}.jsonl")]


def test_rows_are_counted_by_type_and_file(data, folder):
    train, held_out = (str(folder / f"{n}.jsonl") for n in ("train", "held_out"))
    assert survey.by_type(data) == {
        "numerical": {train: 5},
        "multiple choice": {train: 1},
        "open-ended": {held_out: 1},
    }


def test_answers_say_what_a_constant_one_earns(data):
    first = survey.answers(data)[0]
    assert (first.problem_type, first.rows, first.distinct) == ("numerical", 5, 4)
    assert first.common == [("3", 2), ("4", 1), ("5", 1), ("9", 1)]
    assert first.characters == survey.Spread(5, 1.0, 1.0, 1.0, 1.0, 1.0)


def test_what_stands_twice(data):
    requests = [media_requests(each) for each in data]
    contents = {r: r.name.replace("copy", "a") for media in requests for r in media}
    copies, same, other, shared = survey.doubles(data, requests, contents)
    assert copies == "files of one content under several names: 1 (a.mp4 = copy.mp4)"
    assert same.endswith(f"with one answer: 1 ({data[0].source} and {data[1].source})")
    assert other.endswith(f"different answers: 1 ({data[2].source} and {data[3].source})")
    assert shared.startswith("media in several data files, though what is trained on is not")
    assert "a.mp4 (" in shared


def test_nothing_stands_twice(data):
    assert survey.doubles(data[2:3], [media_requests(data[2])], {}) == []


def test_the_command_prints_and_writes_a_page(folder, tmp_path, capsys):
    out = tmp_path / "data.html"
    command = ["--data", str(folder / "train.jsonl"), str(folder / "held_out.jsonl")]
    command += ["--media_dir", str(folder), "--model", str(MODEL), "--out", str(out)]
    assert data_report.main([*command, "--max_frames", "4", "--max_prompt_tokens", "80"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"media that cannot be used, missing in {folder}: 1 of 5 ({folder}/missing" in printed
    assert "are over --max_prompt_tokens=80" in printed
    assert "files of one content under several names: 1 (a.mp4 = copy.mp4)" in printed
    assert "media in several data files" in printed
    page = out.read_text()
    assert page.count("<article") == 6  # the row whose video is missing has nothing to show
    assert page.count("data:image/jpeg") == 4 * 5 + 1
    assert "<script>alert" not in page
    which = page[page.index("<p>&lt;image&gt;Which?</p>") :]
    shown = ["<li>A. x</li>", "<li>B. y</li>", '<p class="note">c.png</p>', "<img", "answer: A"]
    places = list(map(which.index, shown))
    assert places == sorted(places)


def test_parts_and_pictures_are_named_on_the_page(tmp_path):
    for name in ("1.png", "2.png", "3.png"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    write_clip(tmp_path / "a.mp4", 20)
    data = [
        row("One?", "1", videos=[["1.png", "2.png", "3.png"]], fps=1.0),
        row("Two?", "2", videos=["a.mp4"], video_start=0.5),
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, data)))
    out = tmp_path / "data.html"
    command = ["--data", str(tmp_path / "rows.jsonl"), "--media_dir", str(tmp_path)]
    assert data_report.main([*command, "--out", str(out)]) == 0
    assert '<p class="note">1.png and 2 more pictures</p>' in out.read_text()
    assert '<p class="note">a.mp4, 0.5 s to its end</p>' in out.read_text()


@pytest.mark.parametrize("media_dir", ["wrong", ""])
def test_a_wrong_folder_of_media_is_an_error_that_names_it(
    folder, tmp_path, monkeypatch, capsys, media_dir
):
    """The page was empty, and the exit status 0."""
    monkeypatch.chdir(tmp_path)
    command = ["--data", str(folder / "train.jsonl"), "--media_dir", media_dir]
    assert data_report.main([*command, "--out", "data.html"]) == 1
    place = f"wrong ({tmp_path}/wrong)" if media_dir else f"{tmp_path} (no --media_dir)"
    first = "wrong/a.mp4" if media_dir else "a.mp4"
    assert capsys.readouterr().err == (
        f"data_report: none of 5 media was found in {place}; first: {first}: no such video; "
        "correct the paths or --media_dir\n"
    )
    assert "missing in" in (tmp_path / "data.html").read_text()


def test_rows_of_one_id_show_their_own_frames(tmp_path):
    """Two files often count from 1; a red and a blue picture have other JPEGs."""
    command = []
    for color in ("red", "blue"):
        Image.new("RGB", (64, 64), color).save(tmp_path / f"{color}.png")
        line = row("Which color?", color, "open-ended", problem_id="1", images=[f"{color}.png"])
        (tmp_path / f"{color}.jsonl").write_text(json.dumps(line))
        command.append(str(tmp_path / f"{color}.jsonl"))
    out = tmp_path / "data.html"
    where = ["--media_dir", str(tmp_path), "--out", str(out)]
    assert data_report.main(["--data", *command, *where]) == 0
    assert len(set(re.findall(r'src="(data:image/jpeg[^"]+)"', out.read_text()))) == 2


@pytest.mark.parametrize("flags", [[], ["--out", "data.html", "--samples", "0"]])
def test_nothing_is_decoded_that_is_not_shown(folder, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MediaSource, "load", lambda *_: pytest.fail("decoded"))
    command = ["--data", str(folder / "train.jsonl"), "--media_dir", str(folder)]
    assert data_report.main([*command, *flags]) == 0


def test_text_of_rows_is_text_on_the_page(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(row("<script>alert(1)</script>", "<b>2</b>")))
    out = tmp_path / "data.html"
    assert data_report.main(["--data", str(data), "--out", str(out)]) == 0
    page = out.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>2</b>" not in page


def test_bad_input_is_one_line(tmp_path, capsys):
    assert data_report.main(["--data", str(tmp_path / "none.jsonl")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("data_report: ")
    assert error.count("\n") == 1

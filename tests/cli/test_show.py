"""evr1 show: the prompt, the frames and the sheet of one row."""

import numpy as np
import pytest
import tools_rig as rig
from PIL import Image

show = rig.load("show")


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    root = tmp_path_factory.mktemp("show")
    media = rig.write_media(root)
    rows = [{**q, "problem_id": f"id{i}"} for i, q in enumerate(rig.QUESTIONS)]
    path = rig.write_rows(root / "rows.jsonl", rows)
    return ["--model", rig.MODEL, "--rows", path, "--media_dir", media, *rig.BUDGETS]


def test_a_row_is_shown_as_the_model_gets_it(flags, capsys, tmp_path):
    sheet = tmp_path / "row.png"
    assert show.main([*flags, "--row", "2", "--out", str(sheet)]) == 0
    said = capsys.readouterr().out
    assert "rows.jsonl:2 (id1): numerical, answer: 3" in said
    # 4 frames of 96 x 64 pixels (the clip's own), patches of 8, merged two by two
    line = next(line for line in said.splitlines() if line.startswith("a.mp4: "))
    assert line.startswith("a.mp4: 4 frames, ")
    assert line.endswith(" of 96 x 64, at 0, 0.6667, 1.3, 1.967 s")
    width, height = (
        int(n) for n in line.split(", ")[1].removesuffix(" pixels of 96 x 64").split(" x ")
    )
    geometry = rig.load("sessions").Processor.from_hf(rig.MODEL).geometry
    per_pair = height * width // geometry.factor**2
    assert said.count(f"[<|video_pad|> x {per_pair}]") == 2
    assert f" tokens, {2 * per_pair} of them visual, " in said
    assert "How many?" in said
    assert "<|im_start|>assistant" in said
    picture = np.asarray(Image.open(sheet))
    assert picture.shape[1] == 4 * width + 3 * 4
    ground = picture[:height, width : width + 4]  # between two frames, of neither's colour
    assert np.unique(ground).tolist() == [90]
    assert abs(picture[1, 1].astype(int) - 255).max() < 12  # the white square of the first frame
    assert picture[height + 2 :].max() > 200  # its second, under it


def test_rows_are_found_by_id_and_text_shows_no_sheet(flags, capsys, tmp_path):
    sheet = tmp_path / "row.png"
    assert show.main([*flags, "--row", "id0", "--prompt", "raw", "--out", str(sheet)]) == 0
    said = capsys.readouterr().out
    assert "rows.jsonl:1 (id0)" in said
    assert "0 of them visual" in said
    assert "Reply with" not in said  # of the task template
    assert not sheet.exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--row", "9"], "has no such line and no such problem_id; its rows stand in lines 1 to 3"),
        (["--row", "2", "--media_dir", "/nowhere"], "rows.jsonl:2: /nowhere/a.mp4: "),
        (["--row", "2", "--out", "row.jpg"], "--out row.jpg: give the name of a .png file"),
    ],
)
def test_what_cannot_be_shown_is_a_line(flags, capsys, more, says):
    assert show.main([*flags, *more]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1

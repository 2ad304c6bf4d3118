import dataclasses
import json
import os
import shutil

import pytest
from clips import BUDGETS, GEOMETRY, write_clip, write_image

from evr1.data.errors import MediaError
from evr1.data.media import content
from evr1.data.media.content import FileTable, content_key, file_identity
from evr1.data.records import Budgets, Geometry

KEYS = [
    "55bf1f2c416533bf5274d163b0146396",
    "b68237de9a17cce4a679f2f706cb7baa",
    "68c6b84e9d81f14950f0d712892f80a3",
]


def test_the_key_follows_everything_that_changes_the_pixels():
    plain = content_key("id", "video", BUDGETS, GEOMETRY, 1.0, 2.0)
    assert plain == content_key("id", "video", BUDGETS, GEOMETRY, 1.0, 2.0)
    others = [
        content_key("di", "video", BUDGETS, GEOMETRY, 1.0, 2.0),
        content_key("id", "image", BUDGETS, GEOMETRY, 1.0, 2.0),
        content_key("id", "video", BUDGETS, Geometry(14, 2, 2), 1.0, 2.0),
        content_key("id", "video", BUDGETS, GEOMETRY, None, 2.0),
        content_key("id", "video", BUDGETS, GEOMETRY, 1.0, None),
    ]
    for field in dataclasses.fields(Budgets):
        if field.name in ("video_budget", "video_size"):
            continue  # in test_video_budget.py
        changed = dataclasses.replace(BUDGETS, **{field.name: 12345})
        other = content_key("id", "video", changed, GEOMETRY, 1.0, 2.0)
        if field.name.startswith("video"):
            others.append(other)
        else:
            assert other == plain  # a video does not depend on the budget of images
    assert len({plain, *others}) == 1 + len(others)


def test_shards_of_before_are_found_again():
    """Their keys were made by earlier versions; a change of them is a change of DECODERS."""
    budgets, geometry = Budgets(), Geometry(16, 2, 2)
    keys = [
        content_key("id", "video", budgets, geometry),
        content_key("id", "video", budgets, geometry, 1.0, 2.5),
        content_key("id", "image", budgets, geometry),
    ]
    assert keys == KEYS


def test_identity_is_of_the_content(tmp_path):
    a = write_clip(tmp_path / "a.mp4")
    shutil.copy(a, tmp_path / "b.mp4")
    assert file_identity(a) == file_identity(tmp_path / "b.mp4")
    assert file_identity(write_clip(tmp_path / "c.mp4", 59)) != file_identity(a)
    big = bytearray(300_000)
    (tmp_path / "big").write_bytes(big)
    before = file_identity(tmp_path / "big")
    for where in (0, 150_000, 299_999):
        changed = bytearray(big)
        changed[where] = 1
        (tmp_path / "big").write_bytes(changed)
        assert file_identity(tmp_path / "big") != before


def test_files_are_known_by_name_where_they_are_gone(tmp_path):
    path = write_image(tmp_path / "x.png")
    identity = FileTable(tmp_path).identity("x.png", str(path), is_written=True)
    assert identity == file_identity(path)
    assert FileTable(tmp_path).identity("x.png", "/nowhere/x.png") == identity
    with pytest.raises(MediaError, match="/nowhere/y.png: cannot be opened") as error:
        FileTable(tmp_path).identity("y.png", "/nowhere/y.png")
    assert error.value.kind == "missing"
    write_image(path, gray=81)
    os.utime(path, ns=(1, 1))
    table = FileTable(tmp_path)
    assert table.identity("x.png", str(path), is_written=True) != identity
    with pytest.raises(MediaError, match="2 files of that name are in the shards"):
        FileTable(tmp_path).identity("x.png", "/nowhere/x.png")


def test_a_known_file_is_not_read_again(tmp_path, monkeypatch):
    path = write_image(tmp_path / "x.png")
    FileTable(tmp_path).identity("x.png", str(path), is_written=True)
    monkeypatch.setattr(content, "file_identity", lambda path: pytest.fail("read again"))
    FileTable(tmp_path).identity("x.png", str(path))


def test_a_file_entry_cut_short_is_made_good(tmp_path):
    path = write_image(tmp_path / "x.png")
    (tmp_path / "files.jsonl").write_text('{"name": "y.png", "si')
    FileTable(tmp_path).identity("x.png", str(path), is_written=True)
    [line] = (tmp_path / "files.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == "x.png"


def test_a_damaged_file_table_is_named_by_line(tmp_path):
    (tmp_path / "files.jsonl").write_text(json.dumps({"name": "a"}) + "\n")
    with pytest.raises(ValueError, match=r"files.jsonl:1: not a file entry; delete the line"):
        FileTable(tmp_path)

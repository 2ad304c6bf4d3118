"""Sizes of media: rows of boxes are checked against their files, and get what they lack."""

import dataclasses
import json

import pytest
from clips import BUDGETS, GEOMETRY, write_clip, write_image

from evr1.data import rows, sizes
from evr1.data.media.preprocess import preprocess
from evr1.data.media.requests import Opener
from evr1.data.records import Budgets

BOX = {"problem": "Where is it?", "answer": [1, 2, 30, 40], "problem_type": "spatial grounding"}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A clip stored 96 x 64 and shown turned, one that is shown as stored, and two images."""
    root = tmp_path_factory.mktemp("media")
    write_clip(root / "turned.mp4", 4, rotation=90)
    write_clip(root / "wide.mp4", 4)
    write_image(root / "i.png", (40, 50))
    write_image(root / "fits.png", (64, 64))
    return root


def load(tmp_path, media, fields, *, shares=0.0, scale="thousand", **more):
    """The rows and what is said of them."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(BOX | each) + "\n" for each in fields))
    how = sizes.Sizes(Opener(str(media), BUDGETS, GEOMETRY), scale, **more)
    lines = []
    schema = rows.Schema(complete=how.complete, max_bad_share=shares)
    return rows.load_rows(path, schema, lines.append), lines


def size(row):
    return row.extra.get("width"), row.extra.get("height")


def test_sizes_are_those_of_the_upright_picture(tmp_path, media):
    given = [{"videos": "turned.mp4"}, {"videos": "wide.mp4"}, {"images": "i.png"}]
    given += [{"videos": [["i.png", "i.png"]], "fps": 1.0}]
    found, lines = load(tmp_path, media, [{**each, "box_scale": "pixels"} for each in given])
    assert [size(row) for row in found] == [(64, 96), (96, 64), (50, 40), (50, 40)]
    assert lines == ["4 rows of boxes without a size: that of the file"]


def test_only_rows_that_need_a_size_get_one(tmp_path, media):
    of_boxes = {"images": "i.png"}
    others = [
        of_boxes,  # in thousandths, as it is asked for
        {"images": "fits.png", "box_scale": "unit"},
        {**of_boxes, "box_scale": "pixels", "problem_type": "ocr", "answer": "a"},
        {"box_scale": "pixels"},  # shows nothing
        {"images": ["i.png", "fits.png"], "box_scale": "pixels"},  # of which one?
        {"images": "gone.png", "box_scale": "pixels"},
    ]
    found, lines = load(tmp_path, media, others)
    assert [size(row) for row in found] == [(None, None)] * 6
    assert lines == []
    # In pixels the prompt names the size of a picture that is resized, and of no other one.
    found, _ = load(tmp_path, media, [of_boxes, {"images": "fits.png"}], scale="pixels")
    assert [size(row) for row in found] == [(50, 40), (None, None)]


def test_a_wrong_size_is_refused_by_row_and_file(tmp_path, media):
    turned = {"videos": "turned.mp4", "width": 96, "height": 64}  # as it is stored
    right = {"videos": "turned.mp4", "video_size": [64, 96]}
    with pytest.raises(ValueError, match="width and height") as error:
        load(tmp_path, media, [right, turned])
    assert str(error.value) == (
        f"{tmp_path}/rows.jsonl:2: width and height: got 96 x 64, and {media}/turned.mp4 is "
        "64 x 96, upright; correct them, or leave them out: the file's are taken"
    )
    found, lines = load(tmp_path, media, [right, turned], shares=0.5)
    assert [size(row) for row in found] == [(None, None)]
    assert lines[0] == f"{tmp_path}/rows.jsonl: passed over as bad: 1 of 2 rows"
    assert "rows.jsonl:2: width and height: got 96 x 64" in lines[1]


def test_a_scaled_copy_keeps_the_size_that_its_boxes_count_by(tmp_path, media):
    found, lines = load(tmp_path, media, [{"videos": "wide.mp4", "width": 1920, "height": 1280}])
    assert size(found[0]) == (1920, 1280)
    assert lines == [
        "1 row of boxes of another size than the file, of its shape; boxes in pixels count by the "
        f"row's: {tmp_path}/rows.jsonl:1: 1920 x 1280, and {media}/wide.mp4 is 96 x 64"
    ]


def test_shards_know_the_sizes_of_files_that_are_gone(tmp_path, media):
    own = tmp_path / "own"
    own.mkdir()
    write_clip(own / "turned.mp4", 4, rotation=90)
    asking = [{"videos": "turned.mp4", "box_scale": "pixels"}]
    found, _ = load(tmp_path, own, asking)
    bare = [dataclasses.replace(row, extra={}) for row in found]
    shards = str(tmp_path / "shards")
    preprocess(bare, shards, budgets=Budgets(), geometry=GEOMETRY, media_dir=str(own), workers=1)
    (own / "turned.mp4").unlink()
    found, _ = load(tmp_path, own, asking)
    assert size(found[0]) == (None, None)
    found, _ = load(tmp_path, own, asking, shards=shards)
    assert size(found[0]) == (64, 96)

"""Parquet, JSON and JSONL give the same rows; bytes become files, nulls of Arrow do not stay."""

import base64
import datetime
import decimal
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from evr1 import rewards
from evr1.data import jsonl, rows
from evr1.data.media.cache import MediaCache
from evr1.data.readers import read_fields


def png(value=0):
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(out, "png")
    return out.getvalue()


def write(path, items, features=None, schema=None):
    table = pa.Table.from_pylist(items, schema)
    if features:
        note = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": note})
    parquet.write_table(table, path)
    return path


def read(path, cache):
    return [fields for _, fields in read_fields(path, MediaCache(str(cache)))]


def test_nulls_that_arrow_fills_in_do_not_stay(tmp_path):
    answers = [{"boxes": {"1": [0, 0, 4, 4]}}, {"boxes": {"3": [1, 1, 5, 5]}}]
    items = [{"problem": "q", "answer": a, "problem_type": "tracking"} for a in answers]
    path = write(tmp_path / "r.parquet", items)
    assert parquet.read_table(path).to_pylist()[0]["answer"]["boxes"]["3"] is None
    for row, answer in zip(rows.load_rows(path), answers, strict=True):
        assert row.answer == answer
        response = f"<answer>{json.dumps(answer)}</answer>"
        assert rewards.score(response, row).overall == 1.0
    lines = tmp_path / "r.jsonl"  # as other tools write that Parquet file out
    table = parquet.read_table(path).to_pylist()
    lines.write_text("".join(json.dumps(row) + "\n" for row in table))
    assert [row.answer for row in rows.load_rows(lines)] == answers


def test_missing_numbers_are_none_and_never_written(tmp_path):
    items = [{"problem": "q", "answer": 1.0, "rate": float("nan"), "deep": [{"x": float("inf")}]}]
    [fields] = read(write(tmp_path / "r.parquet", items), tmp_path)
    assert fields == {"problem": "q", "answer": 1.0, "deep": [{}]}
    out = tmp_path / "r.jsonl"
    jsonl.append(out, {"problem": "q", "answer": 1, "deep": [float("nan"), {"a": float("inf")}]})
    assert read(out, tmp_path)[0]["deep"] == [None, {"a": None}]


def test_values_that_json_has_no_word_for(tmp_path):
    items = [
        {
            "when": datetime.datetime(2024, 1, 2, 3, 4),
            "long": datetime.timedelta(seconds=2.5),
            "price": decimal.Decimal("2.50"),
            "whole": decimal.Decimal("3"),
            "text": b"plain",
        }
    ]
    [fields] = read(write(tmp_path / "r.parquet", items), tmp_path)
    assert fields == {
        "when": "2024-01-02T03:04:00",
        "long": 2.5,
        "price": 2.5,
        "whole": 3,
        "text": "plain",
    }
    json.dumps(fields)


def test_types_of_hugging_face(tmp_path):
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema(
        {
            "problem": pa.string(),
            "answer": pa.int64(),
            "images": pa.list_(image),
            "video": image,
            "options": pa.string(),
            "turns": pa.string(),
            "parts": pa.list_(pa.int64()),
        }
    )
    mp4 = b"\0\0\0\x18ftypmp42" + bytes(40)
    item = {
        "problem": "<image><image><video>q",
        "answer": 1,
        "images": [{"bytes": png(), "path": "a.png"}, {"bytes": None, "path": "ü b.png"}],
        "video": {"bytes": mp4, "path": None},
        "options": '["A. x", "B. y"]',
        "turns": '[["Who?", "Ann."]]',
        "parts": [0, 1],
    }
    label = {"names": ["A", "B"], "_type": "ClassLabel"}
    features = {
        "answer": label,
        "images": {"feature": {"_type": "Image"}, "_type": "List"},
        "video": {"_type": "Video"},
        "options": {"_type": "Json"},
        "parts": {"feature": label, "_type": "Sequence"},
        "turns": {"dtype": "string", "_type": "Value"},
    }
    none = item | {"problem": "q", "answer": -1, "images": [], "video": None}
    path = write(tmp_path / "r.parquet", [item, none], features, schema)
    first, second = rows.load_rows(
        path, rows.Schema(required=("problem",), media_cache=str(tmp_path / "m"))
    )
    assert (first.answer, first.options, second.answer) == ("B", ("A. x", "B. y"), None)
    assert first.extra["parts"] == ["A", "B"]
    assert first.turns[1].content == "Ann."
    assert [p.rpartition(".")[2] for p in (first.images[0], first.videos[0])] == ["png", "mp4"]
    assert first.images[1] == "ü b.png"
    assert (second.images, second.videos) == ((), ())
    with open(first.videos[0], "rb") as file:
        assert file.read() == mp4


def test_bytes_are_files_by_their_content(tmp_path):
    items = [{"image": png(i % 2)} for i in range(200)]
    found = read(write(tmp_path / "r.parquet", items), tmp_path / "m")
    assert len({fields["image"] for fields in found}) == 2
    assert len(list((tmp_path / "m").rglob("*.png"))) == 2
    url = "data:image/png;base64," + base64.b64encode(png(1)).decode()
    (tmp_path / "r.jsonl").write_text(json.dumps({"images": [url], "deep": {"url": url}}))
    [fields] = read(tmp_path / "r.jsonl", tmp_path / "m")
    assert fields == {"images": [found[1]["image"]], "deep": {"url": found[1]["image"]}}


def test_files_of_a_relative_cache_are_named_by_whole_paths(tmp_path, monkeypatch):
    # A relative path in a row would be one under data.media_dir.
    monkeypatch.chdir(tmp_path)
    assert MediaCache("cache").put(png()).startswith(f"{tmp_path}/cache/")


def test_large_rows_are_read_one_by_one(tmp_path):
    big = [{"image": png() + bytes(2**22) + bytes([i])} for i in range(24)]  # 100 MB
    table = pa.Table.from_pylist(big)
    parquet.write_table(table, tmp_path / "r.parquet", row_group_size=2, use_dictionary=False)
    del table
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    for _ in read_fields(tmp_path / "r.parquet", MediaCache(str(tmp_path / "m"))):
        most = max(most, pool.bytes_allocated() - before)
    assert most < 80e6


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "m").write_text("")
    path = write(tmp_path / "r.parquet", [{"image": png()}])
    with pytest.raises(ValueError, match="data.media_cache=.*/m: .*give a folder") as error:
        read(path, tmp_path / "m")
    assert "\n" not in str(error.value)


def test_a_row_of_nulls_and_empty_files_are_told(tmp_path):
    schema = pa.schema({"problem": pa.string(), "answer": pa.string()})
    path = write(tmp_path / "r.parquet", [{"problem": None, "answer": None}], schema=schema)
    with pytest.raises(ValueError, match="r.parquet:1: problem: got nothing; .* has no fields"):
        rows.load_rows(path)
    with pytest.raises(ValueError, match="holds no rows"):
        rows.load_rows(write(tmp_path / "e.parquet", [], schema=schema))


def test_json_columns_of_arrow_are_decoded(tmp_path):
    kind = pa.json_()
    column = pa.ExtensionArray.from_storage(kind, pa.array(['{"boxes": [1, 2]}', None]))
    table = pa.table({"problem": ["q", "q"], "answer": column})
    parquet.write_table(table, tmp_path / "r.parquet")
    assert read(tmp_path / "r.parquet", tmp_path) == [
        {"problem": "q", "answer": {"boxes": [1, 2]}},
        {"problem": "q"},
    ]


def test_maps_are_objects_and_objects_of_lists_are_lists_of_objects(tmp_path):
    boxes = pa.struct([("boxes", pa.map_(pa.string(), pa.list_(pa.int64())))])
    schema = pa.schema([("problem", pa.string()), ("answer", boxes)])
    items = [{"problem": "q", "answer": {"boxes": [("1", [0, 0, 4, 4]), ("3", None)]}}]
    [fields] = read(write(tmp_path / "map.parquet", items, schema=schema), tmp_path)
    assert fields["answer"] == {"boxes": {"1": [0, 0, 4, 4]}}

    turned = {"from": ["human", "gpt"], "value": ["<image>Why?", "So."]}
    items = [{"conversations": turned, "images": {"bytes": [png()], "path": [None]}}]
    value = {"_type": "Value"}
    features = {
        "conversations": {"_type": "Sequence", "feature": {"from": value, "value": value}},
        "images": {"_type": "Sequence", "feature": {"bytes": value, "path": value}},
    }
    path = write(tmp_path / "turned.parquet", items, features)
    [row] = rows.load_rows(path, rows.Schema(media_cache=str(tmp_path / "cache")))
    assert (row.problem, row.answer, len(row.images)) == ("<image>Why?", "So.", 1)
    bare = {"conversations": turned, "image": "a.png"}  # without a note of the features
    [row] = rows.load_rows(write(tmp_path / "bare.parquet", [bare]))
    assert (row.problem, row.answer, row.images) == ("<image>Why?", "So.", ("a.png",))

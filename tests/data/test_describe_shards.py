"""What the start of a run says of shards, and of files that are gone."""

import types

from clips import BUDGETS, GEOMETRY, write_image

from evr1.data import rows
from evr1.data.dataset import Dataset, RunRows, describe_shards
from evr1.data.media.decode import DecodePool
from evr1.data.media.preprocess import preprocess
from evr1.data.media.source import MediaSource
from evr1.data.share import Share


def told(media_dir, shards, names):
    """The lines of a run over rows of these pictures."""
    fields = [{"problem": "?", "answer": "1", "images": [name]} for name in names]
    data = [rows.parse_row(row, i, f"f:{i}") for i, row in enumerate(fields)]
    settings = types.SimpleNamespace(
        shards=str(shards), source="prefer_preprocessed", media_dir=str(media_dir)
    )
    with DecodePool(1, 60.0) as pool:
        how = {"budgets": BUDGETS, "geometry": GEOMETRY, "pool": pool}
        source = MediaSource(**how, media_dir=str(media_dir), shards=str(shards))
        dataset = Dataset(RunRows(data, [], []), source, None, None)
        return describe_shards(settings, dataset, Share())


def test_files_that_are_gone_are_told_from_those_that_are_nowhere(tmp_path):
    """A wrong media_dir was fine with full shards, without a word, and one of the rows was lost."""
    folder, shards, wrong = tmp_path / "media", tmp_path / "shards", tmp_path / "wrong"
    folder.mkdir()
    names = [write_image(folder / f"{n}.png", (32 * n, 64)).name for n in (1, 2, 3)]
    fields = {"problem": "?", "answer": "1"}
    kept = [rows.parse_row({**fields, "images": [name]}, 0, "f:1") for name in names[:2]]
    how = {"budgets": BUDGETS, "geometry": GEOMETRY, "media_dir": str(folder), "workers": 1}
    preprocess(kept, str(shards), **how)
    assert told(folder, shards, names[:2]) == ["shards: 2 of 2 media are there with these budgets"]
    decoded = "  the others are decoded at every use: run evr1 preprocess on all data files with"
    first, second = told(folder, shards, names)
    assert first == "shards: 2 of 3 media are there with these budgets"
    assert second.startswith(decoded)
    assert told(wrong, shards, names) == [
        "shards: 2 of 3 media are there with these budgets",
        f"  the files of 2 of these are not in {wrong} (data.media_dir): they are read from the "
        "shards alone, and with other budgets would be missing",
        f"  1 medium is neither in the shards nor in {wrong} (data.media_dir), and the rows are "
        f"left out: {wrong}/3.png",
    ]

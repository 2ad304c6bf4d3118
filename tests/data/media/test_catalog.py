"""The catalog of many shards finds what a dict of their indexes would."""

import numpy as np
import pytest

from evr1.data.media import shard_index


def table(keys, first):
    """Records of one to three frames, whose sizes and times tell them apart."""
    counts = [1 + i % 3 for i in range(len(keys))]
    return shard_index.Table(
        np.array(keys, "S32"),
        np.array([(n, first + i, 7) for i, n in enumerate(counts)], np.int32).reshape(-1, 3),
        np.array([n > 1 for n in counts], bool),
        np.cumsum([0, *counts]).astype(np.int64),
        np.concatenate([np.zeros(0), *(first + i + np.arange(n) for i, n in enumerate(counts))]),
    )


def test_every_key_is_found_where_it_is():
    tables = {7: table(["b", "a", "c"], 10), 2: table([], 20), 4: table(["e", "d"], 30)}
    catalog = shard_index.Catalog(tables)
    assert (len(catalog), catalog.keys()) == (5, ["a", "b", "c", "d", "e"])
    for shard, records in tables.items():
        for i, key in enumerate(records.keys):
            row, *place = catalog.find(key.decode())
            assert place == [shard, i]
            shape, wanted = catalog.shape(row), records.shape(i)
            assert (shape.frames, shape.height, shape.is_video) == (
                wanted.frames, wanted.height, wanted.is_video,
            )  # fmt: skip
            np.testing.assert_array_equal(shape.timestamps, wanted.timestamps)
    assert catalog.find("0") is None
    assert catalog.find("bb") is None
    assert catalog.find("z") is None


def test_of_a_key_in_several_shards_the_last_counts():
    catalog = shard_index.Catalog({3: table(["a", "b"], 0), 1: table(["b", "a"], 9)})
    assert len(catalog) == 2
    assert catalog.find("a")[1:] == (3, 0)
    assert catalog.find("b")[1:] == (3, 1)


def test_lost_records_have_no_key():
    catalog = shard_index.Catalog({0: table([shard_index.LOST, "a"], 0)})
    assert (len(catalog), catalog.find(shard_index.LOST)) == (1, None)


@pytest.mark.parametrize("tables", [{}, {5: table([], 0)}])
def test_no_records(tables):
    catalog = shard_index.Catalog(tables)
    assert (len(catalog), catalog.keys(), catalog.find("a")) == (0, [], None)

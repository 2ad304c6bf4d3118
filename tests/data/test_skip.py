"""Which rows `data.skip` names."""

import pytest

from evr1.data import rows
from evr1.data.skip import find_rows


def make_rows(tmp_path):
    places = [(tmp_path / "a" / "rows.jsonl", 1), (tmp_path / "a" / "rows.jsonl", 2)]
    places += [(tmp_path / "b" / "rows.jsonl", 2), (tmp_path / "more.parquet", 1)]
    fields = {"problem": "q", "answer": "a", "problem_type": "math"}
    ids = ("n1", "n2", "n2", "clip:7")
    return [
        rows.parse_row(fields | {"problem_id": name}, i, f"{path}:{line}")
        for i, (name, (path, line)) in enumerate(zip(ids, places, strict=True))
    ]


@pytest.mark.parametrize(
    ("entries", "numbers"),
    [
        ((), []),
        (("n1",), [0]),
        (("n2",), [1, 2]),  # whoever shares an id
        (("clip:7",), [3]),  # an id that looks like a place
        (("rows.jsonl:2",), [1, 2]),
        (("b/rows.jsonl:2",), [2]),
        (("n1", "more.parquet:1", "n1"), [0, 3]),
    ],
)
def test_ids_and_places(tmp_path, entries, numbers):
    assert find_rows(entries, make_rows(tmp_path)) == frozenset(numbers)


def test_a_file_lists_both(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text(f"# no finite gradient\n\nn1\n  {tmp_path}/b/rows.jsonl:2\n")
    assert find_rows((str(path),), make_rows(tmp_path)) == frozenset([0, 2])
    path.write_text("n1\nn9\n")
    with pytest.raises(ValueError, match=r"bad.txt:2: 'n9' is neither the problem_id"):
        find_rows((str(path),), make_rows(tmp_path))


@pytest.mark.parametrize("entry", ["n", "rows.jsonl:3", "ows.jsonl:1", "/rows.jsonl:1", ""])
def test_an_entry_that_names_no_row_is_refused(tmp_path, entry):
    with pytest.raises(ValueError, match=r"data.skip: .* is neither the problem_id nor"):
        find_rows((entry,), make_rows(tmp_path))

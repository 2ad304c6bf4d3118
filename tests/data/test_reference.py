"""The page of a row's fields is what the reader has."""

from repo import ROOT

from evr1.config.columns import FIELDS, IGNORE
from evr1.data import dialects, reference, rows


def test_every_field_has_a_meaning():
    assert reference.MEANINGS.keys() == set(FIELDS) - {IGNORE}
    assert set(FIELDS) >= rows._OWN_FIELDS


def test_every_other_name_is_on_the_page():
    names = {n for field in FIELDS for n in reference.other_names(field)}
    tried = {n for names in dialects.ALIASES.values() for group in names for n in group}
    assert tried <= names


def test_the_page_is_what_the_reader_says():
    """Made anew by `python -m evr1.data.reference > docs/rows.md`."""
    assert (ROOT / "docs" / "rows.md").read_text("utf-8") == reference.page()

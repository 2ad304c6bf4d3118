"""Keys of clients."""

import pytest

from evr1.serve import keys


def sent(key):
    """A header as the server reads it, byte by byte."""
    return f"Bearer {key}".encode().decode("latin-1")


def test_keys_are_bytes(tmp_path):
    """With the mark that some editors begin a file with; a key may end in what looks like a space
    to Latin-1."""
    file = tmp_path / "keys"
    file.write_bytes("\ufeffschl\u00fcssel-\u00e0\r\n\r\nplain \n".encode())
    known = keys.read("", str(file))
    assert known == ("schl\u00fcssel-\u00e0", "plain")
    for key in known:
        assert keys.is_known(sent(key), known)
        assert keys.is_known(sent(key).replace("Bearer", "bEARER"), known)
        assert not keys.is_known(sent(key.upper()), known)
        assert not keys.is_known(sent(key[:-1]), known)
    for header in (
        "",
        "Bearer",
        "Bearer ",
        "plain",
        "Basic plain",
        "Bearer plain plain",
        "\xff\xfe",
    ):
        assert not keys.is_known(header, known)


def test_a_file_without_keys_is_refused(tmp_path):
    file = tmp_path / "keys"
    for data, says in ((b"\n \n", "holds no key"), (b"\xff\xfek\0", "no text in UTF-8")):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=says):
            keys.read("", str(file))

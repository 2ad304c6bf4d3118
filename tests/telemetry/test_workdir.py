"""The workdir belongs to one run at a time, and its files are whole."""

import pytest

from evr1.telemetry.workdir import replace_file, sole_run


def test_a_second_run_is_refused_until_the_first_ends(tmp_path):
    with sole_run(tmp_path / "run"):
        with (
            pytest.raises(ValueError, match="another run is writing there"),
            sole_run(tmp_path / "run"),
        ):
            pass
        with sole_run(tmp_path / "other"):
            pass
    with sole_run(tmp_path / "run"):
        pass


def test_a_file_whose_new_content_fails_stays_as_it_was(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"old")

    def chunks():
        yield b"new"
        raise KeyError

    with pytest.raises(KeyError):
        replace_file(path, chunks())
    assert path.read_bytes() == b"old"
    replace_file(path, [b"new", b"er"])
    assert path.read_bytes() == b"newer"
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]

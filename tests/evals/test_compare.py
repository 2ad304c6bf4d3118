"""Two runs, question by question: difference, paired interval, flips, and refusals."""

import pytest
from answers_rig import answer, write_run

from evr1.evals import __main__ as command
from evr1.evals.compare import compare, differences
from evr1.evals.tasks import TASKS

TASK = TASKS["video_mme"]


def made(letters, **fields):
    """Returns answers by place: "-" failed, " " is not there."""
    return [
        answer(f"{i:02d}", *letter.strip("-"), video=f"v{i // 2}", **fields)
        for i, letter in enumerate(letters)
        if letter != " "
    ]


def test_pairs_by_hand():
    """Of four pairs the second run gains two and loses one; two are in one run only."""
    found = compare(TASK, made("AABB-A"), made("ABAAA-"), "evr1", 6)
    assert (found.a, found.b) == (2 / 4, 3 / 4)
    assert found.difference.value == pytest.approx(1 / 4)
    assert (found.gained, found.lost) == (["02", "03"], ["01"])
    assert (found.n_pairs, found.n_alone, found.n_expected) == (4, 2, 6)
    # Videos v0 (-1 of 2) and v1 (+2 of 2): the draws are -1/2, 1/4 (twice) and 1.
    assert (found.difference.low, found.difference.high) == (-0.5, 1.0)
    assert found.difference.stderr == pytest.approx((0.75**2 * 0.5) ** 0.5, rel=0.06)


def test_a_pair_tells_more_than_two_runs_apart():
    """Runs that differ in nothing but two answers: the difference is sure, the scores are not."""
    a = "AB" * 40
    found = compare(TASK, made(a), made("B" + a[1:]), "evr1", 80)
    assert found.difference.value == pytest.approx(-1 / 80)
    assert found.difference.high == 0.0
    assert found.difference.stderr < 0.02
    same = compare(TASK, made(a), made(a), "evr1", 80)
    assert same.difference == (0.0, 0.0, 0.0, 0.0)


def test_repeats_of_different_number_are_compared():
    many = [answer("00", "A", "B", video="v0"), answer("01", "A", "A", video="v0")]
    found = compare(TASK, made("AA"), many, "evr1", 2)
    assert (found.a, found.b, found.lost) == (1.0, 0.75, ["00"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preset": "train"}, "preset: smoke and train"),
        ({"prompt": "qwen3vl"}, "prompt: official and qwen3vl"),
        ({"prompt_sha256": "1"}, r"the prompts of 2 samples \(00, 01\)"),
        ({"gold": "B"}, r"the data of 2 samples \(00, 01\)"),
    ],
)
def test_runs_that_were_made_differently_are_refused(fields, message, tmp_path, capsys):
    a = write_run(tmp_path / "a", made("AB"), n_expected=2)
    b = write_run(tmp_path / "b", made("AA", **fields), n_expected=2)
    with pytest.raises(SystemExit, match=f"^error: video_mme: .* differ in {message}.*--force"):
        command.main(["compare", str(a), str(b)])
    command.main(["compare", str(a), str(b), "--force"])
    assert "video_mme: they differ in" in capsys.readouterr().out


def test_other_media_are_other_data():
    other = [answer("00", "A", video="elsewhere")]
    assert differences(made("A"), other) == ["the media of 1 samples (00)"]
    assert compare(TASK, made("A"), other, "evr1", 1).n_pairs == 1
    assert differences(made("A"), made("A")) == []


def test_the_command_prints_a_table(tmp_path, capsys):
    a = write_run(tmp_path / "a", made("AABB"), n_expected=4)
    b = write_run(tmp_path / "b", made("ABAA"), n_expected=4)
    command.main(["compare", str(a), str(b), "--profile", "official"])
    words = capsys.readouterr().out.replace("│", " ").split()
    for word in ("official", "50.0", "75.0", "+25.0", "4/4"):
        assert word in words


@pytest.mark.parametrize(
    ("letters", "fields", "flags", "message"),
    [
        ("AA", {"task": "lvbench"}, [], "share no task"),
        ("--", {}, [], "no sample was scored in both runs"),
        ("  AA", {}, [], "no sample was scored in both runs"),
        ("AA", {}, ["--profile", "best"], "no profile 'best'; there is evr1, official"),
    ],
)
def test_bad_input_ends_in_one_line(letters, fields, flags, message, tmp_path):
    a = write_run(tmp_path / "a", made("AB"), n_expected=2)
    b = write_run(tmp_path / "b", made(letters, **fields), n_expected=2)
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        command.main(["compare", str(a), str(b), *flags])

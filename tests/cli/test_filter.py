"""evr1 filter on the demo's model and real clips: rates, resume, bad input."""

import json
import pathlib

import pytest
import tools_rig as rig
from templates import PREFILLED, make_dir

from evr1 import rewards
from evr1.data import rows
from evr1.data.demo.files import make_demo

curate = rig.load("filter_by_pass_rate")
generate = rig.load("generate")
inference = rig.load("inference")
pass_rates = rig.load("pass_rates")
K = 4
DEMO = ["--fps", "4", "--max_frames", "8", "--min_pixels", "1024", "--max_pixels", "2304"]
PLACES = ("kept", "too_easy", "too_hard", "failed")
MISSING, UNREADABLE = 3, 7  # rows that cannot be measured


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Ten demo rows, a missing clip and a ground truth that is no number among them; a run."""
    root = tmp_path_factory.mktemp("filter")
    make_demo(root, seed=0, train=10, heldout=2)
    data = rig.read(root / "train.jsonl")
    data = [{**row, "note": f"行 {i}", "pass_rate": "old"} for i, row in enumerate(data)]
    data[MISSING]["videos"] = ["clips/gone.mp4"]
    data[UNREADABLE] |= {"problem_type": "numerical", "answer": "many"}
    path = rig.write_rows(root / "rows.jsonl", data)
    flags = ["--model", rig.MODEL, "--rows", path, "--media_dir", str(root), *DEMO, "--k", str(K)]
    flags += ["--max_tokens", "24", "--slots", "2", "--window", "8", "--seed", "3"]
    flags += ["--max_failed_share", "0.3"]
    out = root / "out"
    assert curate.main([*flags, "--out", str(out)]) == 0
    return root, flags, data, out


def held(out: pathlib.Path) -> dict[str, bytes]:
    """The outputs, byte for byte."""
    names = [f"{place}.jsonl" for place in PLACES] + ["summary.json"]
    return {name: (out / name).read_bytes() for name in names}


def test_every_row_is_in_one_file_as_it_was_and_in_order(files):
    _, _, data, out = files
    found = {}
    for place in PLACES:
        lines = rig.read(out / f"{place}.jsonl")
        numbers = [int(line["note"].removeprefix("行 ")) for line in lines]
        assert numbers == sorted(numbers)
        found |= {i: (place, line) for i, line in zip(numbers, lines, strict=True)}
    assert sorted(found) == list(range(10))
    for i, (place, line) in found.items():
        rate, mean = line.pop("pass_rate"), line.pop("mean_accuracy")
        if place == "failed":
            assert i in (MISSING, UNREADABLE)
            assert rate is mean is None
            assert line.pop("filter_failure")
        else:
            assert place == {0.0: "too_hard", 1.0: "too_easy"}.get(rate, "kept")
        assert line == {k: v for k, v in data[i].items() if k != "pass_rate"}
    reasons = {r["note"]: r["filter_failure"] for r in rig.read(out / "failed.jsonl")}
    assert "gone.mp4: no such video" in reasons[f"行 {MISSING}"]
    assert "many" in reasons[f"行 {UNREADABLE}"]
    assert {place for place, _ in found.values()} >= {"kept", "too_hard"}  # else it tests little


def test_rates_are_those_of_what_generate_draws_and_rewards_score(files):
    root, flags, data, out = files
    drawn = root / "drawn.jsonl"
    at = flags.index("--k")
    asked = [*flags[:at], "--n", str(K), *flags[at + 2 :], "--out", str(drawn)]
    assert generate.main(asked) == 0
    accuracies = {}
    for row in rig.read(drawn):
        if row["index"] != UNREADABLE:
            one = rewards.score(row["completion"], data[row["index"]], box_scale="pixels")
            accuracies.setdefault(f"行 {row['index']}", []).append(one.accuracy)
    measured = [r for place in PLACES[:3] for r in rig.read(out / f"{place}.jsonl")]
    assert len(measured) == len(accuracies) == 8
    for row in measured:
        mine = accuracies[row["note"]]
        assert row["pass_rate"] == sum(a >= 0.5 for a in mine) / K
        assert row["mean_accuracy"] == pytest.approx(sum(mine) / K)


def test_answers_inside_the_block_that_the_prompt_opens_pass_nothing(files, tmp_path):
    """The demo's model never writes </think>: whatever it says is reasoning."""
    _, flags, data, _ = files
    some = rig.write_rows(tmp_path / "some.jsonl", data[:MISSING])
    asked = [*flags, "--rows", some, "--k", "2", "--temperature", "0.1"]
    rates = []
    for tail in ("", PREFILLED):
        out = tmp_path / f"out{len(rates)}"
        root = tmp_path / f"model{len(rates)}"
        root.mkdir()
        assert curate.main([*asked, "--model", make_dir(root, tail), "--out", str(out)]) == 0
        rates.append(json.loads((out / "summary.json").read_text())["mean_pass_rate"])
    assert rates[0] > rates[1] == 0


def test_the_summary_counts_what_the_files_hold(files):
    _, _, data, out = files
    summary = json.loads((out / "summary.json").read_text())
    lines = {place: rig.read(out / f"{place}.jsonl") for place in PLACES}
    assert {place: summary[place] for place in PLACES} == {p: len(x) for p, x in lines.items()}
    rates = [r["pass_rate"] for place in PLACES[:3] for r in lines[place]]
    assert summary["histogram"] == [rates.count(j / K) for j in range(K + 1)]
    parts = summary["by_problem_type"].values()
    assert [sum(x) for x in zip(*(p["histogram"] for p in parts), strict=True)] == (
        summary["histogram"]
    )
    assert sum(p["rows"] for p in parts) == summary["rows"] == len(data)


@pytest.mark.parametrize("done", [0, 1, 5])
def test_a_killed_run_goes_on_and_ends_with_the_same_files(files, capsys, done):
    """Killed after `done` rows, in the middle of a line; and amid the outputs."""
    root, flags, _, out = files
    torn = root / f"torn{done}"
    torn.mkdir()
    lines = (out / "progress.jsonl").read_bytes().splitlines(keepends=True)
    (torn / "progress.jsonl").write_bytes(b"".join(lines[:done]) + lines[done][:9])
    record = "progress.jsonl.settings.json"
    (torn / record).write_bytes((out / record).read_bytes())
    (torn / "kept.jsonl").write_text("{}\n")
    (torn / "too_easy.jsonl.part").write_text('{"half')
    assert curate.main([*flags, "--out", str(torn)]) == 0
    assert f"{done} done before" in capsys.readouterr().out
    assert held(torn) == held(out)


def test_other_thresholds_draw_nothing_and_a_repaired_clip_is_measured(files, monkeypatch, capsys):
    """k = 1: every rate is 0 or 1, so nothing can be kept."""
    root, flags, data, _ = files
    some = rig.write_rows(root / "some.jsonl", data[MISSING : MISSING + 2])
    asked = [*flags, "--k", "1", "--rows", some, "--out", str(root / "one")]
    asked += ["--max_failed_share", "0.5"]
    assert curate.main(asked) == 0
    assert "no pass rate of k=1 lies between --min and --max" in capsys.readouterr().out
    summary = json.loads((root / "one" / "summary.json").read_text())
    assert [summary[place] for place in ("kept", "failed", "rows")] == [0, 1, 2]
    assert len(summary["histogram"]) == 2

    clip = root / "clips" / "gone.mp4"
    clip.write_bytes((root / data[0]["videos"][0]).read_bytes())
    assert curate.main(asked) == 0
    clip.unlink()
    assert json.loads((root / "one" / "summary.json").read_text())["failed"] == 0
    before = held(root / "one")

    def refuse(*_):
        raise AssertionError("the model was read")

    monkeypatch.setattr(curate.sessions, "open_session", refuse)
    assert curate.main([*asked, "--min", "0.2", "--pass_at", "0.9"]) == 0
    assert held(root / "one").keys() == before.keys()
    assert json.loads((root / "one" / "summary.json").read_text())["min"] == 0.2


def test_too_many_failures_are_an_error_and_nothing_is_written(files, capsys):
    root, flags, data, _ = files
    bad = rig.write_rows(root / "bad.jsonl", [data[UNREADABLE], data[0], data[1]])
    asked = [*flags, "--rows", bad, "--out", str(root / "bad")]
    assert curate.main(asked) == 1
    error = capsys.readouterr().err
    assert error.startswith("filter_by_pass_rate: 1 of 3 rows failed, over --max_failed_share=0.3")
    assert "bad.jsonl:1" in error
    assert error.count("\n") == 1
    assert not (root / "bad" / "kept.jsonl").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--min", "0.5", "--max", "0.5"], "--min 0.5, --max 0.5; give 0 <= min < max <= 1"),
        (["--max", "1.5"], "--max 1.5"),
        (["--pass_at", "0"], "--pass_at 0; give more than 0 and at most 1"),
        (["--k", "0"], "--k 0"),
        (["--rows", "nowhere.jsonl"], "no such data file"),
        (["--temperature", "-1"], "temperature=-1.0"),
        (["--extra", "nowhere.py"], "--extra=nowhere.py: no such file"),
        (["--model", "/"], "must be a HF directory"),
    ],
)
def test_bad_flags_are_one_line(files, capsys, tmp_path, more, says):
    assert curate.main([*files[1], "--out", str(tmp_path / "out"), *more]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_files_of_others_are_not_replaced(files, capsys, tmp_path):
    root, flags, data, _ = files
    rig.write_rows(tmp_path / "kept.jsonl", data)
    before = (tmp_path / "kept.jsonl").read_bytes()
    mine = [*flags, "--out", str(tmp_path)]
    assert curate.main(mine) == 1
    assert "kept.jsonl exists and is not of this command" in capsys.readouterr().err
    assert curate.main([*mine, "--rows", str(tmp_path / "kept.jsonl")]) == 1
    assert "kept.jsonl would be replaced; give another --out" in capsys.readouterr().err
    assert (tmp_path / "kept.jsonl").read_bytes() == before
    assert curate.main([*flags, "--out", str(root / "rows.jsonl")]) == 1
    assert "rows.jsonl is no directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("accuracies", "place", "rate"),
    [
        ([0.0, 0.0, 0.0, 0.0], "too_hard", 0.0),
        ([0.49, 0.49, 0.49, 0.49], "too_hard", 0.0),  # a mean of .49, and nothing passes
        ([1.0, 0.0, 0.0, 0.0], "too_hard", 0.25),  # at the bound, which is not kept
        ([0.5, 1.0, 0.0, 0.0], "kept", 0.5),
        ([1.0, 1.0, 1.0, 0.0], "too_easy", 0.75),
        ("no such video", "failed", None),
    ],
)
def test_places_and_rates(accuracies, place, rate):
    """min = .25 and max = .75 are themselves left out; a completion passes at .5 or more."""
    rule = pass_rates.Rule(0.25, 0.75, 0.5)
    assert rule.place(accuracies) == place
    assert rule.added(accuracies)["pass_rate"] == rate


def test_rows_that_no_json_file_can_hold_are_refused(tmp_path):
    row = rows.parse_row({"problem": "a", "answer": 1, "problem_type": "math"}, 0, "f:1")
    assert curate._line({"a": "é\ud800"}, row) == '{"a": "\\u00e9\\ud800"}\n'
    for value in (float("nan"), b"bytes"):
        with pytest.raises(ValueError, match="f:1: row: .*drop what no JSON file can hold"):
            curate._line({"a": value}, row)


def test_docstring_examples():
    import doctest

    assert doctest.testmod(pass_rates) == (0, 2)

"""evr1 generate: what it writes, that it resumes, what it says about bad input."""

import json
import pathlib

import numpy as np
import pytest
import tools_rig as rig
from templates import SWITCH, make_dir

from evr1.batch.shapes import round_up
from evr1.data import rows
from evr1.data.processor import Processor
from evr1.types import Rollouts

generate = rig.load("generate")
inference = rig.load("inference")
outputs = rig.load("outputs")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Rows and media; the first run's output."""
    root = tmp_path_factory.mktemp("generate")
    rows = rig.write_rows(root / "rows.jsonl", [{**q, "note": "kept"} for q in rig.QUESTIONS])
    media = rig.write_media(root)
    flags = ["--model", rig.MODEL, "--rows", rows, "--media_dir", media, *rig.BUDGETS]
    flags += ["--n", "2", "--max_tokens", "12", "--slots", "2", "--window", "8", "--seed", "3"]
    out = root / "out.jsonl"
    assert generate.main([*flags, "--out", str(out)]) == 0
    return root, flags, out


def test_fields(files):
    made = rig.read(files[2])
    assert [(r["index"], r["sample"]) for r in made] == [(i, s) for i in range(3) for s in (0, 1)]
    processor = Processor.from_hf(rig.MODEL)
    for row in made:
        assert row["note"] == "kept"
        assert row["answer"] == rig.QUESTIONS[row["index"]]["answer"]
        assert len(row["logprobs"]) == len(row["completion_token_ids"]) <= 12
        assert max(row["logprobs"]) < 0
        ended = row["completion_token_ids"][-1] in processor.end_ids
        assert row["finish_reason"] == ("stop" if ended else "length")
        assert ended or len(row["completion_token_ids"]) == 12
        assert row["completion"] == processor.decode(row["completion_token_ids"])
        assert row["response"] == row["completion"]
    pairs = zip(made[::2], made[1::2], strict=True)
    assert any(a["completion_token_ids"] != b["completion_token_ids"] for a, b in pairs)
    assert made[0]["prompt_token_ids"] == made[1]["prompt_token_ids"]
    placeholders = [
        np.isin(row["prompt_token_ids"], processor.banned_ids).sum() for row in made[::2]
    ]
    assert placeholders[0] == 0
    assert min(placeholders[1:]) > 0


def test_shards_show_what_decoding_does(files, capsys):
    """With the media gone, frames can be of the shards alone; tokens and log-probabilities hang
    on every pixel."""
    root, flags, out = files
    shards, nowhere = str(root / "shards"), str(root / "nowhere")
    given = ["--rows", flags[3], "--shards", shards, "--media_dir", flags[5], *rig.BUDGETS]
    assert rig.load("preprocess_videos").main([*given, "--model", rig.MODEL]) == 0
    capsys.readouterr()
    again = root / "of_shards.jsonl"
    read = [*flags, "--media_dir", nowhere, "--shards", shards, "--out", str(again)]
    assert generate.main(read) == 0
    assert rig.read(again) == rig.read(out)
    assert "1080p" not in capsys.readouterr().out  # frames were chosen before
    read += ["--max_frames", "6", "--out", str(root / "other.jsonl")]
    assert generate.main(read) == 1  # of other budgets there are none
    assert "nowhere/a.mp4" in capsys.readouterr().err


def test_resumes_where_it_was_killed(files, capsys):
    """Half a group and a torn line are made again; the rest is kept, the tokens are the same."""
    root, flags, out = files
    want = rig.read(out)
    lines = out.read_text().splitlines(keepends=True)
    torn = root / "torn.jsonl"
    torn.write_text("".join(lines[2:5]) + lines[5][:40])
    assert generate.main([*flags, "--out", str(torn)]) == 0
    assert "1 done before" in capsys.readouterr().out
    assert rig.read(torn) == want
    before = torn.stat().st_mtime_ns
    assert generate.main([*flags, "--out", str(torn)]) == 0
    assert "3 done before" in capsys.readouterr().out
    assert rig.read(torn) == want
    assert torn.stat().st_mtime_ns >= before


def test_other_settings_are_refused(files, capsys):
    _, flags, out = files
    before = out.read_text()
    assert generate.main([*flags, "--seed", "4", "--out", str(out)]) == 1
    assert "was written with --seed 3, now 4; give another --out" in capsys.readouterr().err
    assert out.read_text() == before


def test_other_rows_are_refused(files, capsys):
    root, flags, _ = files
    out, rows = root / "edited.jsonl", root / "edited_rows.jsonl"
    flags = [*flags, "--rows", rig.write_rows(rows, rig.QUESTIONS[:1]), "--out", str(out)]
    assert generate.main(flags) == 0
    before = out.read_text()
    rig.write_rows(rows, rig.QUESTIONS[2:])
    assert generate.main(flags) == 1
    said = capsys.readouterr().err
    assert f"was written with --rows {rows}, which holds something else now; give another" in said
    assert out.read_text() == before


def test_what_it_did_not_write_is_not_replaced(files, capsys):
    root, flags, _ = files
    rows = root / "mine.jsonl"
    before = pathlib.Path(rig.write_rows(rows, rig.QUESTIONS)).read_text()
    assert generate.main([*flags, "--rows", str(rows), "--out", str(rows)]) == 1
    assert "mine.jsonl exists and is no output of this command" in capsys.readouterr().err
    assert rows.read_text() == before


def test_a_device_or_a_directory_is_not_replaced(tmp_path):
    for path in ("/dev/null", str(tmp_path)):
        with pytest.raises(ValueError, match="is no regular file"):
            outputs.Results(path, {}, 1)


def test_line_separators_within_a_text_end_no_row(tmp_path):
    """U+2028 and U+0085 stand unescaped in JSON, and are line ends to str.splitlines."""
    path = tmp_path / "out.jsonl"
    made = {"index": 0, "completion": "a\u2028b\u0085c", "logprobs": []}
    with outputs.Results(str(path), {}, 1) as results:
        results.add([made])
        results.sort()
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [made]


def test_raw_prompts_and_greedy(files):
    root, flags, out = files
    raw = root / "raw.jsonl"
    options = ["--prompt", "raw", "--temperature", "0", "--out", str(raw)]
    assert generate.main([*flags, *options]) == 0
    made = rig.read(raw)
    for first, second in zip(made[::2], made[1::2], strict=True):
        assert first["completion_token_ids"] == second["completion_token_ids"]
    processor = Processor.from_hf(rig.MODEL)
    text = processor.decode(made[0]["prompt_token_ids"])
    assert "How many digits are there?" in text
    task = rig.read(out)[0]["prompt_token_ids"]
    assert len(made[0]["prompt_token_ids"]) < len(task)


def run_bad(files, capsys, rows, *more) -> str:
    root, flags, _ = files
    path = root / "bad.jsonl"
    rows = rows if isinstance(rows, str) else rig.write_rows(path, rows)
    out = root / "bad_out.jsonl"
    out.unlink(missing_ok=True)
    (root / "bad_out.jsonl.settings.json").unlink(missing_ok=True)
    assert generate.main([*flags, "--rows", rows, "--out", str(out), *more]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("generate: ")
    return error


def test_bad_input_is_one_line(files, capsys):
    question = rig.QUESTIONS[0]
    assert "no such data file" in run_bad(files, capsys, "nowhere.jsonl")
    assert "temperature=-1.0" in run_bad(files, capsys, [question], "--temperature", "-1")
    assert "--n 0" in run_bad(files, capsys, [question], "--n", "0")
    said = run_bad(files, capsys, [question], "--max_pixels", "64")
    assert "--min_pixels=3136 (the default) is over --max_pixels=64; give --min_pixels of" in said
    assert "problem" in run_bad(files, capsys, [{"answer": 1}])
    assert "must be a HF directory" in run_bad(files, capsys, [question], "--model", str(files[0]))
    missing = {**rig.QUESTIONS[1], "videos": ["gone.mp4"]}
    error = run_bad(files, capsys, [missing, question])
    assert "1 of 2 rows have unusable media" in error
    assert "gone.mp4" in error


def test_unusable_media_are_skipped_up_to_a_share(files):
    root, flags, _ = files
    missing = {**rig.QUESTIONS[1], "videos": ["gone.mp4"]}
    rows = rig.write_rows(root / "some.jsonl", [missing, rig.QUESTIONS[0]])
    out = root / "some_out.jsonl"
    command = [*flags, "--rows", rows, "--out", str(out), "--max_failed_share", "0.5"]
    assert generate.main(command) == 0
    assert {r["index"] for r in rig.read(out)} == {1}


@pytest.mark.parametrize(
    ("size", "multiple", "want"),
    [(0, 4, 4), (1, 32, 32), (33, 32, 64), (65, 32, 96), (97, 32, 128), (129, 32, 192), (5, 1, 6)],
)
def test_round_up(size, multiple, want):
    assert round_up(size, multiple) == want


def test_numbers_read_back():
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    back = np.array(json.loads(json.dumps(outputs.numbers(values))), np.float32)
    np.testing.assert_array_equal(back, values)


def test_rows_say_that_the_prompt_left_a_think_block_open(files, tmp_path, capsys):
    """Scoring the output takes it from there; output of another prompt loses it."""
    root, flags, out = files
    assert not any("think_open" in row for row in rig.read(out))
    model, drawn = make_dir(tmp_path, SWITCH), tmp_path / "open.jsonl"
    mine = [*flags, "--model", model, "--n", "1", "--max_tokens", "4"]
    assert generate.main([*mine, "--out", str(drawn)]) == 0
    assert [row["think_open"] for row in rig.read(drawn)] == [True] * 3
    closed = [*mine, "--rows", str(drawn), "--no-thinking", "--out", str(tmp_path / "closed.jsonl")]
    assert generate.main(closed) == 0
    made = rig.read(tmp_path / "closed.jsonl")
    assert not any("think_open" in row for row in made)
    ids = [row["prompt_token_ids"] for row in (made[0], rig.read(drawn)[0])]
    assert ids[0][: len(ids[1])] == ids[1]  # it goes on with the end of an empty block
    assert len(ids[0]) > len(ids[1])
    variables = [*mine, "--template_variables", '{"effort": 1}', "--out", str(tmp_path / "x.jsonl")]
    assert generate.main(variables) == 1
    said = capsys.readouterr().err
    assert said.startswith("generate: --template_variables: the chat template of ")
    assert "has no variable 'effort'; it has enable_thinking" in said


def test_a_completion_ends_where_the_logits_are_not_finite():
    """The second of two: one token, then a place without one; it is in no field, and told."""
    processor = Processor.from_hf(rig.MODEL)
    row = rows.parse_row({"problem": "q", "answer": "a", "problem_type": "math"}, 0, "r.jsonl:1")
    example = processor.encode(row, [])
    tokens = np.array([[40, 41, 42], [40, processor.pad_id, processor.pad_id]], np.int32)
    logprobs = np.array([[-1, -2, -3], [-1, np.nan, 0]], np.float32)
    made = Rollouts(tokens, logprobs, np.array([3, 2], np.int32), np.zeros(2, bool))
    whole, cut = generate.output(processor, example, made)
    assert (whole["finish_reason"], whole["logprobs"]) == ("length", [-1, -2, -3])
    assert (cut["finish_reason"], cut["logprobs"]) == ("not_finite", [-1])
    assert cut["completion_token_ids"] == [40]
    assert cut["completion"] == processor.decode([40])
    assert generate._broken(row, made) == (
        "r.jsonl:1 (0): logits of 1 of 2 completions, first after 1 tokens; they end there, "
        "finish_reason not_finite"
    )

"""The scoring processes: order, deadlines, death, and the command."""

import datetime
import decimal
import json
import math
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from evr1 import rewards
from evr1.data.media.cache import MediaCache
from evr1.rewards import Status, Task, __main__
from evr1.rewards.base import make_task
from evr1.rewards.pool import CHUNK, RewardPool, _encode

SLOW_TRUTH = r"\int \frac{dx}{(x^5+x+1)^9}"  # the algebra would work on it for minutes


@pytest.fixture(scope="module")
def pool():
    with RewardPool(workers=2, timeout_s=1.0) as pool:
        yield pool


def numbers(count: int) -> tuple[list[str], list[dict]]:
    responses = [f"<answer>{i}</answer>" for i in range(count)]
    return responses, [{"problem_type": "numerical", "answer": i - i % 3} for i in range(count)]


def test_scores_come_in_order_and_equal_those_in_process(pool):
    responses, rows = numbers(5 * CHUNK + 3)
    expected = [rewards.score(r, row) for r, row in zip(responses, rows, strict=True)]
    assert pool.score_batch(responses, rows) == expected


def test_submissions_overlap(pool):
    futures = [pool.submit(*numbers(40)) for _ in range(3)]
    assert len({tuple(f.result()) for f in futures}) == 1
    assert pool.score_batch([], []) == []


def test_unicode_null_and_huge_responses_travel(pool):
    rows = [{"problem_type": "ocr", "answer": "停车\u2028\ud800"}] * 3
    responses = ["<answer>停车\u2028\ud800</answer>", None, "x" * 10**6]
    statuses = [s.status for s in pool.score_batch(responses, rows)]
    assert statuses[:2] == [Status.OK, Status.UNPARSED]


def test_a_hang_is_cut_and_the_others_are_scored(pool):
    responses, rows = numbers(6)
    responses.insert(2, "<answer>x</answer>")
    rows.insert(2, {"problem_type": "math", "answer": SLOW_TRUTH})
    start = time.perf_counter()
    scores = pool.score_batch(responses, rows)
    assert time.perf_counter() - start < 20
    assert [s.status for s in scores] == [*[Status.OK] * 2, Status.TIMEOUT, *[Status.OK] * 4]
    assert "over 1.0 s" in scores[2].detail


def test_a_dead_worker_is_replaced():
    with RewardPool(workers=1) as pool:
        pool._workers[0]._process.kill()
        responses, rows = numbers(3)
        statuses = [s.status for s in pool.score_batch(responses, rows)]
        assert statuses == [Status.ERROR, Status.OK, Status.OK]
        assert pool.score_batch(responses, rows)[0].status is Status.OK


def test_bad_requests_are_refused_at_once(pool):
    with pytest.raises(ValueError, match="1 responses for 2 rows"):
        pool.submit(["x"], numbers(2)[1])
    with pytest.raises(ValueError, match="unknown problem_type 'riddle'"):
        pool.submit(["x"], [{"problem_type": "riddle", "answer": "x"}])
    with pytest.raises(ValueError, match="'riddle' has no scorer"):
        pool.submit(["x"], [Task("riddle", "x")])
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        pool.submit(["x"], [{"problem_type": "ocr", "answer": object()}])
    with pytest.raises(ValueError, match="rewards.workers=0"):
        RewardPool(workers=0)


def test_arrays_of_parquet_rows_travel(pool):
    row = {"problem_type": "temporal grounding", "answer": {"time": np.array([1.0, 2.0])}}
    assert pool.score_batch(['<answer>{"time": [1, 2]}</answer>'], [row])[0].overall == 1


def test_a_worker_that_cannot_start_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ChildProcessError, match="ended with 1 at its start"):
        RewardPool(workers=1)


def test_workers_import_no_jax():
    code = "import sys, evr1.rewards.worker; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


ROWS = [
    {"problem_type": "MCQ", "response": "<answer>B</answer>", "answer": "B", "id": 7},
    {"problem_type": "numerical", "response": "4", "ground_truth": 5},
    {"problem_type": "numerical", "response": None, "ground_truth": 5},
    {"problem_type": "numerical", "response": "4", "ground_truth": "many"},
]


def test_command_with_files(tmp_path, capsys):
    source, out = tmp_path / "in.jsonl", tmp_path / "new" / "out.jsonl"
    source.write_text("\n".join(json.dumps(r) for r in ROWS) + "\n")
    __main__.main([f"--rows={source}", f"--out={out}", "--workers=1"])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["status"] for r in rows] == ["ok", "ok", "unparsed", "error"]
    first = {**ROWS[0], "overall": 1.0, "accuracy": 1.0, "format": 1.0}
    assert rows[0] == {**first, "status": "ok", "extracted": "B"}
    assert "many" in rows[3]["detail"]
    table = capsys.readouterr().err
    assert "multiple choice     1   1.0000    1.0000  1.0000" in table
    assert table.splitlines()[-1].split() == ["all", "4", "0.2500", "0.2500", "0.2500", *"101"]


def test_command_reads_what_arrow_fills_in(tmp_path):
    import pyarrow.parquet

    truths = [{"boxes": {"1": [0, 0, 4, 4]}}, {"boxes": {"3": [1, 1, 5, 5]}}]
    rows = [
        {"problem_type": "tracking", "answer": truth, "response": json.dumps(truth)}
        | {"rate": math.nan, "images": [{"bytes": b"\x89PNG\r\n", "path": None}]}
        | {"cover": b"\xff\xd8\xff", "note": b"plain", "price": decimal.Decimal("3.50")}
        for truth in truths
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    __main__.main([f"--rows={tmp_path / 'a.parquet'}", f"--out={tmp_path / 'o'}", "--workers=1"])
    scored = [json.loads(line) for line in (tmp_path / "o").read_text().splitlines()]
    assert [(r["answer"], r["accuracy"]) for r in scored] == [(truth, 1.0) for truth in truths]
    for row in scored:  # nothing is lost on the way through
        assert row["rate"] is None
        assert row["images"] == [{"path": "data:image/png;base64,iVBORw0K"}]
        cached = MediaCache(str(tmp_path / "cache")).put_url(row["images"][0]["path"])
        assert pathlib.Path(cached).read_bytes() == b"\x89PNG\r\n"
        assert row["cover"] == "data:image/jpeg;base64,/9j/"
        assert (row["note"], row["price"]) == ("plain", 3.5)


def test_command_reads_the_rows_of_other_tools(tmp_path):
    chat = [{"role": "user", "content": "<video>Which?"}]
    said = {"role": "assistant", "content": "<think>A?</think><answer>B</answer>"}
    rows = [
        {"problem_type": "mcq", "solution": "<answer>B</answer>", "path": "a.mp4", "clip": "b.mp4"},
        {"prompt": chat, "reward_model": {"style": "rule", "ground_truth": "B"}},
        {"messages": [*chat, said], "videos": ["a.mp4"]},
        {"question": "Which?", "choices": {"A": "dog", "B": "bars"}, "gt": "B"},
        {"query": "Which?", "solution": "B", "problem_type": "open-ended"},
        {"meta": {"gold": "B"}},
        {"problem": "Which?"},
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given = [row | {"response": "<answer>B</answer>"} for row in rows]
    source.write_text("\n".join(map(json.dumps, given)))
    flags = ["--workers=1", "--problem_type=ocr", '--columns={"answer": "meta.gold"}']
    __main__.main([f"--rows={source}", f"--out={out}", *flags])
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["status"] for r in scored] == ["ok"] * 6 + ["error"]
    assert [r["overall"] for r in scored] == [1.0] * 6 + [0.0]
    assert all(row.items() <= made.items() for row, made in zip(given, scored, strict=True))


def test_command_scores_its_own_output_again(tmp_path):
    once, twice = tmp_path / "once.jsonl", tmp_path / "twice.jsonl"
    row = {"problem_type": "riddle", "answer": 1, "response": "<answer>1</answer>"}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "detail": "x"}))
    __main__.main([f"--rows={tmp_path / 'in.jsonl'}", f"--out={once}", "--workers=1"])
    flags = ["--workers=1", "--unknown_type=numerical"]
    __main__.main([f"--rows={once}", f"--out={twice}", *flags])
    first, second = (json.loads(f.read_text().split("\n")[0]) for f in (once, twice))
    assert (first["status"], second["status"]) == ("error", "ok")
    assert "detail" in first
    assert "detail" not in second
    __main__.main([f"--rows={tmp_path / 'in.jsonl'}", f"--out={once}", *flags])
    assert json.loads(once.read_text().split("\n")[1])["detail"] == "x"  # the row's own field


def test_command_with_pipes():
    done = subprocess.run(
        [sys.executable, "-m", "evr1.rewards", "--rows", "-", "--out", "-", "--workers", "1"],
        input="\n".join(json.dumps(r) for r in ROWS),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [json.loads(line)["accuracy"] for line in done.stdout.splitlines()] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "in.jsonl:2: "),
        ("[]", "in.jsonl:2: got \\[\\]; a row is a JSON object"),
        ("3", "in.jsonl:2: got 3; a row is a JSON object"),
        ('{"x": ' + "[" * 200_000, "in.jsonl:2: nested too deeply"),
        ('{"x": ' + "[" * 900 + "]" * 900 + "}", "in.jsonl:2: nested too deeply"),
    ],
)
def test_command_names_the_bad_line(tmp_path, line, message):
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(ROWS[0]) + "\n" + line + "\n")
    with pytest.raises(SystemExit, match=message):
        __main__.main([f"--rows={source}", f"--out={tmp_path / 'out'}", "--workers=1"])


def test_a_type_that_is_none_is_a_wrong_flag(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(SystemExit, match="unknown problem_type 'openended'"):
        __main__.main([f"--rows={source}", f"--out={tmp_path / 'o'}", "--problem_type=openended"])
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("row", "name", "detail"),
    [
        ({"problem_type": "riddle", "answer": 1}, "riddle", "unknown problem_type 'riddle'"),
        ({"problem_type": "tracking"}, "tracking", "the row has no answer"),
        ({"problem_type": "MCQ", "answer": None}, "multiple choice", "the row has no answer"),
        ({"answer": 1}, "(none)", "problem_type is None"),
        ({"problem_type": ["ocr"], "answer": 1}, "(none)", "problem_type is ['ocr']"),
        ({"problem_type": "ocr", "answer": 1, "response": 3}, "ocr", "response is 3"),
        ({"problem_type": "ocr", "answer": 1, "options": 5}, "ocr", "options are 5"),
    ],
)
def test_command_marks_the_row_and_goes_on(tmp_path, capsys, row, name, detail):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    row = {"response": "x"} | row
    source.write_text("\n".join(map(json.dumps, [ROWS[0], row, ROWS[0]])))
    __main__.main([f"--rows={source}", f"--out={out}", "--workers=1"])
    first, bad, last = map(json.loads, out.read_text().splitlines())
    assert first == last
    assert (first["overall"], bad["overall"], bad["status"]) == (1, 0, "error")
    assert detail in bad["detail"]
    assert bad.items() >= row.items()
    assert f"\n{name} " in capsys.readouterr().err


def test_a_missing_response_comes_first_and_flags_are_named(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"answer": 1}, {"problem_type": "ocr", "response": "x", "gt": "b", "label": "c"}]
    source.write_text("\n".join(map(json.dumps, rows)))
    __main__.main([f"--rows={source}", f"--out={out}", "--workers=1"])
    first, second = map(json.loads, out.read_text().splitlines())
    assert first["detail"] == "response is missing; give a text or null"
    assert "gt and label differ; name the one in --columns, e.g." in second["detail"]
    with pytest.raises(SystemExit, match="^error: --unknown_type='nothing'"):
        __main__.main([f"--rows={source}", f"--out={out}", "--unknown_type=nothing"])


def test_command_reads_what_data_files_are_written_in(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{**r, "ground_truth": str(r.get("ground_truth") or r["answer"])} for r in ROWS]
    rows = [{k: v for k, v in r.items() if k != "answer"} for r in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    dated = [{**r, "made": datetime.date(2026, 1, 2)} for r in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(dated), tmp_path / "a.parquet")
    found = {}
    for suffix in ("jsonl", "json", "parquet"):
        flags = [f"--rows={tmp_path}/a.{suffix}", f"--out={tmp_path}/{suffix}.out", "--workers=1"]
        __main__.main(flags)
        out = map(json.loads, (tmp_path / f"{suffix}.out").read_text().splitlines())
        found[suffix] = [(r["status"], r["overall"], r.get("made")) for r in out]
    assert [f[0] for f in found["jsonl"]] == ["ok", "ok", "unparsed", "error"]
    assert found["json"] == found["jsonl"]
    assert found["parquet"] == [(*f[:2], "2026-01-02") for f in found["jsonl"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{}", "got no list; a .json file is a list"),
        ("a.json", b"[1]", "a.json, row 1: got 1; a row is a JSON object"),
        ("a.json", b'[{"x": 1}', "a.json: .*a .json file is a list of objects"),
        ("a.json", b"\xe9", "a.json: not UTF-8"),
        ("a.json", b"[" * 200_000, "a.json: nested too deeply"),
        ("a.parquet", b"PAR0", "a.parquet: Parquet: "),
        ("a.jsonl", b"\n", "a.jsonl: no rows"),
    ],
)
def test_command_refuses_files_that_hold_no_rows(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match=message) as e:
        __main__.main([f"--rows={tmp_path / name}", f"--out={tmp_path / 'out'}", "--workers=1"])
    assert "\n" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_command_keeps_an_old_result_when_the_rows_are_missing(tmp_path):
    out = tmp_path / "out"
    out.write_text("old")
    with pytest.raises(SystemExit, match="error: .*absent"):
        __main__.main([f"--rows={tmp_path / 'absent'}", f"--out={out}"])
    assert out.read_text() == "old"


def test_command_leaves_nothing_half_written(tmp_path):
    """A bad line far down costs neither the old result nor the rows themselves."""
    source = tmp_path / "in.jsonl"
    source.write_text((json.dumps(ROWS[0]) + "\n") * 5000 + "{\n")
    before = source.read_text()
    with pytest.raises(SystemExit, match="in.jsonl:5001: "):
        __main__.main([f"--rows={source}", f"--out={source}", "--workers=1"])
    assert source.read_text() == before
    assert list(tmp_path.iterdir()) == [source]


def test_command_survives_what_is_no_text(tmp_path):
    """A lone surrogate, which JSON can spell and UTF-8 cannot."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({**ROWS[0], "note": "\ud800"}) + "\n", "utf-8-sig")
    __main__.main([f"--rows={source}", f"--out={out}", "--workers=1"])
    assert json.loads(out.read_text())["accuracy"] == 1
    source.write_bytes(b'{"response": "\xe9"}\n')
    with pytest.raises(SystemExit, match="in.jsonl: not UTF-8"):
        __main__.main([f"--rows={source}", f"--out={out}", "--workers=1"])


def test_the_other_fields_of_a_row_reach_the_scorer_and_none_stops_the_batch(pool):
    row = {"problem_type": "numerical", "answer": 3, "date": datetime.date(2026, 1, 2), "size": 4}
    response = "<answer>3</answer>"
    item = json.loads(_encode(response, make_task(row)))
    assert item == [
        response,
        ["numerical", 3, [], "", "", False],
        {"date": "2026-01-02", "size": 4},
    ]
    assert [s.accuracy for s in pool.score_batch([response], [row])] == [1.0]


def test_command_scores_rollouts_as_a_run_writes_them(tmp_path):
    rows = [
        {"problem_type": "numerical", "answer": 3, "completion": "<answer>3</answer>"},
        {"problem_type": "numerical", "answer": 3},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    __main__.main(["--rows", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")])
    first, second = (json.loads(s) for s in (tmp_path / "out.jsonl").read_text().splitlines())
    assert first["overall"] == 1
    assert (second["status"], second["detail"]) == (
        "error",
        "response is missing; give a text or null",
    )

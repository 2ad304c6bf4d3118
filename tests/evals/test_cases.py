"""Executed cases of the kits: every rule reads and scores what its kit does."""

import json
import math
from pathlib import Path

import pytest

from evr1.evals import __main__ as command
from evr1.evals import cases
from evr1.evals.tasks import TASKS

GOLDEN = Path(__file__).parents[1] / "golden" / "evals"
# Kinds of cases that nothing of ours stands for yet, or cannot: what a kit raises is no target.
DONE = sorted({*TASKS, *cases.KITS} & {path.stem for path in GOLDEN.glob("*.jsonl")})

# Names of differences where a case does not hold what its kit saw, so that nothing can be said.
ABSENT = ("no_question", "released_questions")


def rows(task):
    """Yields the recorded cases of a task as loose rows, with what is expected of each."""
    lines = (GOLDEN / f"{task}.jsonl").read_text("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        group = json.loads(line)
        for place, (response, extracted, score) in enumerate(group["cases"]):
            row = {k: group[k] for k in ("task", "what", "profile", "doc")}
            row |= {"id": f"{task}:{number}:{place}", "response": response}
            row |= {k: group[k] for k in ("variant", "scorer", "sha256") if k in group}
            yield row, extracted, score, group.get("error")


def is_same(ours, theirs):
    """Whether two values are the same, floats to the last digits."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(is_same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(is_same, ours, theirs))
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-9)
    return ours == theirs


@pytest.mark.parametrize("task", DONE)
def test_rules_agree_with_their_kits(task):
    differing, count, wrong = 0, 0, []
    rules = TASKS[task].rules if task in TASKS else ["easyvideor1"]
    for row, extracted, score, error in rows(task):
        if error or row["profile"] not in rules:
            continue
        count += 1
        got = cases.score_case(row)
        if "differs" in got:
            assert got["differs"] in TASKS[task].differs, row["id"]
            differing += got["differs"] not in ABSENT
        elif "sha256" in row:
            if got["sha256"] != row["sha256"]:
                wrong.append((row["id"], row["profile"], row["sha256"], got))
        elif not (is_same(got["score"], score) and is_same(got["extracted"], extracted)):
            wrong.append((row["id"], row["profile"], row["response"], extracted, score, got))
    assert not wrong, f"{len(wrong)} of {count}, e.g. {wrong[:3]}"
    assert count
    assert differing <= 0.05 * count


NUMBER = {"question_type": "object_counting", "question": "How many?", "ground_truth": "0"}
TOOL = {"question": "Which?", "candidates": ["Rake", "Hoe"], "answer": "Hoe"}
PLAN = {"response": "Final Answer: plan", "extracted_by_llm": "up, down"}
TUBE = {"split": [0, 299], "width": 99, "height": 99, "gt": {"tvg": [61, 73], "svg": {"61": [0]}}}
RATED = {"action": [{"rating": 1}], "order": [{"rating": 0}]}
STOPPED = [  # task, profile, what, doc, response
    ("mlvu", "vlmevalkit", "case", TOOL, ""),
    ("vsi_bench", "official", "case", NUMBER, "1"),
    ("vsi_bench", "lmms_eval", "case", NUMBER, "1"),
    ("tempcompass", "official", "case", {"task": "judge verdict"}, "incorrect"),
    ("video_reason_bench", "official", "case", {"demo": "hrd"}, PLAN),
    ("video_math_qa", "lmms_eval", "aggregate", [{"category": "Geometry"}], None),
    ("vsi_bench", "lmms_eval", "aggregate", [{"question_type": "route_planning"}], None),
    ("lvbench", "official", "aggregate", {"meta": [], "answers": {}}, None),
    ("tempcompass", "official", "aggregate", {"eval_results": {"v": RATED}}, None),
    ("tempcompass", "vlmevalkit", "aggregate", {"rows": [{"prediction": ""}]}, None),
    ("ovo_bench", "streamforest", "case", {"task": "EPM", "gt": 0, "options": ["a"]}, None),
    ("stvg", "official", "case", TUBE, "{<TEMP-020><TEMP-024>}"),
    ("stvg", "official", "case", {"fps": 4}, None),
]


@pytest.mark.parametrize(("task", "profile", "what", "doc", "response"), STOPPED)
def test_where_a_kit_stops_is_named(task, profile, what, doc, response):
    if isinstance(doc, list) and task == "video_math_qa":
        doc = [row | {"question_id": "1", "pred_answer": "A", "answer": "A"} for row in doc]
    row = {"id": "1", "task": task, "profile": profile, "what": what, "doc": doc}
    assert cases.score_case(row | {"response": response})["differs"] == "kit_stops"
    assert "kit_stops" in TASKS[task].differs


def table(task, profile, doc, **more):
    """What a kit's table says of a doc."""
    row = {"id": "1", "task": task, "profile": profile, "what": "aggregate", "doc": doc}
    return cases.score_case(row | more)["score"]


def test_tables_of_authors_by_hand():
    dims = {"action": 2, "direction": 2, "speed": 2, "order": 1, "attribute_change": 4}
    rated = {
        f"v{i}": {dim: [{"rating": r} for r in (1, 1, 0)] for dim, n in dims.items() if i < n}
        for i in range(4)
    }
    rated["v0"]["order"] = [{"rating": -1}, {"rating": 1}, {"rating": 1}]
    found = table("tempcompass", "official", {"eval_results": rated})
    right = {dim: 66.7 for dim in dims} | {"order": 33.3}
    assert found == right | {"avg": round(100 * 21 / 33, 1)}
    row = {"problem": "Who?\nA. x\nB. y\nC. z\nD. w", "answer": "B", "problem_type": "plot"}
    said = ("<think>a</think><answer>B</answer>", "B. y", None)
    rows = [row | {"response": text} for text in said]
    assert table("longvideo_reason", "official", {"rows": rows}) == 0.5  # of those that are there
    percents = table("longvideo_reason", "lmms_eval", {"rows": rows})
    assert percents == pytest.approx(
        {"overall": 200 / 3, "strict": 100 / 3, "wellformed": 200 / 3, "format": 100 / 3}
        | {"temporal": 0, "goal": 0, "plot": 200 / 3, "spatial": 0}
    )


def test_tables_of_answers_by_hand():
    docs = [{"answer_id": 2, "response": text} for text in ("C", "A", "Answer: C", "none")]
    assert table("minerva", "lmms_eval", {"rows": docs}) == 50
    scored = [{"score": s, "question_type": t} for s, t in ((1, "A,B"), (0, "B,A"))]
    assert table("minerva", "lmms_eval", scored) == 50
    types = [{"score": s, "question_type": t} for s, t in ((1, "SR"), (0, "SR"), (1, "TA"))]
    assert table("video_holmes", "lmms_eval", {"rows": types}) == pytest.approx(200 / 3)
    one = table(
        "video_holmes", "lmms_eval", {"rows": types}, scorer="u.py:video_holmes_aggregate_SR"
    )
    assert one == 50
    assert table("video_holmes", "vlmevalkit", types) == {
        "acc_by_type": {
            "SR": {"correct": 1, "total": 2, "acc": 0.5},
            "TA": {"correct": 1, "total": 1, "acc": 1.0},
        },
        "total": {"correct": 2, "total": 3, "acc": pytest.approx(2 / 3)},
    }


def test_tables_of_steps_by_hand():
    shares = [("", 0.5), (0.0, 0.0), (0.5, 1.0), (1.0, "")]
    rows = [{"Video_precision": "", "overall_precision": p, "overall_recall": r} for p, r in shares]
    ours = table("vcr_bench", "official", {"rows": rows})["overall_metrics"]
    assert ours["overall"] == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5})
    assert ours["Video"] == {"precision": 0, "recall": 0, "f1": 0}
    theirs = table("vcr_bench", "vlmevalkit", {"rows": rows})["overall_metrics"]
    assert theirs["overall"] == pytest.approx({"precision": 0.75, "recall": 0.75, "f1": 0.75})
    judged = [
        {"answer_scoring": "1", "dimension": "Video Plot Analysis", "duration": 60},
        {"answer_scoring": "1\n", "dimension": "Video Plot Analysis", "duration": 301},
    ]
    for profile in ("official", "vlmevalkit"):
        assert table("vcr_bench", profile, judged) == {
            "overall_accuracy": 0.5,
            "dimension_accuracy": {"Video Plot Analysis": 0.5},
            "duration_accuracy": {"0-60": 1, "60-300": 0, "300+": 0},
        }


def test_a_table_of_nothing_is_told():
    with pytest.raises(ValueError, match="the doc has no rows; give a list"):
        table("minerva", "lmms_eval", {"n": 4})


def test_the_evaluator_of_vidstg_without_its_temporal_part():
    doc = {"fps": 10, "start_frame": 0, "end_frame": 100, "gold_box_xywh": [10, 10, 10, 10]}
    doc |= {"tube_start_frame": 20, "tube_end_frame": 40}
    row = {"id": "1", "task": "stvg", "profile": "official", "doc": doc}
    row |= {"response": {"sted": [20, 40], "box_frame_20": [10, 10, 20, 20]}}
    assert cases.score_case(row)["score"]["viou"] == 1
    spatial = cases.score_case(row | {"kind": "no temporal part"})
    assert spatial["score"] == {"gt_viou": 1.0}
    assert spatial["extracted"] == {"frames": 1, "gold_frames": 1}


def test_a_wrong_verdict_would_be_seen():
    assert not is_same({"acc": 0.5}, {"acc": 0.6})
    assert not is_same(["A"], ["A", "B"])
    assert not is_same(None, 0)
    assert is_same({"acc": [1, 2.0]}, {"acc": (1.0, 2)})


def test_the_command_writes_a_verdict_a_case(tmp_path, capsys):
    doc = {"question": "Who?\n(A) Ann\n(B) Bob", "answer": "B", "question_type": []}
    case = {"id": "1", "task": "lvbench", "profile": "official", "doc": doc, "response": "(B) Bob"}
    bad = case | {"id": "2", "profile": "nobody"}
    odd = case | {"id": "3", "doc": {"question": "Who?"}}
    text = "".join(json.dumps(row) + "\n" for row in (case, bad, odd))
    (tmp_path / "in.jsonl").write_text(text)
    paths = [str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    command.main(["score", "--cases", paths[0], "--out", paths[1]])
    good, failed, unfit = map(json.loads, Path(paths[1]).read_text().splitlines())
    assert good == {"id": "1", "profile": "official", "extracted": "B", "score": 1.0}
    assert "no profile 'nobody'; there is " in failed["error"]
    assert unfit["error"].startswith("case 3, lvbench: KeyError('answer'); its doc or response")
    assert "2 of them with an error" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no-such-file"):
        command.main(["score", "--cases", str(tmp_path / "no-such-file"), "--out", paths[1]])


def test_tasks_are_listed(capsys):
    command.main(["list"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in TASKS)

"""What EasyVideoR1 gave in its two reward pipelines: evr1 agrees, or differs for a named reason.

`golden/reward_cases.jsonl` holds executed cases. Each reason is a row of the table of differences
in docs/rewards.md.
"""

import collections
import functools
import json
import re

import pytest
from repo import GOLDEN, ROOT

from evr1 import rewards
from evr1.formats import problem_types
from evr1.rewards import Status, math
from evr1.rewards.formulas import symbolic

ROWS = [json.loads(s) for s in (GOLDEN / "reward_cases.jsonl").read_text().splitlines()]
PIPELINES = ("unified_rl", "video_rl")
REWARDS = [r for r in ROWS if r["pipeline"] in PIPELINES]
INLINE = {**rewards.SCORERS, "math": functools.partial(math.score, equal=symbolic.equal_inline)}

# reason → what evr1 gives instead: (accuracy, format) → ids of the cases
DIFFERENCES = {
    "half format": {
        (0, 0): [105, 106, 207, 208, 305, 401, 493, 494, 521, 522, 795, 796, 797]
        + [623, 624, 629, 630, 635, 636]
    },
    "format in form": {(1, 0): [144, 156, 158, 244, 503, 504, 506, 835, 836], (0.5, 0): [604]},
    "polarity": {(1, 0): [269, 270, 301, 302, 309]},
    "one polarity": {(1, 0): [303, 304], (0, 0): [306, 798]},
    "last tag": {(1, 1): [187, 815]},
    "broken tag": {(1, 0): [70]},
    "last statement": {(1, 0): [96, 455]},
    "open reasoning": {(0, 0): [91, 92, 451, 452]},
    "hedges": {(0, 0): [53, 54]},
    "letters": {(1, 1): [79, 80]},
    "option text": {(0, 0): [111, 112]},
    "numbers": {(1, 1): [139, 140, 141, 145, 151, 177, 241, 254], (1, 0): [143, 155, 157, 243]},
    "tolerance": {(0, 1): [130, 132, 770]},
    "infinities": {(0, 0): [169, 170, 249, 250, 251, 252, 495, 496, 497, 498, 847, 848]},
    "ocr": {(0.5, 1): [326, 328], (1, 1): [351]},
    "scripts": {(1, 1): [443, 444, 446]},
    "same text": {(1, 1): [434, 436]},
    "spans": {(1, 0): [505, 509, 517, 518, 829, 830], (0.5, 0): [601, 603]},
    "union": {(0.25, 0): [607, 608], (1 / 3, 1): [617, 618]},
    "nothing covered": {(0, 0): [479, 480, 547, 548], (0.5, 0): [843, 844]},
    "second keys": {(0.75, 1): [597, 598]},
    "boxes": {(1, 0): [551, 552]},
    "code": {(0, 1): [663]},
    "drawings, pages": {
        (4 / 35, 0): [677, 678],
        (1 / 17, 0): [687, 688],
        (0, 0): [707, 708, 709, 710],
    },
    "labels": {(1, 1): [714, 716, 718, 738], (0, 0): [727, 728, 729, 730]},
    "bad truth": {(0, 0): [481, 482, 537, 538]},
    "unknown type": {(0.7555555, 1): [754]},
}
EXPECTED = {
    i: (reason, score) for reason, s in DIFFERENCES.items() for score, ids in s.items() for i in ids
}


def canonical(row) -> str | None:
    try:
        return problem_types.canonical(row["problem_type"])
    except ValueError:
        return None


COMPARED = [r for r in REWARDS if canonical(r) is not None]


@pytest.mark.parametrize("row", COMPARED, ids=[r["id"] for r in COMPARED])
def test_same_as_the_reference_or_different_for_a_reason(row):
    task = {k: row.get(k) for k in ("problem_type", "ground_truth", "options")}
    result = rewards.score(row["response"], task, scorers=INLINE)
    theirs, ours = (row["accuracy"], row["format"]), (result.accuracy, result.format)
    if row["id"] in EXPECTED:
        assert theirs != pytest.approx(ours, abs=1e-6), "a difference that is none any more"
        assert ours == pytest.approx(EXPECTED[row["id"]][1], abs=1e-6)
    else:
        assert ours == pytest.approx(theirs, abs=1e-6)
    is_bad_truth = EXPECTED.get(row["id"], [""])[0] == "bad truth" or row["ground_truth"] == "inf"
    is_no_box = row["problem_type"] == "segmentation"  # both cases have the truth "a"
    assert (result.status is Status.ERROR) == (is_bad_truth or is_no_box)


def test_every_reason_is_a_row_of_the_table_in_the_docs():
    text = (ROOT / "docs/rewards.md").read_text()
    table = text[text.index("## Where evr1 differs") :]
    assert set(DIFFERENCES) <= set(re.findall(r"^\| ([a-z, -]+?) \|", table, re.MULTILINE))


def test_no_case_is_left_out():
    assert len(EXPECTED) == sum(len(i) for s in DIFFERENCES.values() for i in s.values())
    assert set(EXPECTED) <= {r["id"] for r in COMPARED}
    unknown = [r["problem_type"] for r in REWARDS if canonical(r) is None]
    assert collections.Counter(unknown) == {"": 4, None: 2}  # refused: "unknown type"
    others = collections.Counter(r["pipeline"] for r in ROWS if r["pipeline"] not in PIPELINES)
    # A benchmark's exact match and a judge's parser give no reward.
    assert others == {"eval_bench": 37, "judge_parse": 3, "judge_extract": 1}
    assert len(COMPARED) == len(ROWS) - 6 - 41 == 338

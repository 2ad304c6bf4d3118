"""Answers as models phrase them, right and wrong, in English and Chinese, each with its score.

`golden/reward_phrasings.jsonl` was written by hand, phrase by phrase, and checked by eye: markdown,
LaTeX, JSON, tags of tokenizers, units, clock times, list marks, trailing remarks, hedges, denials.
"""

import functools
import json

import pytest
from repo import GOLDEN

from evr1 import rewards
from evr1.rewards import math
from evr1.rewards.formulas import symbolic

LINES = (GOLDEN / "reward_phrasings.jsonl").read_text("utf-8").strip().split("\n")
CASES = [json.loads(line) for line in LINES]
INLINE = {**rewards.SCORERS, "math": functools.partial(math.score, equal=symbolic.equal_inline)}


@pytest.mark.parametrize("problem_type", sorted({case["problem_type"] for case in CASES}))
def test_phrasings(problem_type):
    wrong = []
    for case in CASES:
        if case["problem_type"] == problem_type:
            row = {k: case[k] for k in ("problem_type", "answer", "options") if k in case}
            score = rewards.score(case["response"], row | case.get("extra", {}), scorers=INLINE)
            is_same = score.accuracy == pytest.approx(case["accuracy"], abs=1e-3)
            if not is_same or score.format != case.get("format", score.format):
                wrong.append((case, score))
    assert not wrong


def test_wrong_answers_are_there_too():
    assert sum(case["accuracy"] == 0 for case in CASES) > 200

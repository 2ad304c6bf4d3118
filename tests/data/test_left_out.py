"""What is said about rows that a run does without."""

import numpy as np

from evr1.data import left_out, rows


def make_rows(*kinds):
    fields = {"problem": "q", "answer": "a"}
    return [
        rows.parse_row(fields | {"problem_type": kind}, i, f"rows.jsonl:{i + 1}")
        for i, kind in enumerate(kinds)
    ]


def test_a_line_for_each_reason_with_the_types_that_lose_most_first():
    made = make_rows("ocr", "math", "math", "math", "ocr", "ocr")
    lengths = np.array([30, 40, 50, 10, -1, 20])
    assert left_out.lines(made, lengths, 25, "training") == [
        "left out: 3 of 6 training rows are over data.max_prompt_tokens=25, up to 50 tokens "
        "(2 of 3 math, 1 of 3 ocr)",
        "left out: 1 of 6 training rows, whose media cannot be used (1 of 3 ocr)",
    ]
    assert left_out.lines(made, lengths, 40, "held-out")[0] == (
        "left out: 1 of 6 held-out rows are over data.max_prompt_tokens=40, up to 50 tokens "
        "(1 of 3 math); they count as wrong"
    )


def test_nothing_is_said_where_all_are_used():
    assert left_out.lines(make_rows("ocr"), np.array([25]), 25, "training") == []
    assert left_out.lines([], np.array([], int), 25, "held-out") == []

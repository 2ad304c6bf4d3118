"""How fast responses are scored: `python benchmarks/bench_rewards.py [--workers 2] [--json OUT]`.

Three tables, of responses with 200 words of reasoning:
  batch  a rollout batch of 2,048 mixed responses in groups of 8 through warm scoring processes, of
         every type that runs no code
  types  microseconds a response by type, in this process
  code   programs with three tests each, through warm scoring processes and their sandboxes
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import common
from evr1 import rewards
from evr1.rewards import math
from evr1.rewards.formulas import symbolic
from evr1.rewards.pool import RewardPool

GROUP = 8  # responses of one row
WORDS = [
    "the",
    "car",
    "turns",
    "left",
    "a",
    "man",
    "in",
    "red",
    "opens",
    "one",
    "door",
    "we",
    "count",
]


def number_row(rng: random.Random) -> tuple[Any, list[str]]:
    """Returns a truth and answers as models write them, right and wrong."""
    n = rng.randrange(1, 999)
    return n, [f"{n}", f"{n}.0", f"{n} s", f"about {n}", f"{n + 1}", f"{n - 1}", f"{n * 2}", "many"]


def math_row(rng: random.Random) -> tuple[Any, list[str]]:
    """As above; five in eight need algebra."""
    a, b = rng.randrange(2, 30), rng.randrange(2, 30)
    roots = [
        rf"{a}\sqrt{{{b}}}",
        rf"\sqrt{{{a * a * b}}}",
        rf"{b}\sqrt{{{a}}}",
        rf"\frac{{{a}}}{{{b}}}",
    ]
    return roots[0], [*roots, f"{a}", f"x = {roots[1]}", rf"{a}x + {b}", "no solution"]


def text_row(rng: random.Random) -> tuple[Any, list[str]]:
    """As above: sentences of twelve words with some of them changed."""
    words = rng.choices(WORDS, k=12)
    return " ".join(words), [" ".join(words[i:] + rng.choices(WORDS, k=i)) for i in range(GROUP)]


def span_row(rng: random.Random) -> tuple[Any, list[str]]:
    """As above."""
    start = rng.randrange(0, 60)
    spans = [json.dumps({"time": [start + i, start + 10]}) for i in range(GROUP - 2)]
    return {"time": [start, start + 10]}, [*spans, f"from {start} to {start + 10} s", "never"]


def box_row(rng: random.Random) -> tuple[Any, list[str]]:
    """As above."""
    box = [rng.randrange(500) for _ in range(2)]
    boxes = [[*box, box[0] + 90 + 9 * i, box[1] + 90] for i in range(GROUP)]
    return {"boxes": boxes[0]}, [json.dumps({"boxes": b}) for b in boxes]


def tube_row(rng: random.Random) -> tuple[Any, list[str]]:
    """As above: 20 seconds."""
    boxes = {str(i): [10 * i, 0, 10 * i + rng.randrange(50, 90), 100] for i in range(20)}
    parts = [dict(list(boxes.items())[i:]) for i in range(GROUP)]
    return {"boxes": boxes}, [json.dumps({"boxes": p}) for p in parts]


def both_row(rng: random.Random) -> tuple[Any, list[str]]:
    """As above."""
    truth, tubes = tube_row(rng)
    time_ = {"time": [0, 20]}
    return {**truth, **time_}, [json.dumps({**json.loads(t), **time_}) for t in tubes]


def points_row(rng: random.Random) -> tuple[Any, list[str]]:
    """As above: a box with points on it and beside it."""
    x, y = rng.randrange(100, 500), rng.randrange(100, 500)
    beside = {"negative_points": [[x - 50, y], [x + 150, y], [x, y - 50]]}
    answers = []
    for i in range(GROUP):
        points = [[x + 10 * i + 20 * j, y + 50] for j in range(1, 4)]
        answers.append({"boxes": [x, y, x + 100, y + 100], "positive_points": points, **beside})
    return answers[0], [json.dumps(a) for a in answers]


def drawing_row(rng: random.Random) -> tuple[Any, list[str]]:
    """As above: drawings of twenty circles."""
    radii = [rng.randrange(1, 9) for _ in range(20)]
    circles = [f'<circle cx="{5 * i}" cy="50" r="{r}" fill="#f00"/>' for i, r in enumerate(radii)]
    drawings = [f'<svg viewBox="0 0 100 100">{"".join(circles[i:])}</svg>' for i in range(GROUP)]
    return drawings[0], drawings


def page_row(rng: random.Random) -> tuple[Any, list[str]]:
    """As above: pages of twenty items."""
    items = [f"<li class='{w}'>{w} {i}</li>" for i, w in enumerate(rng.choices(WORDS, k=20))]
    pages = [f"<html><body><ul>{''.join(items[i:])}</ul></body></html>" for i in range(GROUP)]
    return pages[0], pages


CHOICES = ["B", "(B)", "B. Blue", "A", "C", "Blue", "A or B", "The answer is B"]
YES = ["Yes", "yes.", "True", "No", "false", "Yes, it is", "I think so", "maybe"]
LABELS = ["Response 1", "A", "first", "Response 2", "Tie", "Response 1 is better", "B", "both"]
MAKERS = {
    "multiple choice": lambda _: ("B", CHOICES),
    "numerical": number_row,
    "regression": number_row,
    "boolean": lambda _: ("Yes", YES),
    "ocr": text_row,
    "math": math_row,
    "temporal grounding": span_row,
    "spatial grounding": box_row,
    "tracking": tube_row,
    "spatial-temporal grounding": both_row,
    "open-ended": text_row,
    "preference": lambda _: ("Response 1", LABELS),
    "segmentation": points_row,
    "svg-code": drawing_row,
    "html-code": page_row,
}
PROGRAMS = {
    "runs": (
        "n = int(input())\nprint(sum(range(n + 1)))",
        [{"input": f"{n}\n", "output": str(n * (n + 1) // 2)} for n in (3, 10, 100)],
    ),
    "asserts": (
        "def f(x):\n    return x + 1",
        ["assert f(2) == 3", "assert f(0) == 1", "assert f(-1) == 0"],
    ),
}


def make_batch(count: int, kinds: list[str], seed: int = 0) -> tuple[list[str], list[dict]]:
    """Responses and their rows, in groups of one row."""
    rng = random.Random(seed)
    responses, rows = [], []
    for i in range(count // GROUP):
        kind = kinds[i % len(kinds)]
        truth, answers = MAKERS[kind](rng)
        options = ["Red", "Blue", "Green", "White"] if kind == "multiple choice" else []
        for answer in answers:
            thought = " ".join(rng.choices(WORDS, k=200))
            responses.append(f"<think>{thought}</think>\n<answer>{answer}</answer>")
            rows.append({"problem_type": kind, "answer": truth, "options": options})
    return responses, rows


def bench_batch(count: int, workers: int, repeats: int) -> list[dict]:
    """Rows of the table: seconds for a whole batch, each time other responses."""
    with RewardPool(workers) as pool:
        pool.score_batch(*make_batch(count, list(MAKERS), seed=99))  # imports the algebra
        seconds = []
        for seed in range(repeats):
            batch = make_batch(count, list(MAKERS), seed)
            begin = time.perf_counter()
            scores = pool.score_batch(*batch)
            seconds.append(time.perf_counter() - begin)
            assert all(s.status in ("ok", "unparsed") for s in scores)
    low, middle = min(seconds), statistics.median(seconds)
    columns = {"min s": low, "median s": middle, "responses/s": count / middle}
    return [{"responses": count, "workers": workers, **columns}]


def bench_types(count: int, repeats: int) -> list[dict]:
    """Rows of the table: microseconds a response; the processor's time, not the clock's."""
    symbolic.load()
    scorers = dict(rewards.SCORERS)
    scorers["math"] = lambda response, task: math.score(response, task, symbolic.equal_inline)
    table = []
    for kind in MAKERS:
        micros = []
        for seed in range(repeats):
            batch = list(zip(*make_batch(count, [kind], seed), strict=True))
            begin = time.process_time()
            for response, row in batch:
                rewards.score(response, row, scorers=scorers)
            micros.append((time.process_time() - begin) / count * 1e6)
        table.append({"type": kind, "min µs": min(micros), "median µs": statistics.median(micros)})
    return table


def bench_code(count: int, workers: int, repeats: int) -> list[dict]:
    """Rows of the table: programs a second by kind of test, each program right."""
    table = []
    with RewardPool(workers) as pool:
        for kind, (program, tests) in PROGRAMS.items():
            row = {"problem_type": "code", "answer": "", "tests": tests}
            batch = [f"<answer>{program}</answer>"] * count, [row] * count
            pool.score_batch(*batch)  # starts the launchers of the sandboxes
            seconds = []
            for _ in range(repeats):
                begin = time.perf_counter()
                scores = pool.score_batch(*batch)
                seconds.append(time.perf_counter() - begin)
                assert all(s.accuracy == 1 for s in scores)
            middle = count / statistics.median(seconds)
            table.append({"tests": f"3 {kind}", "programs/s": middle, "workers": workers})
    return table


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2048, help="responses of a batch")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="stem of the two files for the figures")
    args = parser.parse_args()
    batch = bench_batch(args.count, args.workers, args.repeats)
    common.show("A batch of mixed responses", batch, args.json and f"{args.json}-batch.json")
    types = bench_types(args.count // GROUP, args.repeats)
    common.show("A response by type", types, args.json and f"{args.json}-types.json")
    code = bench_code(64, args.workers, args.repeats)
    common.show("Programs in sandboxes", code, args.json and f"{args.json}-code.json")


if __name__ == "__main__":
    main()

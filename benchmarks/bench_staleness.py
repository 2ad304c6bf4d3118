"""The demo trained on what older weights drew, against synchronous training, at equal steps.

python benchmarks/bench_staleness.py --out DIR
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import curves
from benchmarks.common import show

CORRECTED = {"algorithm.correction": "token_tis", "algorithm.old_logprobs": "recompute"}
VARIANTS: dict[str, dict[str, Any]] = {
    "synchronous": {},
    "one step off": {"rollout.staleness": 1, **CORRECTED},
    "over-drawn": {"rollout.overdraw": 0.25, "rollout.slots": 16, **CORRECTED},
}


def main() -> None:
    """Trains the variants of every seed and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", required=True, help="directory of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="RL steps of each run")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--json", help="also write the figures here")
    flags = parser.parse_args()
    out = Path(flags.out).absolute()
    rows: list[dict[str, Any]] = []
    ends: dict[str, list[float]] = {name: [] for name in flags.only}
    for seed in range(flags.seeds):
        fields = curves.demo_data(out / f"data{seed}", seed) | {"num_steps": flags.steps}
        for name in flags.only:
            workdir = out / f"{name.replace(' ', '-')}-{seed}"
            lines = curves.train(workdir, {**fields, **VARIANTS[name]})
            found = curves.points(lines, "eval/accuracy")
            ends[name].append(found[-1][1])
            row: dict[str, Any] = {"seed": seed, "training": name}
            row |= {f"{step:g}": f"{100 * value:.1f}" for step, value in found}
            for metric in ("staleness/mean", "sampler/gap", "correction/ess"):
                values = [line[metric] for line in lines if metric in line]
                row[metric] = statistics.mean(values) if values else 0.0
            rows.append(row)
    show("held-out accuracy (%) by step", rows, flags.json)
    means = {name: f"{100 * statistics.mean(values):.1f}" for name, values in ends.items()}
    print("mean at the end:", means)


if __name__ == "__main__":
    main()

"""Mixed offline-online training against pure on-policy training on prompts that the model fails.

    python benchmarks/bench_mix.py --out DIR

The demo's questions for a number are made hard: "Add 40 to it." The demo's model never does, so its
own rollouts have nothing to learn from; the offline trajectories are the right answers. Both runs
of a seed have the same rows, model, steps and learning rate, and n completions a group.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import curves
from benchmarks.common import show

ADDED = 40
VARIANTS: dict[str, dict[str, Any]] = {
    "on-policy": {},
    "mixed": {"mix.enabled": True, "mix.accuracy_threshold": 0.5},
}


def make_hard(data: Path) -> None:
    """Beside the demo's rows: those that ask for a number, with 40 added, and with an answer to
    learn from.
    """
    for split in ("train", "heldout"):
        kept = []
        for line in (data / f"{split}.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["problem_type"] not in ("numerical", "regression"):
                continue
            row["problem"] += f" Add {ADDED} to it."
            row["answer"] = str(int(row["answer"]) + ADDED)
            row["problem_type"] = "numerical"
            row["offline_output"] = f"<answer>{row['answer']}</answer>"
            kept.append(json.dumps(row) + "\n")
        (data / f"hard_{split}.jsonl").write_text("".join(kept))


def main() -> None:
    """Trains both variants of every seed, prints the table, draws the curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", required=True, help="directory of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="RL steps of each run")
    parser.add_argument("--treatment", default="on_policy", help="of offline completions")
    parser.add_argument("--json", help="also write the figures here")
    flags = parser.parse_args()
    out = Path(flags.out).absolute()
    rows: list[dict[str, Any]] = []
    accuracy: dict[str, list[curves.Points]] = {name: [] for name in VARIANTS}
    for seed in range(flags.seeds):
        fields = curves.demo_data(out / f"data{seed}", seed)
        make_hard(out / f"data{seed}")
        fields["data.train"] = out / f"data{seed}" / "hard_train.jsonl"
        fields["data.eval"] = out / f"data{seed}" / "hard_heldout.jsonl"
        fields |= {"num_steps": flags.steps, "eval.every_steps": 10}
        fields["rollout.prompts"] = 16
        for name, more in VARIANTS.items():
            treatment = {"mix.treatment": flags.treatment} if more else {}
            lines = curves.train(out / f"{name}-{seed}", {**fields, **more, **treatment})
            found = curves.points(lines, "eval/accuracy")
            accuracy[name].append(found)
            row = {"seed": seed, "training": name}
            row |= {f"{step:g}": f"{100 * value:.1f}" for step, value in found}
            rows.append(row)
    show("held-out accuracy (%) on hard rows, by step", rows, flags.json)
    title = "Held-out accuracy on rows that the model fails"
    curves.plot(out / "mix.svg", title, "accuracy", accuracy)


if __name__ == "__main__":
    main()

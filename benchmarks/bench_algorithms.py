"""Every algorithm on the demo at equal steps: reward and held-out accuracy.

    python benchmarks/bench_algorithms.py --out DIR

All have the demo's data, model, learning rate and seed, and two updates per rollout batch, so that
ratios and clipping have something to do. A finished run in DIR is read, not made again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import curves
from benchmarks.common import show

TWO_UPDATES = {"algorithm.old_logprobs": "recompute", "algorithm.updates_per_rollout": 2}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "GRPO": {"algorithm.clip_high": 0.2, "algorithm.aggregation": "sequence_mean"},
    "DAPO": {"dynamic.enabled": True, "rewards.terms": "(('overlong_penalty', 0.5),)"},
    "GSPO": {"algorithm.policy": "gspo"},
    "CISPO": {"algorithm.policy": "cispo"},
    "RLOO": {"algorithm.advantage": "rloo"},
    "REINFORCE++": {
        "algorithm.advantage": "reinforce_plus_plus",
        "algorithm.kl_coef": 0.001,
        "algorithm.kl_estimator": "k1",
        "algorithm.kl_placement": "reward",
    },
    "Dr. GRPO": {"algorithm.advantage": "dr_grpo", "algorithm.aggregation": "fixed_length"},
    "Pass@k": {"algorithm.advantage": "grpo_passk"},
    "REINFORCE++ baseline": {"algorithm.advantage": "reinforce_plus_plus_baseline"},
    "GDPO": {"algorithm.advantage": "gdpo"},
    "MaxRL": {"algorithm.advantage": "maxrl"},
    "OPO": {"algorithm.advantage": "opo"},
    "EMA-GRPO": {"algorithm.advantage": "ema_grpo"},
    "Lite PPO": {"algorithm.advantage": "lite_ppo"},
    "ReMax": {"algorithm.advantage": "remax"},
    "T-GRPO": {"algorithm.temporal_bonus": 0.3},
    "PPO with critic": {"algorithm.advantage": "gae", "critic.learning_rate": 4e-4},
    "PPO, shared trunk": {
        "algorithm.advantage": "gae",
        "critic.trunk": "shared",
        "critic.learning_rate": 1e-2,
    },
    "GSPO-token": {"algorithm.policy": "gspo_token"},
    "SAPO": {"algorithm.policy": "sapo"},
    "GMPO": {"algorithm.policy": "gmpo"},
    "REINFORCE": {"algorithm.policy": "reinforce"},
    "GRPO, KL in loss": {"algorithm.kl_coef": 0.01},
    "GRPO, token TIS": {"algorithm.correction": "token_tis"},
}
BAR = ("GRPO", "DAPO", "GSPO", "CISPO", "RLOO", "REINFORCE++")  # these are to raise accuracy


def main() -> None:
    """Trains, prints the table, draws the curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", required=True, help="directory of the runs")
    parser.add_argument("--names", nargs="*", help=f"of {', '.join(ALGORITHMS)}; default: all")
    parser.add_argument("--steps", type=int, default=60, help="RL steps of each run")
    parser.add_argument("--json", help="also write the figures here")
    flags = parser.parse_args()
    out = Path(flags.out).absolute()
    data = curves.demo_data(out / "data", seed=0)
    rows, rewards, accuracies = [], {}, {}
    for name in flags.names or ALGORITHMS:
        fields = {**data, **TWO_UPDATES, "num_steps": flags.steps, **ALGORITHMS[name]}
        workdir = out / f"{name.replace(' ', '_').replace(',', '')}-{flags.steps}"
        lines = curves.train(workdir, fields)
        rewards[name] = [curves.points(lines, "reward/overall")]
        accuracies[name] = [curves.points(lines, "eval/accuracy")]
        rows.append(row(name, rewards[name][0], accuracies[name][0]))
    show("the demo, algorithm by algorithm", rows, flags.json)
    curves.plot(out / "reward.svg", "Reward of the rollouts", "mean reward", rewards)
    curves.plot(out / "accuracy.svg", "Held-out accuracy", "accuracy", accuracies)


def row(name: str, reward: curves.Points, accuracy: curves.Points) -> dict[str, str]:
    """Returns a line of the table: accuracy at each evaluation, mean reward at both ends."""
    line = {"algorithm": name}
    line |= {f"accuracy at {step:g}": f"{100 * value:.1f}" for step, value in accuracy}
    last = min(5, len(reward))
    line[f"reward, first {last}"] = f"{curves.mean_of_last(reward[:last], last):.3f}"
    line[f"reward, last {last}"] = f"{curves.mean_of_last(reward, last):.3f}"
    return line


if __name__ == "__main__":
    main()

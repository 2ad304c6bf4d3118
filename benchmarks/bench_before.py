"""A step of RL against an earlier commit: `python benchmarks/bench_before.py --before CHECKOUT`.

CHECKOUT is a worktree, `git worktree add /tmp/before 09603eb`. The same random model, prompts and
lengths go through both trees, each in a process of its own on one core; they take turns, and
seconds are those of the processor. Each tree does what is its default: an earlier one pads prompts
more and has a pass for old log-probabilities. `huge pages` is this tree once more, started with
glibc's tunable. `--memory` compares what the compiler sets aside instead, with remat on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
# Sizes of a model, shape of a batch, and the buckets of its prompts in an earlier tree and in this.
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...], dict[str, int]]] = {
    "33M": (
        dict(vocab=800, layers=8, width=512, mlp=1536, heads=8, kv_heads=4)
        | dict(vision_layers=4, vision_width=256),
        (2, 8, 16, 256, 64, 3),
        {"before": 640, "now": 544},
    ),
    "demo": (
        dict(vocab=642, layers=3, width=128, mlp=320, heads=4, kv_heads=2)
        | dict(vision_layers=3, vision_width=96),
        (32, 8, 8, 96, 28, 112),
        {"before": 160, "now": 160},
    ),
}
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


class Tree:
    """The parts of a step, made of whichever tree is first on the path."""

    def __init__(self, case: str, remat: str):
        import numpy as np
        import optax

        bench = import_module("benchmarks.bench_update")
        sizes, shape, buckets = CASES[case]
        self.is_old = not (Path.cwd() / "evr1" / "learner").exists()
        policy = remat != "none" if self.is_old else remat
        size, shape = bench.Size(**sizes, dtype="float32", remat=policy), bench.Shape(*shape)
        bucket = buckets["before" if self.is_old else "now"]
        self.model, self.shape = bench.make_model(size), shape
        rng = np.random.default_rng(0)
        self.params = self.model.abstract_params()
        self.examples = [bench.make_example(rng, shape, size) for _ in range(shape.groups)]
        t, h, w = shape.grid
        where = "evr1.types" if self.is_old else "evr1.batch.shapes"
        table = import_module(where).ShapeTable((bucket,), (t,), h * w, shape.completion_tokens)
        if self.is_old:
            collate = import_module("evr1.data.batch").collate
            self.prompts = collate(self.examples, table, bench.GEOMETRY, bench.TABLE_SIDE, 0)
        else:
            collator = import_module("evr1.batch.collate").Collator
            self.prompts = collator(table, bench.GEOMETRY, bench.TABLE_SIDE, 0)(self.examples)
        self.step = import_module("evr1.step" if self.is_old else "evr1.learner.update")
        loss = import_module("evr1.rl.losses").LossConfig(on_policy=not self.is_old)
        optim = import_module("evr1.optim" if self.is_old else "evr1.learner.optimizer")
        optimizer = optim.make_optimizer(optax.constant_schedule(1e-6))
        self.optimizer = optimizer
        self.update = self.step.make_update(self.model, optimizer, loss)
        self.logprobs = self.step.make_logprobs(self.model)
        self.sampler = import_module("evr1.sampler.driver").Sampler(
            self.model,
            shapes=table,
            geometry=bench.GEOMETRY,
            pos_grid=bench.TABLE_SIDE,
            n=shape.n,
            slots=shape.groups,
            window=16,
            pad_id=0,
        )
        where = "evr1.sampler" if self.is_old else "evr1.sampler.sampling"
        self.sampling = import_module(where).Sampling(
            max_tokens=shape.completion_tokens, end_ids=()
        )

    def begin(self) -> None:
        """Makes the state, of random parameters."""
        import jax
        import numpy as np

        rng = np.random.default_rng(0)

        def value(path: Any, leaf: Any) -> Any:
            is_scale = "scale" in jax.tree_util.keystr(path)
            drawn = rng.normal(is_scale, 0.02, leaf.shape).astype(np.float32)
            return jax.device_put(drawn, jax.devices()[0])

        params = jax.tree_util.tree_map_with_path(value, self.params)
        self.state = self.step.init_state(params, self.optimizer)

    def weights(self, params: Any) -> Any:
        """Returns the weights to draw with."""
        if self.is_old:  # in float32 they are the trainer's own
            return params
        weights = import_module("evr1.sampler.weights")
        return weights.with_layers_apart(weights.lay_out(params, self.model), self.model)

    def batch(self, rollouts: Any) -> Any:
        """Returns the batch of an update."""
        import numpy as np

        module = import_module("evr1.rl.batches" if self.is_old else "evr1.batch.assemble")
        gains = np.random.default_rng(1).normal(size=rollouts.lengths.shape).astype(np.float32)
        limit = self.shape.completion_tokens
        return module.group_batch(
            self.prompts, rollouts, gains, aggregation="token_mean", max_tokens=limit
        )

    def turn(self) -> dict[str, float]:
        """Makes a step; returns CPU seconds of its phases."""
        import jax

        marks = [time.process_time()]
        rollouts = self.sampler.generate(
            self.weights(self.state.params), self.examples, range(len(self.examples)), self.sampling
        )
        marks.append(time.process_time())
        batch = self.batch(rollouts)
        if self.is_old:
            old = self.logprobs(self.state.params, batch.prompts, batch.completions)
            batch = batch._replace(old_logprobs=jax.device_get(old))
        marks.append(time.process_time())
        grads = self.update.zeros(self.state.params) if self.is_old else None
        grads, _ = self.update.accumulate(self.state.params, grads, batch)
        self.state, _ = self.update.apply(self.state, grads)
        jax.block_until_ready(self.state.params)
        marks.append(time.process_time())
        names = ("rollout", "log-probs", "update")
        return dict(zip(names, map(lambda a, b: b - a, marks, marks[1:]), strict=False))

    def memory(self) -> dict[str, float]:
        """Returns MiB of temporaries of the gradient and of a decoded window."""
        import jax
        import numpy as np

        shape = (self.shape.groups, self.shape.n, self.shape.completion_tokens)
        rollouts = import_module("evr1.types").Rollouts(
            np.ones(shape, np.int32),
            np.zeros(shape, np.float32),
            np.full(shape[:2], shape[2], np.int32),
            np.zeros(shape[:2], bool),
        )
        grads = jax.eval_shape(self.update.zeros, self.params) if self.is_old else None
        gradient = self.update.accumulate.lower(self.params, grads, self.batch(rollouts))
        engine = (
            self.sampler.engine(self.sampling, self.prompts.tokens.shape[1])
            if (not self.is_old)
            else None
        )
        module = import_module("evr1.sampler.engine")
        if engine is None:
            engine = module.Engine(
                self.model,
                self.sampling,
                n=self.shape.n,
                slots=self.shape.groups,
                prompt_tokens=self.prompts.tokens.shape[1],
                completion_tokens=self.shape.completion_tokens,
                window=16,
            )
        decode = (module._generate if self.is_old else module.decode_window).lower(
            self.model,
            jax.eval_shape(self.weights, self.params),
            engine.init_decode_state(),
            engine.draws,
            window=16,
            mode=self.sampling.mode,
            mesh=None,
            stop_early=True,
        )
        programs = {"update": gradient, "decode": decode}
        return {
            name: program.compile().memory_analysis().temp_size_in_bytes / 2**20
            for name, program in programs.items()
        }


def work(tree: str, case: str, remat: str, is_memory: bool) -> None:
    """Serves turns of a tree: a line in, a line of JSON out."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sys.path[0] = tree
    parts = Tree(case, remat)
    if is_memory:
        print(json.dumps(parts.memory()), flush=True)
        return
    parts.begin()
    for _ in sys.stdin:
        print(json.dumps(parts.turn()), flush=True)


def begin(tree: Path, case: str, remat: str, *, is_memory: bool, env: dict[str, str]) -> Any:
    """Returns the process that serves a tree."""
    flags = ["--worker", str(tree), "--case", case, "--remat", remat]
    flags += ["--memory"] if is_memory else []
    return subprocess.Popen(
        [sys.executable, __file__, *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)} | env,
    )


def ask(process: Any, *, is_memory: bool = False) -> dict[str, float]:
    """Returns what a process says to a turn."""
    if not is_memory:
        process.stdin.write("turn\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args[3]}: ended with {process.wait()}")
    return json.loads(line)


def memory(before: Path, case: str) -> list[dict[str, Any]]:
    """Returns a line for each program."""
    told = {}
    for name, tree in (("before", before), ("now", HERE)):
        process = begin(tree, case, "full", is_memory=True, env={})
        told[name] = ask(process, is_memory=True)
        process.wait()
    return [
        {
            "case": case,
            "program": program,
            "before MiB": told["before"][program],
            "now MiB": told["now"][program],
            "now / before": told["now"][program] / told["before"][program],
        }
        for program in told["now"]
    ]


def seconds(before: Path, case: str, remat: str, repeats: int) -> list[dict[str, Any]]:
    """Returns a line for each variant; they take turns."""
    variants: dict[str, tuple[Path, dict[str, str]]] = {
        "before": (before, {}),
        "now": (HERE, {}),
        "now, huge pages": (HERE, HUGE_PAGES),
    }
    processes = {
        name: begin(tree, case, remat, is_memory=False, env=env)
        for name, (tree, env) in variants.items()
    }
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for turn in range(repeats + 2):
        for name, process in processes.items():
            phases = ask(process)
            if turn > 1:  # the first ones compile
                taken[name].append(phases | {"step": sum(phases.values())})
    for process in processes.values():
        process.stdin.close()
        process.wait()
    rows = []
    for name, turns in taken.items():
        row: dict[str, Any] = {"case": case, "tree": name}
        for phase in turns[0]:
            row[f"{phase} s"] = statistics.median(turn[phase] for turn in turns)
        pairs = zip(taken["before"], turns, strict=True)
        row["times faster"] = statistics.median(a["step"] / b["step"] for a, b in pairs)
        rows.append(row)
    return rows


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="checkout of the earlier commit")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--remat", default="none", help="of the steps that are timed")
    parser.add_argument("--memory", action="store_true", help="temporaries instead of seconds")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="where to write the figures")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.case, args.remat, args.memory)
        return
    if not args.before or not (args.before / "evr1").is_dir():
        parser.error(f"--before={args.before} is no checkout: git worktree add DIR COMMIT")
    sys.path.insert(0, str(HERE))
    common = import_module("benchmarks.common")
    rows = []
    for case in args.cases:
        if args.memory:
            rows += memory(args.before.resolve(), case)
        else:
            rows += seconds(args.before.resolve(), case, args.remat, args.repeats)
    title = "temporaries" if args.memory else "a step of RL"
    common.show(f"{title}, against an earlier commit", rows, args.json)


if __name__ == "__main__":
    main()

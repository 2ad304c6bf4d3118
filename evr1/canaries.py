"""Checks of the whole chain on the first batch, before the first step: each prints ✓ or ✗.

They catch the faults that let a run go on for hours and learn nothing: a model blind to its frames,
log-probabilities of another quantity, a verifier that marks the right answer wrong.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from evr1.config import Config
from evr1.data.records import Example
from evr1.heldout import Scorer
from evr1.rewards import extra
from evr1.rewards.gold import can_write, gold_answer
from evr1.rl import diagnostics
from evr1.rl.batches import group_batch, microbatches
from evr1.run import Data, Policy
from evr1.types import GroupBatch, Params, Rollouts

# Largest mean |difference| of sampler and trainer log-probabilities that is rounding alone.
GAP_LIMIT = {"float32": 1e-4, "bfloat16": 5e-2}
CHECKED_PARTS = 4  # microbatches that go through the model; the longest prompts come first
END_PROBABILITY = 1e-8  # below this an end token is never sampled in practice


class Finding(NamedTuple):
    """The outcome of one check."""

    name: str
    is_ok: bool
    detail: str


def check(
    config: Config,
    policy: Policy,
    data: Data,
    params: Params,
    score: Scorer,
    line: Callable[[str], None],
) -> None:
    """Runs every check on the first batch and prints it; the data position is left as it was.

    Raises:
        ValueError: a check failed.
    """
    position = data.train.get_state()
    examples = next(data.train)
    data.train.set_state(position)
    examples = policy.encode(params, examples)
    rollouts = policy.sampler.generate(
        policy.merged(params), examples, list(range(len(examples))), policy.sampling
    )
    rollouts = Rollouts(*(part[:, : config.rollout.n] for part in rollouts))  # no greedy baseline
    bare = _parts(config, policy, data, examples, rollouts)
    parts = [policy.with_vision(part, examples) for part in bare]
    findings = [
        _placeholders(data, examples),
        _gold_rewards(config, data, examples, score),
        _sampler_gap(policy, params, parts),
        _on_policy(policy, params, parts),
        _end_token(policy, params, parts, rollouts),
        _sees_frames(policy, params, bare, examples),
    ]
    for f in findings:
        line(f"{'✓' if f.is_ok else '✗'} {f.name}: {f.detail}")
    failed = [f.name for f in findings if not f.is_ok]
    if failed:
        raise ValueError(
            f"canaries failed: {', '.join(failed)}; mend what the ✗ lines say, or start with "
            "--config.canaries=False if you are sure"
        )


def _parts(
    config: Config,
    policy: Policy,
    data: Data,
    examples: Sequence[Example],
    rollouts: Rollouts,
) -> list[GroupBatch]:
    """The first microbatches as the update will see them, without their pixels: nothing is compiled
    for the checks alone."""
    sign = np.where(np.arange(rollouts.lengths.shape[1]) % 2, -1.0, 1.0).astype(np.float32)
    batch = group_batch(
        data.collate(examples),
        rollouts,
        np.broadcast_to(sign, rollouts.lengths.shape),
        aggregation=config.algorithm.aggregation,
        max_tokens=config.rollout.max_completion_tokens,
    )
    parts = microbatches(
        batch,
        config.train.microbatch_tokens,
        shapes=data.shapes,
        group_multiple=policy.group_multiple,
    )
    return parts[:CHECKED_PARTS]


def _placeholders(data: Data, examples: Sequence[Example]) -> Finding:
    merge = data.processor.geometry.merge_size**2
    wrong = [e.row.source for e in examples if int(e.is_visual.sum()) * merge != len(e.patches)]
    total = sum(int(e.is_visual.sum()) for e in examples)
    detail = f"{total} visual tokens in {len(examples)} prompts"
    return Finding("placeholders = features", not wrong, detail if not wrong else f"{wrong[0]}")


def _gold_rewards(
    config: Config, data: Data, examples: Sequence[Example], score: Scorer
) -> Finding:
    own = extra.load(config.rewards.extra).scorers  # only their author knows their answer form
    examples = [e for e in examples if e.row.problem_type not in own and can_write(e.row)]
    thinking, box_scale = data.processor.thinking, data.processor.box_scale
    answers = [gold_answer(e.row, thinking=thinking, box_scale=box_scale) for e in examples]
    scores = score(answers, [e.row for e in examples])
    low = [
        (s, e.row, a) for s, e, a in zip(scores, examples, answers, strict=True) if s.overall < 0.99
    ]
    if not low:
        return Finding("reward of a gold answer = 1", True, f"{len(scores)} rows")
    s, row, answer = low[0]
    detail = (
        f"{len(low)} of {len(scores)} rows below; first {row.source} ({row.problem_type}): "
        f"{answer!r} earns {s.overall:.2f} ({s.status.value})"
    )
    return Finding("reward of a gold answer = 1", False, detail)


def _sampler_gap(policy: Policy, params: Params, parts: Sequence[GroupBatch]) -> Finding:
    total = count = 0.0
    for part in parts:
        prompts, completions = policy.place((part.prompts, part.completions))
        logprobs = np.asarray(policy.logprobs(params, prompts, completions))
        gap = np.abs(logprobs - part.behavior_logprobs)[part.completion_mask]
        total, count = total + float(gap.sum()), count + gap.size
    mean, limit = total / max(count, 1), GAP_LIMIT[policy.model.dtype]
    return Finding(
        "sampler and trainer agree",
        mean <= limit,
        f"mean |log-probability difference| {mean:.1e} (limit {limit:.0e})",
    )


def _on_policy(policy: Policy, params: Params, parts: Sequence[GroupBatch]) -> Finding:
    sums: diagnostics.Sums = {}
    grads = policy.update.zeros(params)
    for part in parts:
        prompts, completions = policy.place((part.prompts, part.completions))
        old = policy.logprobs(params, prompts, completions)
        part = policy.place(part._replace(old_logprobs=old))
        grads, more = policy.update.accumulate(params, grads, part)
        sums = diagnostics.add(sums, more) if sums else more
    means = diagnostics.means(sums)
    ratio, kl = means["policy/ratio"], means["policy/kl_old"]
    # bf16 programs may round differently where XLA fuses differently
    limit = 1e-5 if policy.model.dtype == "float32" else 2e-2
    return Finding(
        "on policy: ratio 1, KL 0",
        abs(ratio - 1) <= limit and abs(kl) <= limit,
        f"ratio {ratio:.6f}, KL {kl:.1e}",
    )


def _end_token(
    policy: Policy, params: Params, parts: Sequence[GroupBatch], rollouts: Rollouts
) -> Finding:
    share = float(rollouts.finished.mean())
    if share > 0:
        return Finding("end token reachable", True, f"{share:.0%} of the completions ended")
    part = parts[0]
    prompts = policy.place(part.prompts)
    best = 0.0
    for end in policy.sampling.end_ids:
        tokens = policy.place(np.full_like(part.completions, end))
        at_start = policy.logprobs(params, prompts, tokens)[..., 0]
        best = max(best, float(jnp.exp(at_start).max()))
    return Finding(
        "end token reachable",
        best > END_PROBABILITY,
        f"no completion ended within {policy.sampling.max_tokens} tokens; an end token has "
        f"probability {best:.1e} at the start",
    )


def _sees_frames(
    policy: Policy, params: Params, parts: Sequence[GroupBatch], examples: Sequence[Example]
) -> Finding:
    name = "the answer reacts to the frames"
    part = next((p for p in parts if (p.prompts.visual_index >= 0).any()), None)
    if part is None:
        return Finding(name, True, "no image or video in the batch")
    blank = [
        dataclasses.replace(e, patches=np.zeros_like(e.patches), visual=None) for e in examples
    ]
    seen, unseen = (
        np.asarray(policy.logprobs(params, *policy.place_prompts(part, several)))
        for several in (examples, policy.encode(params, blank))
    )
    has_media = (part.prompts.visual_index >= 0).any(axis=1)
    largest = np.abs(seen - unseen).max(axis=(1, 2))
    largest = largest[has_media & part.completion_mask.any((1, 2))]
    return Finding(
        name,
        bool((largest > 1e-6).all()),
        f"blank frames move a log-probability by {largest.min():.1e} or more in every prompt",
    )

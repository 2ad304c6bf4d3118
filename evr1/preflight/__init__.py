"""Checks of the whole chain on the first batch, before the first step: each prints ✓ or ✗.

They catch the faults that let a run go on for hours and learn nothing: a model blind to its frames,
log-probabilities of another quantity, a verifier that marks the right answer wrong.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from evr1.batch.cut import Owners, microbatches
from evr1.data.dataset import Dataset
from evr1.data.processor import Processor
from evr1.data.records import Example, Row
from evr1.exchange import Group, Published, RolloutBatch, stack
from evr1.exchange.group import POLICY, broken_lines
from evr1.exchange.sharing import own, share
from evr1.formats.words import counted
from evr1.learner.advantages import with_advantages
from evr1.learner.learner import Learner
from evr1.models import lora
from evr1.parallel import hosts
from evr1.rewards.gold import can_write, gold_answer
from evr1.rl import diagnostics
from evr1.rl.outcomes import Outcomes
from evr1.rollout.heldout import Scorer
from evr1.rollout.sample import GroupSampler
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


@dataclasses.dataclass(frozen=True)
class Chain:
    """What is checked.

    Attributes:
        dataset: its first batch is drawn for; the data position is left as it was.
        sampler: of the run's rollouts.
        learner: of the run.
        score: scores texts against rows.
        own_types: problem types with scorers of the user's own: only their author knows their
            answer form.
    """

    dataset: Dataset
    sampler: GroupSampler
    learner: Learner
    score: Scorer
    own_types: Sequence[str] = ()


def check(chain: Chain, published: Published, params: Params, line: Callable[[str], None]) -> None:
    """Runs every check on the first batch and prints it.

    Args:
        chain: what is checked.
        published: weights to draw with.
        params: the same weights, as they are trained.
        line: prints a line.

    Raises:
        ValueError: a check failed.
    """
    batch = _stack(chain, _draw(chain, published))
    examples = [group.example for group in batch.groups]
    parts = _parts(chain.learner, batch)
    actor = chain.sampler.actor
    findings = [
        _placeholders(examples, actor.processor.geometry.merge_size),
        _gold_rewards(chain, actor.processor, examples),
        _open_reasoning(chain, actor.processor, examples),
        _sampler_gap(chain.learner, params, batch, parts),
        _on_policy(chain.learner, params, batch, parts),
        _end_token(chain, params, batch, parts[0]),
        _sees_frames(chain, published, params, (batch, parts)),
    ]
    for f in findings:
        line(f"{'✓' if f.is_ok else '✗'} {f.name}: {f.detail}")
    failed = [f.name for f in findings if not f.is_ok]
    if failed:
        raise ValueError(
            f"canaries failed: {', '.join(failed)}; mend what the ✗ lines say, or start with "
            "--config.canaries=False if you are sure"
        )


def _draw(chain: Chain, published: Published) -> list[Group]:
    """Returns the first batch with its features, and completions that nobody scores."""
    position = chain.dataset.train.get_state()
    examples = next(chain.dataset.train)
    chain.dataset.train.set_state(position)
    actor, n = chain.sampler.actor, chain.sampler.n
    examples = chain.sampler.with_features(published, examples)
    places = own(examples)
    mine, groups = [examples[i] for i in places], list[Group]()
    if mine:
        rollouts = actor.generate(published.params, mine, places, chain.sampler.sampling, n=n)
        for g, example in enumerate(mine):
            part = Rollouts(*(x[g, :n] for x in rollouts))  # no greedy baseline
            groups.append(Group(example, part, (), (), (POLICY,) * n, 0))
    shared = share(examples, groups)
    if lines := broken_lines(shared):
        raise ValueError(
            f"canaries: {lines[0]} ({len(lines)} of {len(shared)} rows); mend the model, or pass "
            "the rows over with data.skip"
        )
    return shared


def _stack(chain: Chain, groups: Sequence[Group]) -> RolloutBatch:
    actor = chain.sampler.actor
    shape = (len(groups), chain.sampler.n)
    lengths = np.stack([g.rollouts.lengths for g in groups])
    outcomes = Outcomes(np.zeros(shape, np.float32), np.ones(shape, bool), lengths)
    assert actor.shapes is not None
    return stack(groups, outcomes, actor.collator(actor.shapes))


def _parts(learner: Learner, batch: RolloutBatch) -> list[GroupBatch]:
    """Returns the first microbatches, without their pixels, in the largest shape of the update's:
    next to nothing is compiled for the checks alone."""
    shape = batch.rollouts.lengths.shape
    sign = np.where(np.arange(shape[1]) % 2, -1.0, 1.0).astype(np.float32)
    whole = with_advantages(learner.bare_batch(batch), np.broadcast_to(sign, shape))
    cutter = learner.cutter
    parts = microbatches(
        whole,
        cutter.microbatch_tokens,
        shapes=dataclasses.replace(cutter.shapes, parts=cutter.shapes.parts[-1:]),
        group_multiple=cutter.group_multiple,
        owners=Owners(batch.owners, cutter.hosts),
    )
    return parts[:CHECKED_PARTS]


def _placeholders(examples: Sequence[Example], merge_size: int) -> Finding:
    merge = merge_size**2
    wrong = [e.row.source for e in examples if int(e.is_visual.sum()) * merge != len(e.patches)]
    total = sum(int(e.is_visual.sum()) for e in examples)
    detail = f"{total} visual tokens in {len(examples)} prompts"
    return Finding("placeholders = features", not wrong, detail if not wrong else f"{wrong[0]}")


def _gold_rewards(chain: Chain, processor: Processor, examples: Sequence[Example]) -> Finding:
    rows = _writable(chain, examples)
    answers = [
        gold_answer(
            row,
            thinking=processor.thinking,
            box_scale=processor.box_scale,
            think_open=processor.think_open,
        )
        for row in rows
    ]
    scores = chain.score(answers, rows)
    low = [(s, row, a) for s, row, a in zip(scores, rows, answers, strict=True) if s.overall < 0.99]
    if not low:
        return Finding("reward of a gold answer = 1", True, counted(len(scores), "row"))
    s, row, answer = low[0]
    detail = (
        f"{len(low)} of {len(scores)} rows below; first {row.source} ({row.problem_type}): "
        f"{answer!r} earns {s.overall:.2f} ({s.status.value})"
    )
    return Finding("reward of a gold answer = 1", False, detail)


def _open_reasoning(chain: Chain, processor: Processor, examples: Sequence[Example]) -> Finding:
    """Checks that a completion which never leaves its reasoning earns nothing."""
    name = "reward of a gold answer in open reasoning = 0"
    rows = _writable(chain, examples)
    golds = [gold_answer(row, box_scale=processor.box_scale) for row in rows]
    # A tag that ends a block of the model's own counts; in the prompt's block nothing does.
    texts = golds if processor.think_open else [f"<think>{gold} or not" for gold in golds]
    scores = chain.score(texts, rows)
    paid = [(s, row, t) for s, row, t in zip(scores, rows, texts, strict=True) if s.overall > 0]
    if not paid:
        return Finding(name, True, counted(len(scores), "row"))
    s, row, text = paid[0]
    return Finding(
        name,
        False,
        f"{len(paid)} of {len(scores)} rows above; first {row.source} ({row.problem_type}): "
        f"{text!r} earns {s.overall:.2f}"
        + " behind a prompt that ends in <think>"
        * processor.think_open,
    )


def _writable(chain: Chain, examples: Sequence[Example]) -> list[Row]:
    """Returns the rows that a gold answer can be written for."""
    rows = [e.row for e in examples]
    return [r for r in rows if r.problem_type not in chain.own_types and can_write(r)]


def _sampler_gap(
    learner: Learner, params: Params, batch: RolloutBatch, parts: Sequence[GroupBatch]
) -> Finding:
    total = count = 0.0
    for part in parts:
        logprobs = _logprobs(learner, params, batch, part)
        gap = np.abs(logprobs - part.behavior_logprobs)[part.completion_mask]
        total, count = total + float(gap.sum()), count + gap.size
    mean, limit = total / max(count, 1), _gap_limit(learner)
    return Finding(
        "sampler and trainer agree",
        mean <= limit,
        f"mean |log-probability difference| {mean:.1e} (limit {limit:.0e})",
    )


def _logprobs(
    learner: Learner, params: Params, batch: RolloutBatch, part: GroupBatch
) -> np.ndarray:
    return hosts.whole(learner.programs.logprobs(params, *learner.place_shown(batch, part)))


def _gap_limit(learner: Learner) -> float:
    """Returns how far sampler and trainer may be apart; a cache in int8 is as rough as bfloat16."""
    model = lora.plain(learner.model)
    return GAP_LIMIT["bfloat16" if model.cache_dtype else model.dtype]


def _on_policy(
    learner: Learner, params: Params, batch: RolloutBatch, parts: Sequence[GroupBatch]
) -> Finding:
    sums: diagnostics.Sums = {}
    programs = learner.programs
    grads = learner.zeros(programs.update, params, len(parts))
    for part in parts:
        old = _logprobs(learner, params, batch, part)
        scored = part._replace(old_logprobs=old, behavior_logprobs=old)
        placed = learner.place(batch, scored)
        grads, more = programs.update.accumulate(params, grads, placed)
        sums = diagnostics.add(sums, more) if sums else more
    means = diagnostics.means(sums)
    ratio, kl = means["policy/ratio"], means["policy/kl_old"]
    # Where the update takes its own log-probabilities for the old ones the ratio says nothing.
    name = "sampler/gap" if "sampler/gap" in means else "policy/abs_log_ratio"
    gap, gap_limit = means[name], _gap_limit(learner)
    # bf16 programs may round differently where XLA fuses differently
    limit = 1e-5 if learner.model.dtype == "float32" else 2e-2
    return Finding(
        "on policy: ratio 1, KL 0",
        abs(ratio - 1) <= limit and abs(kl) <= limit and gap <= gap_limit,
        f"ratio {ratio:.6f}, KL {kl:.1e}, mean |log-probability difference| {gap:.1e}",
    )


def _end_token(chain: Chain, params: Params, batch: RolloutBatch, part: GroupBatch) -> Finding:
    ended = float(batch.rollouts.finished.mean())
    if ended > 0:
        return Finding("end token reachable", True, f"{ended:.0%} of the completions ended")
    best = 0.0
    for end in chain.sampler.sampling.end_ids:
        tokens = part._replace(completions=np.full_like(part.completions, end))
        at_start = _logprobs(chain.learner, params, batch, tokens)[..., 0]
        best = max(best, float(np.exp(at_start).max()))
    return Finding(
        "end token reachable",
        best > END_PROBABILITY,
        f"no completion ended within {chain.sampler.sampling.max_tokens} tokens; an end token has "
        f"probability {best:.1e} at the start",
    )


def _sees_frames(
    chain: Chain,
    published: Published,
    params: Params,
    cut: tuple[RolloutBatch, Sequence[GroupBatch]],
) -> Finding:
    """Checks that blank frames change an answer; `cut` is the batch with its bare microbatches."""
    name = "the answer reacts to the frames"
    batch, parts = cut
    part = next((p for p in parts if (p.prompts.visual_index >= 0).any()), None)
    if part is None:
        return Finding(name, True, "no image or video in the batch")
    blank = [g.example for g in batch.groups]
    for i in own(blank):
        zeros = np.zeros_like(blank[i].patches)
        blank[i] = dataclasses.replace(blank[i], patches=zeros, visual=None)
    blank = chain.sampler.with_features(published, blank)
    groups = tuple(g._replace(example=e) for g, e in zip(batch.groups, blank, strict=True))
    seen, unseen = (
        _logprobs(chain.learner, params, shown, part)
        for shown in (batch, dataclasses.replace(batch, groups=groups))
    )
    has_media = (part.prompts.visual_index >= 0).any(axis=1)
    largest = np.abs(seen - unseen).max(axis=(1, 2))
    largest = largest[has_media & part.completion_mask.any((1, 2))]
    return Finding(
        name,
        bool((largest > 1e-6).all()),
        f"blank frames move a log-probability by {largest.min():.1e} or more in every prompt",
    )

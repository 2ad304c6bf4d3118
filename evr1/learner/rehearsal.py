"""Has a learner's programs compiled: a step is made on microbatches without contents."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from evr1.batch.collate import empty_prompts
from evr1.data.records import Row, elsewhere
from evr1.exchange import Group, RolloutBatch
from evr1.learner import checkpoint
from evr1.learner.learner import Learner
from evr1.learner.programs import Programs
from evr1.learner.state import LearnerState, follow, saved_arrays, trained_params
from evr1.learner.update import Update
from evr1.parallel.ahead import Compiler
from evr1.rl.outcomes import Outcomes, Part
from evr1.sampler.rehearsal import Visuals, stack_visuals
from evr1.types import Params, Rollouts, no_count


def rehearse(
    learner: Learner,
    compiler: Compiler,
    state: LearnerState,
    row: Row,
    visuals: Visuals,
    *,
    is_checked: bool = False,
) -> None:
    """Has all compiled that a step of this learner will run, for every shape of microbatches.

    Args:
        learner: whose shapes are planned.
        compiler: gets the programs.
        state: of the learner; nothing of it is given away.
        row: any one of the data.
        visuals: see `evr1.sampler.rehearsal.blank_visuals`.
        is_checked: with the programs of the checks before the first step.
    """
    programs = _noting(learner, compiler)
    learner = dataclasses.replace(learner, programs=programs, count=no_count)
    shapes = learner.cutter.shapes
    for p, r, f in reversed(shapes.parts):
        batch = _blank(learner, row, (p, r, f), visuals)
        prepared, _ = learner.prepare(state, batch)
        learner.update_networks(state, prepared)
        if is_checked and (p, r, f) == shapes.parts[-1]:
            part = prepared.parts[0][0]
            learner.programs.logprobs(state.policy.params, *learner.place_shown(batch, part))
    s = learner.settings
    np.asarray(programs.schedule(state.updates))  # small programs, which run
    checkpoint.compile_slices(saved_arrays(s, state))
    for leaf in jax.tree.leaves(saved_arrays(s, state)):
        compiler.add(checkpoint.checksum, leaf)
    if s.is_reference_moving and not s.algorithm.reference_refresh_steps:
        params = trained_params(s, state.policy.params)
        compiler.add(follow, state.reference, params, s.algorithm.reference_decay)


def _noting(learner: Learner, compiler: Compiler) -> Programs:
    """Returns programs that are compiled and do not run; zero gradients are real ones."""
    programs = learner.programs

    def ones(function: Callable) -> Callable:
        return lambda *args: compiler.ones(function, *args)

    def noting(update: Update) -> Update:
        def accumulate(params: Params, grads: Params | None, *inputs: Any) -> tuple[Params, Any]:
            zeros = update.zeros(params) if grads is None else grads
            sums = compiler.ones(update.accumulate, params, grads, *inputs)[1]
            if grads is None and True in learner.adds_parts:
                compiler.add(update.accumulate, params, zeros, *inputs)
            return zeros, sums

        return Update(
            update.zeros,
            accumulate,
            lambda state, grads: (state, compiler.ones(update.apply, state, grads)[1]),
        )

    critic = programs.critic
    if critic is not None:
        critic = dataclasses.replace(
            critic, values=ones(critic.values), update=noting(critic.update)
        )
    return dataclasses.replace(
        programs,
        update=noting(programs.update),
        logprobs=ones(programs.logprobs),
        scored=programs.scored and ones(programs.scored),
        critic=critic,
    )


def blank_outcomes(n: int, length: int, problem_type: str) -> Outcomes:
    """Returns rewards of one group of completions from which every estimator gets advantages, where
    one group can have any: without these the group would be left out."""
    rewards = (np.arange(n) == 0).astype(np.float32)[None]  # one best: a tie would earn nothing
    return Outcomes(
        rewards,
        np.ones((1, n), bool),
        np.full((1, n), length, np.int32),
        {"accuracy": Part(1.0, rewards)},
        (problem_type,),
        is_offline=np.zeros((1, n), bool),
        baselines=np.full(1, 0.5, np.float32),
    )


def _blank(
    learner: Learner, row: Row, size: tuple[int, int, int], visuals: Visuals
) -> RolloutBatch:
    """Returns a batch of one group whose microbatch has prompt tokens, completion tokens and vision
    rows of this size."""
    shapes, s = learner.cutter.shapes, learner.settings
    (p, r, f), n, limit = size, s.rollout.n, s.rollout.max_completion_tokens
    vision = learner.model.config.vision
    prompts: Any = empty_prompts(1, shapes.largest[0], (shapes.largest[1], shapes.row_patches))
    prompts.lengths[:] = p
    prompts.vision.segment_ids[:, :f] = 1
    example = elsewhere(row, 0)
    visual = None
    if visuals:
        tokens = f * shapes.row_patches // vision.merge**2
        groups = learner.groups_of_part((p, r))
        stack_visuals(visuals, groups, tokens)  # these programs are small, and run
        visual = visuals[max(visuals)]
    example = dataclasses.replace(
        example, patches=np.zeros((0, vision.patch_values), np.uint8), visual=visual
    )
    rollouts = Rollouts(
        np.zeros((1, n, limit), np.int32),
        np.zeros((1, n, limit), np.float32),
        np.full((1, n), r, np.int32),
        np.ones((1, n), bool),
    )
    outcomes = blank_outcomes(n, r, row.problem_type)
    group = Group(example, Rollouts(*(x[0] for x in rollouts)), (), (), (), 0)
    return RolloutBatch((group,), prompts, rollouts, outcomes, vision.merge)

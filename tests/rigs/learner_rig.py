"""A learner over the groups of groups_rig, whose programs are plain sums: no model is run.

Every token of group g is g + 1, so a program can tell whose completions it is given.
"""

import dataclasses

import collect_rig
import families
import jax.numpy as jnp
import numpy as np
import step_rig
from groups_rig import SHAPES, N, R, make

from configs import base
from evr1.config import resolve
from evr1.config.learner import learner_settings
from evr1.exchange import Group, RolloutBatch
from evr1.learner.learner import make_learner
from evr1.learner.state import LearnerState
from evr1.learner.update import TrainState
from evr1.models import FAMILIES
from evr1.rl.outcomes import Outcomes
from evr1.rl.state import AlgorithmState
from evr1.types import Rollouts

LENGTHS = np.array([[8, 1], [2, 1], [5, 1], [3, 1]])
PROMPTS = [4, 16, 3, 15]
SPREAD = [[1, 0], [0, 1], [1, 0], [0, 1]]


def settings(**fields):
    """Settings of the learner: of the algorithm, or of a section as `mix={"enabled": True}`."""
    c = base.get_config()
    c.rollout.prompts, c.rollout.n, c.rollout.max_completion_tokens = 4, N, R
    c.train.microbatch_tokens = 2 * (16 + N * R)
    c.algorithm.old_logprobs = "recompute"
    for name, value in fields.items():
        if isinstance(value, dict):
            c[name].update(value)
        else:
            c.algorithm[name] = value
    return learner_settings(resolve(c, has_paths=False))


class Sums:
    """log p = params - .01 * (token + position); keeps which groups it was asked for."""

    def __init__(self):
        self.groups = []

    def __call__(self, params, prompts, completions):
        self.groups += groups_of(completions)
        return jnp.asarray(logprobs(params["w"], np.asarray(completions)), jnp.float32)


def logprobs(params, completions):
    return params - 0.01 * (completions + np.arange(completions.shape[2]))


def groups_of(completions):
    """The groups of these completions in order, without padding."""
    return [g for g in (np.asarray(completions[:, 0, 0]) - 1).tolist() if g >= 0]


def learner(settings, shapes=SHAPES, **programs):
    """A learner with `Sums` for log-probabilities; `programs` take the place of others."""
    model = step_rig.model()
    if settings.algorithm.balance_coef:  # which only a model with experts has
        build = FAMILIES["qwen3_vl_moe"]
        model = build(families.moe_config(), dtype="float32", remat="none")
    made = make_learner(settings, model, None, shapes)
    programs = {"logprobs": Sums()} | programs
    return dataclasses.replace(made, programs=dataclasses.replace(made.programs, **programs))


def rollout_batch(rewards, **outcomes):
    """Four groups with these rewards, of two problem types in turn; further fields of Outcomes."""
    batch = make(PROMPTS, LENGTHS[:, 0])
    rollouts = Rollouts(
        batch.completions, np.full((4, N, R), -1, np.float32), LENGTHS, np.ones((4, N), bool)
    )
    groups = tuple(
        Group(
            collect_rig.example(collect_rig.row(g)),
            Rollouts(*(x[g] for x in rollouts)),
            texts=("",) * N,
            scores=(),
            origins=("policy",) * N,
            version=0,
        )
        for g in range(4)
    )
    earned = Outcomes(
        np.float32(rewards), np.ones((4, N), bool), LENGTHS, tasks=["a", "b", "a", "b"], **outcomes
    )
    return RolloutBatch(groups, batch.prompts, rollouts, earned, merge_size=2)


def state(settings, *, reference=None, critic=None, updates=0):
    """The start: log p of the policy is `Sums` of 0, that of the reference of `reference`."""
    return LearnerState(
        step=0,
        policy=TrainState(updates, {"w": 0.0}, None),
        memory=AlgorithmState(settings.algorithm.kl_coef),
        critic=critic,
        reference=None if reference is None else {"w": reference},
    )

"""The list of programs: which there are, and that their arguments are those of a real run."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from repo import DEMO_MODEL
from rows_rig import make_example

from configs import base
from evr1.batch import features
from evr1.batch.shapes import ShapeTable
from evr1.config import resolve
from evr1.config.learner import held_prompts, learner_settings
from evr1.data.processor import Processor
from evr1.exchange import Group, stack
from evr1.learner.learner import make_learner
from evr1.learner.programs import Load, bytes_of, list_programs
from evr1.models import load_model, lora
from evr1.parallel.mesh import make_mesh
from evr1.rl.outcomes import Outcomes
from evr1.sampler import engine
from evr1.sampler.actor import Actor
from evr1.types import Rollouts

SHAPES = ShapeTable((32,), (2,), row_patches=16, completion_tokens=16)
PROMPTS, N, SHARDS = 8, 2, 4
SAMPLER = ["prefill", "decode"]
POLICY = ["logprobs", "gradient", "optimizer"]
CRITIC = ["values", "critic_gradient", "critic_optimizer"]
FREEZE = {"optim.freeze": ("vision/.*",)}
CASES = {
    "a greedy baseline and a KL": (
        {"algorithm.advantage": "remax", "algorithm.kl_coef": 0.1},
        [*SAMPLER, *POLICY],
    ),
    "a critic": ({"algorithm.advantage": "gae"}, [*SAMPLER, *POLICY, *CRITIC]),
    "a critic on the policy, frozen tower": (
        {"algorithm.advantage": "gae", "critic.trunk": "shared", **FREEZE},
        ["encode", *SAMPLER, *POLICY, *CRITIC],
    ),
    "a critic of another model, which has its own tower": (
        {"algorithm.advantage": "gae", "critic.model": f"{DEMO_MODEL}/", **FREEZE},
        ["encode", *SAMPLER, *POLICY, *CRITIC],
    ),
    "what a minibatch as a whole says": (
        {
            "algorithm.entropy_share": 0.5,
            "algorithm.covariance": "kl",
            "algorithm.entropy_controller": "adaptive",
        },
        [*SAMPLER, *POLICY],
    ),
    "adapters and a KL": (
        {"lora.rank": 4, "algorithm.kl_coef": 0.1},
        ["encode", *SAMPLER, *POLICY],
    ),
}


class Recorder:
    """Stands for a jitted function and keeps its arguments; gives ones, and compiles nothing."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, *arguments, **statics):
        self.calls.append((arguments, statics))
        shapes = self.function.eval_shape(*arguments, **statics)
        return jax.tree.map(lambda x: jax.device_put(np.ones(x.shape, x.dtype), x.sharding), shapes)


class Run:
    """A small learner and its actor on eight devices, with the list of their programs."""

    def __init__(self, fields):
        c = base.get_config()
        c.model, c.rollout.prompts, c.rollout.n = str(DEMO_MODEL), PROMPTS, N
        c.rollout.slots, c.rollout.window_steps = 8, 8
        c.rollout.max_completion_tokens = SHAPES.completion_tokens
        c.train.microbatch_tokens = SHARDS * (32 + N * SHAPES.completion_tokens)
        c.algorithm.old_logprobs = "recompute"
        for name, value in fields.items():
            section, field = name.split(".")
            c[section][field] = value
        self.settings = resolve(c, has_paths=False)
        self.mesh = make_mesh(data=2, fsdp=2, tensor=2)
        model = load_model(str(DEMO_MODEL), dtype="bfloat16", remat="full")
        settings = learner_settings(self.settings)
        self.learner = make_learner(settings, model, self.mesh, SHAPES)
        r = self.settings.rollout
        actor = Actor(
            lora.plain(self.learner.model),
            Processor.from_hf(str(DEMO_MODEL)),
            slots=r.slots,
            window=r.window_steps,
            mesh=self.learner.programs.actor_mesh,
            shapes=SHAPES,
        )
        held = held_prompts(self.settings)
        is_frozen = self.learner.programs.has_frozen_tower
        self.actor = actor.with_encoder(held) if is_frozen else actor
        load = Load(SHAPES, slots=8, prefill_groups=SHARDS, micro_groups=SHARDS, held=held)
        self.listed = {p.name: p for p in list_programs(settings, self.learner.programs, load)}

    def step(self, monkeypatch):
        """Runs an RL step; returns the (arguments, statics) of all calls of each program."""
        jitted = {
            "encode": (features, "encode_prompts"),
            "prefill": (engine, "read_prompts"),
            "decode": (engine, "decode_window"),
        }
        records = {name: Recorder(getattr(*place)) for name, place in jitted.items()}
        for name, place in jitted.items():
            monkeypatch.setattr(*place, records[name])
        programs = self.learner.programs
        records |= {
            "logprobs": Recorder(programs.scored or programs.logprobs),
            "gradient": Recorder(programs.update.accumulate),
            "optimizer": Recorder(programs.update.apply),
        }
        update = programs.update._replace(
            accumulate=records["gradient"], apply=records["optimizer"]
        )
        fields = {
            "update": update,
            "scored" if programs.scored else "logprobs": records["logprobs"],
        }
        if programs.critic is not None:
            critic = programs.critic
            records |= {
                "values": Recorder(critic.values),
                "critic_gradient": Recorder(critic.update.accumulate),
                "critic_optimizer": Recorder(critic.update.apply),
            }
            update = critic.update._replace(
                accumulate=records["critic_gradient"], apply=records["critic_optimizer"]
            )
            fields["critic"] = dataclasses.replace(critic, values=records["values"], update=update)
        programs = dataclasses.replace(programs, **fields)
        learner = dataclasses.replace(self.learner, programs=programs)
        with jax.set_mesh(self.mesh):
            state = learner.init()
            published = learner.publish(state)
            batch = self._rollouts(published)
            prepared, _ = learner.prepare(state, batch)
            learner.update(state, prepared)
        return {name: record.calls for name, record in records.items() if record.calls}

    def _rollouts(self, published):
        """What the actor draws, with the longest completions and rewards that differ."""
        values = self.learner.model.config.vision.patch_values
        clip = dataclasses.replace(
            make_example([(2, 4, 4)]), patches=np.zeros((32, values), np.uint8)
        )
        a, limit = self.settings.algorithm, SHAPES.completion_tokens
        greedy_rows = int(a.advantage == "remax")
        sampling = self.actor.sampling(max_tokens=limit, greedy_rows=greedy_rows)
        examples = self.actor.with_features(published.params, [clip] * PROMPTS)
        ids = list(range(PROMPTS))
        drawn = self.actor.generate(published.params, examples, ids, sampling, n=N)
        drawn = Rollouts(*(x[:, :N] for x in drawn))
        drawn = drawn._replace(lengths=np.full_like(drawn.lengths, limit))
        groups = [
            Group(e, Rollouts(*(x[g] for x in drawn)), ("",) * N, (), ("policy",) * N, version=0)
            for g, e in enumerate(examples)
        ]
        rewards = np.tile(np.float32([0, 1]), (PROMPTS, 1))
        outcomes = Outcomes(rewards, np.ones((PROMPTS, N), bool), drawn.lengths)
        if greedy_rows:
            outcomes = outcomes._replace(baselines=np.zeros(PROMPTS, np.float32))
        return stack(groups, outcomes, self.actor.collator(SHAPES))


@functools.cache
def run(case):
    return Run(CASES[case][0])


def assert_equal(planned, real, where):
    """The same arrays in the same places; what is no array is the very same."""
    assert jax.tree.structure(planned) == jax.tree.structure(real), where
    for (path, plan), got in zip(
        jax.tree_util.tree_leaves_with_path(planned), jax.tree.leaves(real), strict=True
    ):
        at = f"{where}{jax.tree_util.keystr(path)}"
        if not isinstance(plan, jax.ShapeDtypeStruct):
            assert plan == got, at
            continue
        assert (plan.shape, plan.dtype) == (got.shape, got.dtype), at
        if isinstance(got, jax.Array):
            assert got.sharding.is_equivalent_to(plan.sharding, got.ndim), at


@pytest.mark.parametrize("case", CASES)
def test_arguments_are_those_of_a_run_s_largest_calls(monkeypatch, case):
    """Shapes, types and places; all prompts and completions of the run have the largest shape."""
    listed = run(case).listed
    calls = run(case).step(monkeypatch)
    assert list(listed) == CASES[case][1]
    assert set(calls) == set(listed)
    for name, program in listed.items():
        for arguments, statics in calls[name]:
            assert statics == program.statics, name
            assert_equal(program.arguments, arguments, name)


def test_another_shape_would_be_seen(monkeypatch):
    listed = run("a critic").listed
    params, shared, prompts, completions = listed["values"].arguments
    longer = jax.ShapeDtypeStruct((4, 2, 17), completions.dtype, sharding=completions.sharding)
    for other in (
        (params, shared, prompts, longer),
        (params, params["trunk"], prompts, completions),
        (params, shared, prompts._replace(lengths=np.zeros(4, np.int64)), completions),
    ):
        with pytest.raises(AssertionError, match="values|None"):
            assert_equal(listed["values"].arguments, other, "values")


def test_what_lies_beside_a_program():
    """Whatever the step holds and the program is not given: states, a reference, slots, features.

    With adapters the reference is theirs alone, and the features of 8 prompts are held: 16 visual
    tokens of each in bfloat16, of the merger and of every tap, cut over the devices of a batch.
    """
    kl = run("a greedy baseline and a KL").listed
    state = kl["optimizer"].arguments[0]
    assert kl["optimizer"].beside == bytes_of(state.params)
    assert kl["decode"].beside == bytes_of(state) + bytes_of(state.params)
    assert kl["logprobs"].beside == bytes_of(state)
    slots = kl["decode"].arguments[2]
    assert kl["prefill"].beside == kl["decode"].beside + bytes_of(slots)

    critic = run("a critic").listed
    policy, own = (critic[name].arguments[0] for name in ("optimizer", "critic_optimizer"))
    assert critic["decode"].beside == bytes_of(policy) + bytes_of(own)
    assert critic["optimizer"].beside == bytes_of(own)
    assert critic["critic_optimizer"].beside == bytes_of(policy)
    assert critic["values"].beside == bytes_of(policy) + bytes_of(own) - bytes_of(own.params)

    adapted = run("adapters and a KL").listed
    state = adapted["optimizer"].arguments[0]
    vision = run("adapters and a KL").learner.model.config.vision
    taps = len(vision.taps)
    held = 8 * 2 * (16 // vision.merge**2) * vision.out_width * (1 + taps) * 2 // jax.device_count()
    assert adapted["decode"].beside == bytes_of(state) + bytes_of(state.params["lora"]) + held

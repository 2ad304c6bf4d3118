"""Features of a frozen tower: each prompt is encoded once, and nothing else sees the tower."""

import collections
import dataclasses
import functools

import collect_rig
import jax
import jax.numpy as jnp
import learner_rig
import models_oracle
import numpy as np
import pytest
import sampler_rig as rig
import step_rig
from traces import counted

from evr1.batch import features
from evr1.batch.collate import Collator, fill_patches
from evr1.exchange import Group, stack
from evr1.learner.update import TrainState
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import batch_sharding
from evr1.rl.outcomes import Outcomes
from evr1.sampler import Sampling
from evr1.telemetry import perf
from evr1.types import Rollouts, Visual

VIDEO, IMAGE = ("video", (2, 4, 4)), ("image", (1, 4, 6))
PARTS = [(5,), (4, VIDEO, 3), (9,), (2, IMAGE, 4), (7,), (3, IMAGE, 2, VIDEO, 5)]
EXAMPLES = [rig.example(parts, seed) for seed, parts in enumerate(PARTS)]
SHAPES = dataclasses.replace(rig.SHAPES, vision_rows=(1, 3))
FROZEN = ("vision/.*",)


def make_encoder(sampler, mesh=None, **changes):
    made = features.make_encoder(
        sampler.model, sampler.prompts, groups=sampler.prefill_groups, held=6, patches=72, mesh=mesh
    )
    return dataclasses.replace(made, **changes)


def without_tower(params):
    """A tower that would turn everything it has a part in into NaN."""
    return params | {"vision": jax.tree.map(lambda x: x * np.nan, params["vision"])}


def tokens_of(example):
    """The features that the prompt's own tokens look at, by place."""
    prompts = rig.sampler(shapes=SHAPES).prompts([features.without_features(example)])
    index = np.asarray(prompts.visual_index[0])
    index = index[index >= 0]
    return jax.tree.map(lambda x: np.asarray(x)[..., index, :], example.visual)


@functools.cache
def encoded():
    return make_encoder(rig.sampler(shapes=SHAPES, prefill_groups=2))(rig.params(), EXAMPLES)


def test_each_prompt_goes_through_the_tower_once_and_gives_its_features():
    passed = collections.Counter()
    sampler = rig.sampler(shapes=SHAPES, prefill_groups=2)

    def prompts(examples):
        passed.update(e.row.index for e in examples)
        return sampler.prompts(examples)

    got = make_encoder(sampler, prompts=prompts)(rig.params(), EXAMPLES)
    assert passed == dict.fromkeys(range(6), 1)
    encode, sampler = jax.jit(rig.model().encode), rig.sampler(prefill_groups=1)
    for example, given in zip(got, EXAMPLES, strict=True):
        assert example.patches is given.patches
        expected = encode(rig.params(), sampler.prompts([given]).vision)
        expected = dataclasses.replace(given, visual=jax.tree.map(lambda x: x[0], expected))
        for a, b in zip(tokens_of(example), tokens_of(expected), strict=True):
            assert a.size == b.size
            np.testing.assert_allclose(a, b, atol=1e-4)
    sizes = [e.visual.embeds.shape[0] for e in got]  # of the two largest prompts: 3 rows
    assert sizes == [6, 18, 6, 6, 6, 18]


def test_the_sampler_draws_the_same_tokens_from_features_alone():
    """The programs of the sampler are given a broken tower, and none of them notices."""
    sampler = rig.sampler(n=3, prefill_groups=2)
    sampling = Sampling(max_tokens=12, seed=5)
    want = sampler.generate(rig.params(), EXAMPLES, range(6), sampling)
    got = sampler.generate(without_tower(rig.params()), encoded(), range(6), sampling)
    np.testing.assert_array_equal(got.completions, want.completions)
    np.testing.assert_allclose(got.logprobs, want.logprobs, atol=2e-5)
    broken = sampler.generate(without_tower(rig.params()), EXAMPLES, range(6), sampling)
    assert np.isnan(broken.logprobs).any()


def test_other_media_compile_nothing(monkeypatch):
    """One program of the tower for each bucket of rows, and the same for every later batch."""
    sampler = rig.sampler(shapes=SHAPES, prefill_groups=2, slots=6)
    encoder = make_encoder(sampler)
    encode, traces = counted(features.encode_prompts.__wrapped__)
    monkeypatch.setattr(features, "encode_prompts", jax.jit(encode, static_argnums=0))
    counts = []
    with perf.CompileCounter() as counter:
        for turn in range(3):
            parts = [*PARTS[turn:], *PARTS][:6]
            examples = [rig.example(p, 10 * turn + i) for i, p in enumerate(parts)]
            examples = encoder(rig.params(), examples)
            sampler.generate(rig.params(), examples, range(6), Sampling(max_tokens=8, seed=5))
            for tokens in (6, 18):
                features.stack([e.visual for e in examples], tokens)
            counts.append(counter.count)
    assert len(traces) == len(SHAPES.vision_rows)
    assert counts[0] > 0
    assert counts == [counts[0]] * 3


@functools.cache
def frozen_update():
    return step_rig.update(freeze=FROZEN)


def with_features(batch):
    visual = jax.jit(step_rig.model().encode)(step_rig.params(), batch.prompts.vision)
    return batch._replace(prompts=batch.prompts._replace(vision=visual))


def test_loss_and_gradient_are_those_of_the_pixels_without_a_tower():
    broken, batch = without_tower(step_rig.params()), with_features(step_rig.batch())
    update = frozen_update()
    results = [
        update.accumulate(params, update.zeros(step_rig.params()), part)
        for params, part in ((step_rig.params(), step_rig.batch()), (broken, batch))
    ]
    (want, want_sums), (got, got_sums) = results
    assert step_rig.distance(got["text"], want["text"]) < 1e-5
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(got["vision"]))
    losses = [float(np.divide(*sums["policy/loss"])) for sums in (got_sums, want_sums)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    means = [float(np.divide(*sums["policy/logprob"])) for sums in (got_sums, want_sums)]
    assert means[0] == pytest.approx(means[1], rel=1e-6)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_features_are_cut_or_padded_to_the_tokens_of_the_batch(as_array):
    one = Visual(as_array([[1.0], [2.0]]), as_array([[[3.0], [4.0]]]))  # T = 2
    two = Visual(as_array([[5.0], [6.0], [0.0]]), as_array([[[7.0], [8.0], [0.0]]]))  # T = 3
    got = features.stack([one, two], 3)
    assert np.asarray(got.embeds)[..., 0].tolist() == [[1, 2, 0], [5, 6, 0]]
    assert np.asarray(got.deepstack)[..., 0].tolist() == [[[3, 4, 0]], [[7, 8, 0]]]
    assert np.asarray(features.stack([one, two], 2).embeds)[..., 0].tolist() == [[1, 2], [5, 6]]
    assert isinstance(got.embeds, np.ndarray) == (as_array is np.asarray)


def test_a_batch_shows_features_or_pixels_and_padding_shows_anything():
    collate = Collator(SHAPES, rig.GEOMETRY, models_oracle.SIDE, 0)
    host = collate(EXAMPLES, groups=7, has_patches=False)
    pixels = features.with_vision(host, [*EXAMPLES, None], merge=2)
    filled = fill_patches(host, [*EXAMPLES, None], EXAMPLES[0].patches.shape[1])
    np.testing.assert_array_equal(pixels.vision.patches, filled.vision.patches)
    shown = features.with_vision(host, [*encoded(), None], merge=2).vision
    assert shown.embeds.shape[:2] == (7, 3 * 24 // 4)
    own = tokens_of(encoded()[5]).embeds
    index = host.visual_index[5]
    np.testing.assert_array_equal(np.asarray(shown.embeds)[5, index[index >= 0]], own)
    assert (host.visual_index[6] == -1).all()
    with pytest.raises(AssertionError, match="no features"):
        features.with_vision(host, [*encoded()[:6], EXAMPLES[0]], merge=2)


@pytest.mark.parametrize("on_host", [False, True])
def test_on_a_mesh_every_device_gets_its_groups(on_host):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    sampler = rig.sampler(shapes=SHAPES, prefill_groups=4, mesh=mesh)
    with jax.set_mesh(mesh):
        encoder = make_encoder(sampler, mesh)
        assert encoder.on_host  # CPU devices
        got = dataclasses.replace(encoder, on_host=on_host)(rig.params(), EXAMPLES)
        assert isinstance(got[0].visual.embeds, np.ndarray) == on_host
        if not on_host:
            width = got[0].visual.embeds.shape[-1]
            assert got[0].visual.embeds.sharding.shard_shape((1, width)) == (1, width // 8)
        visual = features.stack([e.visual for e in got[:4]], 6)
        placed = jax.device_put(visual, batch_sharding(mesh))
        assert placed.embeds.addressable_shards[0].data.shape[0] == 1
    for example, alone in zip(got, encoded(), strict=True):
        for a, b in zip(tokens_of(example), tokens_of(alone), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_features_that_would_not_fit_the_devices_wait_on_the_host(monkeypatch):
    """6 prompts of 72 / 4 tokens, a width and its DeepStack layers in float32."""
    vision = rig.model().config.vision
    size = 6 * 18 * vision.out_width * (1 + len(vision.taps)) * 4
    sampler = rig.sampler()
    assert make_encoder(sampler).held_bytes == size
    assert not make_encoder(sampler).on_host
    assert make_encoder(sampler).describe().endswith("MiB on each device")
    monkeypatch.setattr(features, "DEVICE_BYTES", size - 1)
    assert make_encoder(sampler).on_host
    assert make_encoder(sampler).describe().endswith("MiB in host memory")


class Counting:
    """An encoder whose features are the number of the pass; it counts them by row."""

    def __init__(self):
        self.passes = collections.Counter()

    def __call__(self, params, examples):
        assert all(e.visual is None for e in examples)
        self.passes.update(e.row.index for e in examples)
        return [dataclasses.replace(e, visual=self.passes[e.row.index]) for e in examples]


def test_every_prompt_of_a_step_is_encoded_once_however_often_it_is_drawn():
    """3 of 4 have signal: two draws give 6 groups, of which 2 are left over for the next step."""
    c = collect_rig.settings(dynamic__enabled=True)
    collector = collect_rig.make_collector(c, lambda i: 0 if i % 4 == 0 else 1)
    actor = collector._sampler.actor
    encoder = actor.encoder = actor.with_features = Counting()
    groups, _ = collect_rig.collect(collector)
    assert encoder.passes == dict.fromkeys(range(8), 1)
    assert all(g.example.visual for g in groups)
    assert [g.example.visual for g in collector._left_over] == [None] * 2
    left = {g.example.row.index for g in collector._left_over}
    encoder.passes.clear()
    groups, _ = collect_rig.collect(collector)
    assert encoder.passes == dict.fromkeys([*left, 0, 1, 2, 3], 1)
    assert all(g.example.visual for g in groups)


class Watching:
    """Values of 0 everywhere; keeps whether each prompt came with features."""

    def __init__(self):
        self.had_features = []

    def __call__(self, params, policy_params, prompts, completions):
        self.had_features += [isinstance(prompts.vision, Visual)] * len(completions)
        return jnp.zeros(completions.shape)


def encoded_batch():
    """A rollout batch of the encoded examples, two completions of one token each."""
    shape = (6, 2)
    ones = np.ones(shape, np.int32)
    none = np.zeros((*shape, 1), np.float32)
    rollouts = Rollouts(none.astype(np.int32), none, ones, ones > 0)
    groups = [
        Group(e, Rollouts(*(x[g] for x in rollouts)), ("",) * 2, (), ("policy",) * 2, 0)
        for g, e in enumerate(encoded())
    ]
    outcomes = Outcomes(np.float32([[1, 0]] * 6), np.ones(shape, bool), ones)
    return stack(groups, outcomes, Collator(SHAPES, rig.GEOMETRY, models_oracle.SIDE, 0))


@pytest.mark.parametrize(
    ("changes", "freeze", "is_same"),
    [
        ({}, FROZEN, True),
        ({}, ("vision/blocks/.*",), False),
        ({"model": "elsewhere"}, FROZEN, False),
        ({"trunk": "shared"}, (), True),
    ],
)
def test_a_critic_reads_features_only_where_its_tower_is_the_policys(changes, freeze, is_same):
    c = learner_rig.settings(
        advantage="gae", critic=changes, optim={"freeze": freeze}, train={"microbatch_tokens": 999}
    )
    critic = learner_rig.learner(c).programs.critic
    assert critic.has_policy_tower == is_same
    values = Watching()
    made = learner_rig.learner(c, SHAPES, critic=dataclasses.replace(critic, values=values))
    start = learner_rig.state(c, critic=TrainState(0, None, None))
    made.prepare(start, encoded_batch())
    assert values.had_features == [is_same] * 6

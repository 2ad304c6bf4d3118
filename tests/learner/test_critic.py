"""The critic in the group layout: values, gradients, both kinds of trunk, a mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import step_rig as rig

from evr1.batch.cut import microbatches
from evr1.config.settings_algorithm import CriticSettings
from evr1.learner.critic import first_params, frozen, make_critic, param_layout
from evr1.parallel.mesh import make_mesh
from evr1.rl.diagnostics import means
from evr1.rl.gae import explained_variance

RNG = np.random.default_rng(5)
SETTINGS = CriticSettings(
    trunk="own",
    model="",
    learning_rate=3e-3,
    warmup_steps=0,
    clip=0.5,
    discount=1.0,
    decay=1.0,
)


@functools.cache
def critic(is_shared):
    return make(is_shared)


def make(is_shared, **options):
    trunk = "shared" if is_shared else "own"
    settings = dataclasses.replace(SETTINGS, trunk=trunk)
    return make_critic(rig.model(), optax.adam(3e-3), settings, **options)


@functools.cache
def start(is_shared):
    """Parameters whose head says something: the first one is all zeros."""
    params = first_params(rig.model(), None if is_shared else rig.copy(rig.params()))
    kernel = np.random.default_rng(1).normal(size=params["head"]["kernel"].shape) * 0.3
    return params | {"head": {"kernel": jnp.float32(kernel), "bias": jnp.float32(0.25)}}


def policy_params(is_shared):
    return rig.params() if is_shared else None


@functools.cache
def batch():
    """Returns and old values near and far, so that some are clipped."""
    made = rig.batch()
    noise = RNG.normal(size=(2, *made.completions.shape)).astype(np.float32)
    mask = made.completion_mask
    return made._replace(
        old_values=np.where(mask, noise[0], 0), returns=np.where(mask, noise[1], 0)
    )


def values(is_shared, data):
    params, policy = start(is_shared), policy_params(is_shared)
    return critic(is_shared).values(params, policy, data.prompts, data.completions)


def gradient(is_shared, *parts):
    params, made = start(is_shared), critic(is_shared).update
    grads = made.zeros(params)
    for part in parts:
        grads, _ = made.accumulate(params, grads, policy_params(is_shared), part)
    return rig.host(grads)


def distance(got, expected):
    """As in step_rig; the parameters that only logits need have no gradient here."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    return max(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12) for a, b in pairs)


@pytest.mark.parametrize("is_shared", [False, True])
def test_the_first_values_are_zero(is_shared):
    params = first_params(rig.model(), None if is_shared else rig.params())
    args = (policy_params(is_shared), batch().prompts, batch().completions)
    assert (np.asarray(critic(is_shared).values(params, *args)) == 0).all()


@pytest.mark.parametrize("is_shared", [False, True])
def test_values_and_gradient_are_those_of_separate_sequences(is_shared):
    """Only tokens that are trained count: what stands on padding differs."""
    separate = rig.one_row_per_group(batch())
    mask = batch().completion_mask
    one = np.asarray(values(is_shared, batch()))
    many = np.asarray(values(is_shared, separate)).reshape(one.shape)
    np.testing.assert_allclose(one[mask], many[mask], atol=2e-5)
    assert np.abs(one[mask]).max() > 0.1
    whole = gradient(is_shared, batch())
    assert distance(whole, gradient(is_shared, separate)) < 1e-4
    parts = microbatches(batch(), 2 * rig.group_tokens())
    assert len(parts) == 2
    assert distance(gradient(is_shared, *parts), whole) < 1e-5


def test_both_kinds_say_the_same_of_the_same_trunk_but_one_has_a_gradient_in_it():
    np.testing.assert_allclose(values(True, batch()), values(False, batch()), atol=1e-6)
    shared, own = gradient(True, batch()), gradient(False, batch())
    assert set(shared) == {"head"}
    np.testing.assert_allclose(
        shared["head"]["kernel"], own["head"]["kernel"], rtol=1e-4, atol=1e-6
    )
    norms = [np.linalg.norm(x) for x in jax.tree.leaves(own["trunk"]["text"])]
    assert max(norms) > 0


def test_the_head_s_gradient_is_that_of_the_formula():
    """d loss / d bias = sum of weight * slope of the value loss over the tokens."""
    data, v = batch(), np.asarray(values(True, batch()), np.float64)
    near = np.clip(v, data.old_values - 0.5, data.old_values + 0.5)
    is_clipped = (near - data.returns) ** 2 > (v - data.returns) ** 2
    slope = np.where(data.completion_mask & ~is_clipped, v - data.returns, 0)
    expected = (data.loss_weights * slope).sum()
    assert gradient(True, data)["head"]["bias"] == pytest.approx(expected, rel=1e-4)
    assert is_clipped[data.completion_mask].any()


@pytest.mark.parametrize("is_shared", [False, True])
def test_it_learns_the_returns(is_shared):
    """Returns of 1 for even groups and 0 for odd ones: the loss falls to a fraction, and what the
    values explain of the returns rises from 0, where they are all alike."""
    made = critic(is_shared)
    target = (np.arange(rig.G) % 2 == 0)[:, None, None] * batch().completion_mask
    data = batch()._replace(returns=target.astype(np.float32))
    state = made.init(None if is_shared else rig.copy(rig.params()))
    losses, explained = [], []
    for _ in range(60):
        policy = policy_params(is_shared)
        now = made.values(state.params, policy, data.prompts, data.completions)
        part = data._replace(old_values=np.asarray(now))
        grads, sums = made.update.accumulate(
            state.params, made.update.zeros(state.params), policy, part
        )
        state, metrics = made.update.apply(state, grads)
        losses.append(means(sums)["critic/loss"])
        explained.append(explained_variance(data.returns, np.asarray(now), data.completion_mask))
        assert metrics["optim/is_finite"]
    assert losses[-1] < 0.3 * losses[0]
    assert explained[0] == 0
    assert explained[-1] > 0.5
    assert int(state.updates) == 60


@pytest.mark.slow
def test_a_mesh_gives_the_same_values_and_gradient_and_keeps_its_layout():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    for is_shared in (False, True):
        made = make(is_shared, mesh=mesh)
        layout = param_layout(rig.model(), mesh, is_shared=is_shared)
        params = jax.device_put(rig.host(start(is_shared)), layout)
        policy = params["trunk"] if not is_shared else None
        if is_shared:
            policy = jax.device_put(
                rig.host(rig.params()), param_layout(rig.model(), mesh, is_shared=False)["trunk"]
            )
        given = policy if is_shared else None
        got = made.values(params, given, batch().prompts, batch().completions)
        np.testing.assert_allclose(got, values(is_shared, batch()), atol=1e-5)
        grads, _ = made.update.accumulate(params, made.update.zeros(params), given, batch())
        assert distance(rig.host(grads), gradient(is_shared, batch())) < 1e-5
        state = made.init(None if is_shared else params["trunk"])
        state, metrics = made.update.apply(state, grads)
        assert metrics["optim/is_finite"]
        for tree in (state.params, state.opt_state[0].mu, state.opt_state[0].nu):
            for leaf, wanted in zip(jax.tree.leaves(tree), jax.tree.leaves(layout), strict=True):
                assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)


def test_frozen_parameters_get_no_gradient_and_the_others_the_same():
    freeze = frozen(("vision/.*",))
    made = make(False, freeze=freeze)
    params = start(False)
    grads, _ = made.update.accumulate(params, made.update.zeros(params), None, batch())
    for leaf in jax.tree.leaves(grads["trunk"]["vision"]):
        np.testing.assert_array_equal(leaf, 0)
    whole = gradient(False, batch())
    assert distance(grads["trunk"]["text"], whole["trunk"]["text"]) < 1e-5
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(whole["trunk"]["vision"])) > 0


def test_a_gradient_that_is_not_finite_leaves_the_critic_alone():
    made = critic(True).update
    state = critic(True).init(None)
    before, grads = rig.host(state), made.zeros(state.params)
    grads["head"]["bias"] = jnp.float32(jnp.nan)
    state, metrics = made.apply(state, grads)
    assert not metrics["optim/is_finite"]
    jax.tree.map(np.testing.assert_array_equal, rig.host(state), before)


def test_patterns_of_frozen_parameters_are_of_the_trunk():
    assert frozen(("vision/.*", "a|b")) == ("trunk/(?:vision/.*)", "trunk/(?:a|b)")

import dataclasses
import functools

import jax
import jax.numpy as jnp
import models_oracle as oracle
import numpy as np
import optax
import pytest

from evr1 import step
from evr1.models import FAMILIES
from evr1.parallel import sharding
from evr1.rl.batches import group_batch, microbatches
from evr1.rl.diagnostics import means
from evr1.rl.losses import LossConfig
from evr1.types import Rollouts, ShapeTable

LOSS = LossConfig(kl_coef=0.1, temperature=0.7)
G, N, R = 4, 3, 6
LENGTHS = np.array([[6, 3, 1], [2, 6, 5], [4, 0, 2], [1, 5, 3]])
PARTS = (
    (5, ("video", (2, 4, 4)), 4),
    (3, ("image", (1, 4, 6)), 2, ("video", (3, 4, 4)), 5),
    (9,),
    (2, ("video", (1, 4, 4)), ("video", (2, 2, 4)), 1),
)


@functools.cache
def model(dtype="float32"):
    built = FAMILIES["qwen3_vl"](oracle.CONFIG, dtype=dtype, remat=True)
    return dataclasses.replace(built, config=dataclasses.replace(built.config, init_scale=0.2))


@functools.cache
def params():
    return model().init(jax.random.key(0))


@functools.cache
def optimizer():
    return optax.sgd(1.0)


@functools.cache
def update(loss=LOSS, dtype="float32", freeze=()):
    return step.make_update(model(dtype), optimizer(), loss, freeze=freeze)


@functools.cache
def logprobs(temperature=LOSS.temperature):
    return step.make_logprobs(model(), temperature=temperature)


def make_batch(seed=0, prompt_tokens=0, rows=0):
    """A ragged batch, one completion empty, with ratios that are clipped on both sides."""
    rng = np.random.default_rng(seed)
    prompts, completions = oracle.pack(
        [oracle.prompt(rng, parts, (N, R)) for parts in PARTS],
        prompt_tokens=prompt_tokens,
        rows=rows,
    )
    rollouts = Rollouts(completions, np.zeros((G, N, R), np.float32), LENGTHS, LENGTHS < R)
    advantages = rng.normal(size=(G, N)).astype(np.float32)
    batch = group_batch(prompts, rollouts, advantages, aggregation="sequence_mean", max_tokens=R)
    now = np.asarray(logprobs()(params(), prompts, completions))
    noise = rng.normal(size=(2, G, N, R)).astype(np.float32) * 0.3
    return batch._replace(old_logprobs=now + noise[0], ref_logprobs=now + noise[1])


@functools.cache
def batch():
    return make_batch()


def gradient(*batches, made=None, start=None):
    made = made or update()
    start = params() if start is None else start
    grads = made.zeros(start)
    for part in batches:
        grads, _ = made.accumulate(start, grads, part)
    return jax.tree.map(np.asarray, grads)


@functools.cache
def whole():
    return gradient(batch())


def distance(got, expected):
    """The largest |difference| / |expected| of any parameter tensor (2-norms)."""
    return max(
        np.linalg.norm(a - b) / np.linalg.norm(b)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    )


def one_row_per_group(batch):
    """Every completion with a copy of its prompt: G * N groups of one."""
    prompts = jax.tree.map(lambda x: np.repeat(x, N, axis=0), batch.prompts)
    rest = jax.tree.map(lambda x: x.reshape(G * N, 1, R), batch._replace(prompts=None))
    return rest._replace(prompts=prompts)


def test_group_gradient_is_that_of_separate_sequences():
    assert distance(whole(), gradient(one_row_per_group(batch()))) < 1e-4


def test_one_changed_token_is_seen_by_the_comparison_above():
    other = one_row_per_group(batch())
    other.completions[0, 0, 0] += 1
    assert distance(whole(), gradient(other)) > 1e-2


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_any_microbatch_split_gives_the_same_gradient(groups):
    p = batch().prompts.tokens.shape[1]
    parts = microbatches(batch(), groups * (p + N * R))
    assert [len(part.completions) for part in parts] == {1: [1] * 4, 2: [2] * 2, 3: [2] * 2}[groups]
    assert distance(gradient(*parts), whole()) < 1e-5


def test_an_uneven_split_is_filled_up_and_gives_the_same_gradient():
    three = jax.tree.map(lambda x: x[:3], batch())
    parts = microbatches(three, 2 * (batch().prompts.tokens.shape[1] + N * R))
    assert [len(part.completions) for part in parts] == [2, 2]
    assert distance(gradient(*parts), gradient(*microbatches(three, 10**6))) < 1e-5


def test_cutting_to_buckets_gives_the_same_gradient():
    shapes = ShapeTable(
        prompt_tokens=(12, 40), vision_rows=(1, 4), row_patches=24, completion_tokens=R
    )
    parts = microbatches(batch(), 60, shapes=shapes)
    assert len({part.prompts.tokens.shape for part in parts}) > 1
    assert distance(gradient(*parts), whole()) < 1e-5


def test_group_order_does_not_matter():
    order = np.array([2, 0, 3, 1])
    assert distance(gradient(jax.tree.map(lambda x: x[order], batch())), whole()) < 1e-5


def test_padding_does_not_matter():
    padded = make_batch(prompt_tokens=batch().prompts.tokens.shape[1] + 7, rows=9)
    wide = jax.tree.map(
        lambda x: np.pad(x, ((0, 0), (0, 0), (0, 3))), padded._replace(prompts=None)
    )
    assert distance(gradient(wide._replace(prompts=padded.prompts)), whole()) < 1e-5


def test_what_stands_on_masked_tokens_does_not_matter():
    off = ~batch().completion_mask
    wild = batch()._replace(
        old_logprobs=np.where(off, -1e9, batch().old_logprobs).astype(np.float32),
        ref_logprobs=np.where(off, np.nan, batch().ref_logprobs).astype(np.float32),
        advantages=np.where(off, 1e9, batch().advantages).astype(np.float32),
        completions=np.where(off, 7, batch().completions).astype(np.int32),
    )
    assert distance(gradient(wild), whole()) < 1e-5


def test_a_batch_of_weight_zero_has_no_gradient_at_all():
    nothing = batch()._replace(
        loss_weights=np.zeros_like(batch().loss_weights),
        completion_mask=np.zeros_like(batch().completion_mask),
    )
    for leaf in jax.tree.leaves(gradient(nothing)):
        np.testing.assert_array_equal(leaf, 0)


def test_the_gradient_reaches_every_parameter():
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(whole()))


def test_old_logprobs_of_make_logprobs_make_the_first_ratio_exactly_one():
    now = logprobs()(params(), batch().prompts, batch().completions)
    first = batch()._replace(old_logprobs=now, ref_logprobs=now)
    _, sums = update().accumulate(params(), update().zeros(params()), first)
    got = means(sums)
    assert (got["policy/ratio"], got["policy/kl_old"], got["policy/kl_ref"]) == (1, 0, 0)
    assert got["policy/clip_low_share"] == got["policy/clip_high_share"] == 0
    assert got["policy/abs_log_ratio"] == 0


def test_on_policy_equals_recomputed_old_logprobs():
    now = logprobs()(params(), batch().prompts, batch().completions)
    recomputed = gradient(batch()._replace(old_logprobs=now))
    made = update(dataclasses.replace(LOSS, on_policy=True))
    assert distance(gradient(batch(), made=made), recomputed) < 1e-6


def test_logprobs_and_entropy_are_those_of_the_softmax():
    hidden = model().group_hidden(params(), batch().prompts, batch().completions)
    logits = np.asarray(model().logits(params(), hidden), np.float64) / 0.7
    logp = logits - logits.max(-1, keepdims=True)
    logp = logp - np.log(np.exp(logp).sum(-1, keepdims=True))
    got, entropy = step.token_logprobs(model(), params(), hidden, batch().completions, 0.7)
    chosen = np.take_along_axis(logp, batch().completions[..., None], -1)[..., 0]
    np.testing.assert_allclose(got, chosen, rtol=1e-5)
    np.testing.assert_allclose(entropy, -(np.exp(logp) * logp).sum(-1), rtol=1e-5)


@pytest.mark.parametrize("positions", [1, 4])
def test_logits_in_chunks_change_nothing(monkeypatch, positions):
    monkeypatch.setattr(step, "LOGITS_BYTES", positions * N * oracle.VOCAB * 4)
    made = step.make_update(model(), optimizer(), LOSS)
    assert distance(gradient(batch(), made=made), whole()) < 1e-5


def test_chunked_backward_never_holds_all_logits(monkeypatch):
    monkeypatch.setattr(step, "LOGITS_BYTES", N * oracle.VOCAB * 4)
    made = step.make_update(model(), optimizer(), LOSS)
    text = made.accumulate.lower(params(), params(), batch()).as_text()
    assert f"{G}x{N}x1x{oracle.VOCAB}xf32" in text
    for tokens in (f"{N}x{R}", f"{N * R}", f"{R}x{N}"):
        assert f"{tokens}x{oracle.VOCAB}xf32" not in text


def test_updates_follow_the_advantage():
    made = step.make_update(model(), optax.sgd(0.05), LossConfig(clip_dual=0.0))
    state = step.init_state(params(), optax.sgd(0.05))
    first = batch()._replace(old_logprobs=logprobs(1.0)(params(), *batch()[:2]))
    losses = []
    for _ in range(3):
        grads, sums = made.accumulate(state.params, made.zeros(state.params), first)
        state, metrics = made.apply(state, grads)
        losses.append(means(sums)["policy/loss"])
    assert losses[0] > losses[1] > losses[2]
    assert int(state.step) == 3
    assert bool(metrics["optim/is_finite"])


def test_a_gradient_that_is_not_finite_leaves_the_state_alone():
    made = step.make_update(model(), optax.adam(0.1), LOSS)
    state = step.init_state(jax.tree.map(jnp.copy, params()), optax.adam(0.1))
    grads = made.zeros(state.params)
    grads["text"]["norm"] = jax.tree.map(lambda x: x.at[0].set(jnp.nan), grads["text"]["norm"])
    before = jax.tree.map(np.array, state)
    state, metrics = made.apply(state, grads)
    assert not bool(metrics["optim/is_finite"])
    jax.tree.map(np.testing.assert_array_equal, state, before)


def test_frozen_parameters_get_no_gradient_and_the_others_the_same():
    frozen = gradient(batch(), made=update(freeze=("vision/.*",)))
    for leaf in jax.tree.leaves(frozen["vision"]):
        np.testing.assert_array_equal(leaf, 0)
    assert distance(frozen["text"], whole()["text"]) < 1e-5


def test_bfloat16_keeps_float32_gradients_near_the_exact_ones():
    got = gradient(batch(), made=update(dtype="bfloat16"))
    flat, exact = (np.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in (got, whole()))
    assert flat.dtype == np.float32
    assert flat @ exact / np.linalg.norm(flat) / np.linalg.norm(exact) > 0.99


@pytest.mark.parametrize("shape", [(4, 2, 1), (2, 2, 2)])
def test_a_mesh_gives_the_same_gradient_and_keeps_its_layout(shape):
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"))
    layout = sharding.param_shardings(mesh, model().abstract_params())
    tx = optax.adam(1e-3)
    made = step.make_update(model(), tx, LOSS, mesh=mesh)
    state = step.init_state(jax.device_put(params(), layout), tx, mesh)
    (part,) = microbatches(batch(), 10**6, group_multiple=shape[0] * shape[1])
    old = step.make_logprobs(model(), temperature=LOSS.temperature, mesh=mesh)
    now = old(state.params, part.prompts, part.completions)
    expected = logprobs()(params(), batch().prompts, batch().completions)
    by_length = np.argsort(-part.prompts.lengths[:G], kind="stable")
    del by_length
    assert now.sharding.is_equivalent_to(sharding.batch_sharding(mesh), 3)
    np.testing.assert_allclose(np.asarray(now)[:G], expected, atol=1e-5)
    grads, _ = made.accumulate(state.params, made.zeros(state.params), part)
    assert distance(jax.tree.map(np.asarray, grads), whole()) < 1e-5
    after, _ = made.apply(state, grads)
    for leaf, wanted in zip(jax.tree.leaves(after.params), jax.tree.leaves(layout), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)
    for leaf, wanted in zip(
        jax.tree.leaves(after.opt_state[0].mu), jax.tree.leaves(layout), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)


def test_the_second_step_compiles_nothing():
    tx = optax.adam(1e-3)
    made = step.make_update(model(), tx, LOSS)
    state = step.init_state(jax.tree.map(jnp.copy, params()), tx)
    compiled = []
    listen = lambda event, seconds, **_: compiled.append(event)  # noqa: E731

    def one_step(state, seed):
        data = make_batch(seed)
        parts = microbatches(data, 2 * (data.prompts.tokens.shape[1] + N * R))
        grads = made.zeros(state.params)
        for part in parts:
            old = logprobs()(state.params, part.prompts, part.completions)
            grads, _ = made.accumulate(state.params, grads, part._replace(old_logprobs=old))
        return made.apply(state, grads)[0]

    state = one_step(state, 1)
    jax.monitoring.register_event_duration_secs_listener(listen)
    one_step(state, 2)
    jax.monitoring.clear_event_listeners()
    assert not [event for event in compiled if "compile" in event]

"""Gradients in the group layout against separate sequences; splits, padding, a mesh, updates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from step_rig import (
    LOSS,
    G,
    N,
    R,
    batch,
    copy,
    distance,
    gradient,
    group_tokens,
    host,
    logprobs,
    make_batch,
    model,
    one_row_per_group,
    optimizer,
    params,
    update,
    weightless,
    whole,
)

from evr1.batch.cut import microbatches
from evr1.batch.shapes import ShapeTable
from evr1.learner.update import compile_update, init_state, make_logprobs, make_update
from evr1.parallel.mesh import make_mesh
from evr1.rl.diagnostics import means, sampler_sums
from evr1.rl.losses import LossConfig
from evr1.telemetry.perf import CompileCounter


def test_group_gradient_is_that_of_separate_sequences():
    assert distance(whole(), gradient(one_row_per_group(batch()))) < 1e-4


def test_one_changed_token_is_seen_by_the_comparison_above():
    other = one_row_per_group(batch())
    other.completions[0, 0, 0] += 1
    assert distance(whole(), gradient(other)) > 1e-2


def test_a_split_in_microbatches_gives_the_same_gradient():
    parts = microbatches(batch(), 2 * group_tokens())
    assert [len(part.completions) for part in parts] == [2, 2]
    assert distance(gradient(*parts), whole()) < 1e-5


def test_an_uneven_split_is_filled_up_and_gives_the_same_gradient():
    three = weightless(batch(), 3)
    parts = microbatches(three, 2 * group_tokens())
    assert [len(part.completions) for part in parts] == [2, 2]
    assert distance(gradient(*parts), gradient(three)) < 1e-5


def test_group_order_does_not_matter():
    order = np.array([2, 0, 3, 1])
    assert distance(gradient(jax.tree.map(lambda x: x[order], batch())), whole()) < 1e-5


EVERYTHING = LossConfig(
    has_kl=True,
    kl_gradient="importance",
    temperature=0.7,
    entropy_controller="adaptive",
    correction="token_tis",
    correction_high=1.1,
    correction_floor=0.5,
    rejection="geometric",
    rejection_low=0.9,
    rejection_high=1.2,
    veto=0.75,
    off_policy_bound=0.05,
)


def test_microbatches_change_nothing_under_all_that_makes_tokens_count():
    """Each group by itself, and in twos; every term acts on some tokens and not on others."""
    rng = np.random.default_rng(3)
    whole = batch()._replace(
        policy_weights=rng.choice(np.float32([0, 1, 1.25]), (G, N, R)),
        kl_old_coef=rng.choice(np.float32([0, 0.5]), (G, N, R)),
        entropy_coef=np.full(G, 0.01, np.float32),
    )
    made = update(EVERYTHING)
    expected = gradient(whole, made=made)
    for size in (1, 2):
        cuts = [slice(start, start + size) for start in range(0, G, size)]
        parts = [jax.tree.map(lambda x, at=at: x[at], whole) for at in cuts]
        assert distance(gradient(*parts, made=made), expected) < 1e-5
    _, sums = made.accumulate(params(), made.zeros(params()), whole)
    got = means(sums)
    shares = ("off_policy", "selected", "kl_cov")
    shares = [got[f"policy/{name}_share"] for name in shares]
    shares += [got["correction/masked_share"], got["correction/clipped_share"]]
    assert all(0 < share < 1 for share in shares), shares


def padded():
    """The batch with room that nobody needs, on every axis but the groups'."""

    def widen(x, *axes):
        return np.pad(x, [(0, 3 * (i in axes)) for i in range(x.ndim)])

    prompts = batch().prompts
    wide = prompts._replace(
        tokens=widen(prompts.tokens, 1),
        positions=widen(prompts.positions, 2),
        visual_index=np.pad(prompts.visual_index, ((0, 0), (0, 3)), constant_values=-1),
        vision=jax.tree.map(lambda x: widen(x, 1), prompts.vision),
    )
    rest = jax.tree.map(lambda x: widen(x, 2), batch()._replace(prompts=None))
    return rest._replace(prompts=wide)  # arrays without an R axis stay as they are


def test_padding_does_not_matter():
    assert distance(gradient(padded()), whole()) < 1e-5


def test_padding_is_cut_to_the_buckets():
    p, f = batch().prompts.tokens.shape[1], batch().prompts.vision.patches.shape[1]
    shapes = ShapeTable((p, p + 3), (f, f + 3), row_patches=24, completion_tokens=R + 3)
    (cut,) = microbatches(padded(), 10**6, shapes=shapes)
    assert cut.prompts.tokens.shape == (G, p)
    assert cut.prompts.vision.patches.shape[1] == f
    assert cut.completions.shape == (G, N, 7)  # three quarters of 9
    ordered = {tuple(x) for x in batch().prompts.tokens}
    assert {tuple(x) for x in cut.prompts.tokens} == ordered


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
    for leaf in jax.tree.leaves(gradient(weightless(batch(), *range(G)))):
        np.testing.assert_array_equal(leaf, 0)


def test_the_gradient_reaches_every_parameter():
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(whole()))


def test_old_logprobs_of_make_logprobs_make_the_first_ratio_one():
    now = logprobs()(params(), batch().prompts, batch().completions)
    first = batch()._replace(old_logprobs=now, ref_logprobs=now)
    _, sums = update().accumulate(params(), update().zeros(params()), first)
    got = means(sums)
    # exactly, but for the last bit: XLA may fuse the two programs differently
    close = pytest.approx((1, 0, 0, 0), abs=1e-6)
    names = ("ratio", "kl_old", "kl_ref", "abs_log_ratio")
    assert tuple(got[f"policy/{name}"] for name in names) == close
    assert got["policy/clip_low_share"] == got["policy/clip_high_share"] == 0


def test_one_update_needs_no_old_logprobs():
    """The loss, its gradient and all metrics are those with recomputed ones."""
    now = logprobs()(params(), batch().prompts, batch().completions)
    recomputed = batch()._replace(old_logprobs=now)
    expected, old = update().accumulate(params(), update().zeros(params()), recomputed)
    on_policy = update(dataclasses.replace(LOSS, on_policy=True))
    got, new = on_policy.accumulate(params(), update().zeros(params()), batch())
    assert distance(host(got), host(expected)) < 1e-5
    gap = sampler_sums(now, batch().behavior_logprobs, batch().completion_mask)
    assert means(new) == pytest.approx(means(old | gap), rel=1e-5, abs=1e-6)


def test_ratios_are_of_what_the_policy_sampled():
    """Old log-probabilities of offline completions may be nobody's; they enter no diagnostic."""
    is_offline = np.zeros((G, N), bool)
    is_offline[:, -1] = True
    wild = batch()._replace(is_offline=is_offline)
    shifted = wild._replace(
        old_logprobs=np.where(is_offline[..., None], 0, wild.old_logprobs).astype(np.float32)
    )
    grads = update().zeros(params())
    read = [means(update().accumulate(params(), copy(grads), b)[1]) for b in (wild, shifted)]
    for name in ("policy/ratio", "policy/kl_old", "policy/abs_log_ratio", "policy/logprob"):
        assert read[0][name] == pytest.approx(read[1][name], rel=1e-6)
    whole = means(update().accumulate(params(), grads, batch())[1])
    assert whole["policy/logprob"] != pytest.approx(read[0]["policy/logprob"], rel=1e-3)


def test_updates_follow_the_advantage():
    state = init_state(copy(params()), optimizer())
    losses = []
    for _ in range(3):
        grads, sums = update().accumulate(state.params, update().zeros(state.params), batch())
        state, metrics = update().apply(state, grads)
        losses.append(means(sums)["policy/loss"])
    assert losses[0] > losses[1] > losses[2]
    assert int(state.updates) == 3
    assert bool(metrics["optim/is_finite"])


def test_a_gradient_that_is_not_finite_leaves_the_state_alone():
    state = init_state(copy(params()), optimizer())
    grads = update().zeros(state.params)
    grads["text"]["norm"] = jax.tree.map(lambda x: x.at[0].set(jnp.nan), grads["text"]["norm"])
    before = host(state)
    state, metrics = update().apply(state, grads)
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


def test_a_mesh_gives_the_same_gradient_and_keeps_its_layout():
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    layout = model().shardings(mesh)
    assert any(s.spec != jax.P() for s in jax.tree.leaves(layout))
    made = make_update(model(), optimizer(), LOSS, mesh=mesh)
    state = init_state(jax.device_put(host(params()), layout), optimizer(), mesh)
    old = make_logprobs(model(), temperature=LOSS.temperature, mesh=mesh)
    now = old(state.params, batch().prompts, batch().completions)
    expected = logprobs()(params(), batch().prompts, batch().completions)
    np.testing.assert_allclose(now, expected, atol=1e-5)
    first, _ = made.accumulate(state.params, None, batch())
    grads, _ = made.accumulate(state.params, made.zeros(state.params), batch())
    for got in (first, grads):
        assert distance(host(got), whole()) < 1e-5
    assert jax.tree.map(lambda x: x.sharding, first) == jax.tree.map(lambda x: x.sharding, grads)
    after, _ = made.apply(state, grads)
    for tree in (after.params, after.opt_state[0].mu, after.opt_state[0].nu):
        for leaf, wanted in zip(jax.tree.leaves(tree), jax.tree.leaves(layout), strict=True):
            assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)


def test_the_second_step_compiles_nothing():
    compiled = []

    def listen(event, seconds, **_):
        compiled.append(event)

    def one_step(state, data):
        grads = update().zeros(state.params)
        for part in microbatches(data, 2 * group_tokens()):
            old = logprobs()(state.params, part.prompts, part.completions)
            grads, _ = update().accumulate(state.params, grads, part._replace(old_logprobs=old))
        return update().apply(state, grads)[0]

    data = [make_batch(seed) for seed in (1, 2)]
    state = one_step(init_state(copy(params()), optimizer()), data[0])
    jax.monitoring.register_event_duration_secs_listener(listen)
    one_step(state, data[1])
    jax.monitoring.clear_event_listeners()
    assert not [event for event in compiled if "compile" in event]


@pytest.mark.parametrize("is_read", [True, False], ids=["as read from a file", "as a new head is"])
def test_the_second_update_is_the_first_ones_program(is_read):
    """Parameters that are read are committed to their device; moments and counters were not."""

    def objective(params, x):
        return jnp.sum(params["w"] * x), {}

    start = {"w": jnp.ones(3)}
    start, x = jax.device_put((start, np.ones(3, "f4")), jax.devices()[0])
    start = start if is_read else {"w": jnp.ones(3)}
    made = compile_update(objective, optimizer(), jax.eval_shape(lambda: start))
    state = init_state(start, optimizer())
    with CompileCounter() as compiles:
        for programs in (3, 3, 3):  # zeros, gradient, optimizer
            grads, _ = made.accumulate(state.params, made.zeros(state.params), x)
            state, _ = made.apply(state, grads)
            assert compiles.count == programs

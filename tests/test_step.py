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
from evr1.parallel.mesh import make_mesh
from evr1.rl.batches import group_batch, microbatches
from evr1.rl.diagnostics import means
from evr1.rl.losses import LossConfig
from evr1.types import Rollouts, ShapeTable

LOSS = LossConfig(has_kl=True, temperature=0.7)
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
    return optax.adam(1e-5)


@functools.cache
def update(loss=LOSS, dtype="float32", freeze=()):
    return step.make_update(model(dtype), optimizer(), loss, freeze=freeze)


@functools.cache
def logprobs(temperature=LOSS.temperature):
    return step.make_logprobs(model(), temperature=temperature)


def make_batch(seed=0):
    """A ragged batch, one completion empty, with ratios that are clipped on both sides."""
    rng = np.random.default_rng(seed)
    prompts, completions = oracle.pack([oracle.prompt(rng, parts, (N, R)) for parts in PARTS])
    rollouts = Rollouts(completions, np.zeros((G, N, R), np.float32), LENGTHS, LENGTHS < R)
    advantages = rng.normal(size=(G, N)).astype(np.float32)
    batch = group_batch(
        prompts, rollouts, advantages, aggregation="sequence_mean", max_tokens=R, kl_coef=0.1
    )
    now = np.asarray(logprobs()(params(), prompts, completions))
    noise = rng.normal(size=(2, G, N, R)).astype(np.float32) * 0.3
    return batch._replace(
        old_logprobs=now + noise[0],
        ref_logprobs=now + noise[1],
        behavior_logprobs=now + 0.5 * noise[0],
    )


@functools.cache
def batch():
    return make_batch()


def group_tokens():
    return batch().prompts.tokens.shape[1] + N * R


def weightless(batch, *groups):
    """The batch with nothing to train on in these groups."""
    on = ~np.isin(np.arange(G), groups)[:, None, None]
    return batch._replace(
        loss_weights=batch.loss_weights * on, completion_mask=batch.completion_mask & on
    )


def copy(tree):
    return jax.tree.map(jnp.copy, tree)


def host(tree):
    return jax.tree.map(np.array, tree)


def gradient(*batches, made=None):
    made = made or update()
    grads = made.zeros(params())
    for part in batches:
        grads, _ = made.accumulate(params(), grads, part)
    return host(grads)


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
    names = ("groups", "kl_coef", "update")
    rest = batch._replace(prompts=None, **dict.fromkeys(names))
    rest = jax.tree.map(lambda x: x.reshape(G * N, 1, *x.shape[2:]).copy(), rest)
    return rest._replace(
        prompts=prompts, **{name: np.repeat(getattr(batch, name), N) for name in names}
    )


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


def test_on_policy_compares_the_sampler_with_the_policy():
    loss = dataclasses.replace(LOSS, on_policy=True)
    mask, old = batch().completion_mask, batch().behavior_logprobs
    now = np.asarray(logprobs()(params(), batch().prompts, batch().completions))
    _, sums = step.batch_loss(model(), params(), hidden(), batch(), loss)
    got = means(sums)
    assert got["sampler/gap"] == pytest.approx(np.abs(now - old)[mask].mean(), rel=1e-4)
    assert got["policy/ratio"] == 1


@functools.cache
def hidden():
    return jax.jit(model().group_hidden)(params(), batch().prompts, batch().completions)


def head_gradient(loss=LOSS, data=None):
    """The gradient that the loss sends to the output layer and to the hidden states."""

    def objective(head, hidden):
        tree = {**params(), "text": {**params()["text"], "head": head}}
        return step.batch_loss(model(), tree, hidden, data or batch(), loss)[0]

    return jax.jit(jax.grad(objective, argnums=(0, 1)))(params()["text"]["head"], hidden())


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


def test_on_policy_equals_recomputed_old_logprobs():
    now, _ = step.token_logprobs(model(), params(), hidden(), batch().completions, LOSS.temperature)
    recomputed = head_gradient(data=batch()._replace(old_logprobs=now))
    assert distance(head_gradient(dataclasses.replace(LOSS, on_policy=True)), recomputed) < 1e-6


def test_logprobs_and_entropy_are_those_of_the_softmax():
    logits = np.asarray(model().logits(params(), hidden()), np.float64) / 0.7
    logp = logits - logits.max(-1, keepdims=True)
    logp = logp - np.log(np.exp(logp).sum(-1, keepdims=True))
    got, entropy = step.token_logprobs(model(), params(), hidden(), batch().completions, 0.7)
    chosen = np.take_along_axis(logp, batch().completions[..., None], -1)[..., 0]
    np.testing.assert_allclose(got, chosen, rtol=1e-5)
    np.testing.assert_allclose(entropy, -(np.exp(logp) * logp).sum(-1), rtol=1e-5)


def test_the_entropy_bonus_has_the_gradient_of_the_entropy():
    """Against jax.grad of the entropy of log_softmax; without the bonus no gradient flows."""
    c = LossConfig(policy="reinforce", entropy_coef=0.5, temperature=0.7)
    silent = batch()._replace(advantages=np.zeros_like(batch().advantages))

    def plain(head, hidden):
        tree = {**params(), "text": {**params()["text"], "head": head}}
        logp = jax.nn.log_softmax(model().logits(tree, hidden) / 0.7)
        entropy = -(jnp.exp(logp) * logp).sum(-1)
        return -0.5 * jnp.sum(silent.loss_weights * entropy)

    expected = jax.jit(jax.grad(plain, argnums=(0, 1)))(params()["text"]["head"], hidden())
    assert distance(head_gradient(c, silent), expected) < 1e-5
    for leaf in jax.tree.leaves(head_gradient(dataclasses.replace(c, entropy_coef=0.0), silent)):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize(
    ("policy", "offline"), [("gspo", "on_policy"), ("gmpo", "luffy"), ("ppo", "importance")]
)
def test_a_split_gives_the_gradient_of_losses_of_whole_completions(policy, offline):
    """Those that look at all tokens of a completion, or at who sampled it."""
    c = LossConfig(
        policy=policy, offline=offline, clip_high=1.0, correction="sequence_tis", has_kl=True
    )
    data = batch()._replace(is_offline=np.arange(G * N).reshape(G, N) % 2 == 0)

    @jax.jit
    def gradient(hidden, data):
        return jax.grad(lambda h: step.batch_loss(model(), params(), h, data, c)[0])(hidden)

    whole = np.asarray(gradient(hidden(), data))
    for half in (slice(0, 2), slice(2, 4)):
        got = gradient(hidden()[half], jax.tree.map(lambda x, at=half: x[at], data))
        np.testing.assert_allclose(got, whole[half], atol=1e-6 * np.abs(whole).max())


def test_the_correction_compares_old_with_the_sampler():
    c = LossConfig(correction="token_tis", correction_high=1.1, temperature=0.7)
    mask = batch().completion_mask
    rho = np.exp(batch().old_logprobs - batch().behavior_logprobs)[mask]
    got = means(step.batch_loss(model(), params(), hidden(), batch(), c)[1])
    weights = np.minimum(rho, 1.1)
    assert got["correction/weight"] == pytest.approx(weights.mean(), rel=1e-5)
    assert got["correction/clipped_share"] == pytest.approx((rho > 1.1).mean())
    assert got["correction/masked_share"] == 0
    ess = weights.sum() ** 2 / len(weights) / (weights**2).sum()
    assert got["correction/ess"] == pytest.approx(ess, rel=1e-5)


@pytest.mark.parametrize("entropy_coef", [0.0, 0.5])
@pytest.mark.parametrize("positions", [1, 4])
def test_logits_in_chunks_change_nothing(monkeypatch, positions, entropy_coef):
    loss = dataclasses.replace(LOSS, entropy_coef=entropy_coef)
    expected = head_gradient(loss)
    monkeypatch.setattr(step, "LOGITS_BYTES", positions * N * oracle.VOCAB * 4)
    assert distance(head_gradient(loss), expected) < 1e-5


@pytest.mark.parametrize("entropy_coef", [0.0, 0.5])
def test_chunked_backward_never_holds_all_logits(monkeypatch, entropy_coef):
    monkeypatch.setattr(step, "LOGITS_BYTES", N * oracle.VOCAB * 4)
    loss = dataclasses.replace(LOSS, entropy_coef=entropy_coef)
    made = step.make_update(model(), optimizer(), loss)
    text = made.accumulate.lower(params(), params(), batch()).as_text()
    assert f"{G}x{N}x1x{oracle.VOCAB}xf32" in text
    for tokens in (f"{N}x{R}", f"{N * R}", f"{R}x{N}", f"{R}x{G}x{N}x1"):
        assert f"{tokens}x{oracle.VOCAB}xf32" not in text


def test_updates_follow_the_advantage():
    state = step.init_state(copy(params()), optimizer())
    losses = []
    for _ in range(3):
        grads, sums = update().accumulate(state.params, update().zeros(state.params), batch())
        state, metrics = update().apply(state, grads)
        losses.append(means(sums)["policy/loss"])
    assert losses[0] > losses[1] > losses[2]
    assert int(state.step) == 3
    assert bool(metrics["optim/is_finite"])


def test_a_gradient_that_is_not_finite_leaves_the_state_alone():
    state = step.init_state(copy(params()), optimizer())
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
    layout = sharding.param_shardings(mesh, model().abstract_params())
    assert any(s.spec != jax.P() for s in jax.tree.leaves(layout))
    made = step.make_update(model(), optimizer(), LOSS, mesh=mesh)
    state = step.init_state(jax.device_put(host(params()), layout), optimizer(), mesh)
    old = step.make_logprobs(model(), temperature=LOSS.temperature, mesh=mesh)
    now = old(state.params, batch().prompts, batch().completions)
    expected = logprobs()(params(), batch().prompts, batch().completions)
    np.testing.assert_allclose(now, expected, atol=1e-5)
    grads, _ = made.accumulate(state.params, made.zeros(state.params), batch())
    assert distance(host(grads), whole()) < 1e-5
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
    state = one_step(step.init_state(copy(params()), optimizer()), data[0])
    jax.monitoring.register_event_duration_secs_listener(listen)
    one_step(state, data[1])
    jax.monitoring.clear_event_listeners()
    assert not [event for event in compiled if "compile" in event]

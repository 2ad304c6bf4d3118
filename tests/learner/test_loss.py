"""The loss of a microbatch: log-probabilities, entropy, what it is told, and what it reports."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import learner_rig
import models_oracle as oracle
import numpy as np
import pytest
from step_rig import LOSS, G, N, R, batch, distance, logprobs, model, optimizer, params

from evr1.learner import loss as loss_lib
from evr1.learner.update import make_update
from evr1.rl.diagnostics import means
from evr1.rl.losses import LossConfig


@pytest.mark.parametrize("group", ["mix", "replay"])
def test_the_loss_is_told_of_offline_completions(group):
    assert not loss_lib.loss_config(learner_rig.settings()).has_offline
    mix = {"treatment": "importance", "importance_clip": 2.0, "luffy_gamma": 0.5}
    sections = {"mix": mix} | {group: {"enabled": True} | (mix if group == "mix" else {})}
    loss = loss_lib.loss_config(learner_rig.settings(**sections))
    assert loss.has_offline
    assert (loss.offline, loss.offline_clip, loss.luffy_gamma) == ("importance", 2.0, 0.5)


def test_on_policy_compares_the_sampler_with_the_policy():
    loss = dataclasses.replace(LOSS, on_policy=True)
    mask, old = batch().completion_mask, batch().behavior_logprobs
    now = np.asarray(logprobs()(params(), batch().prompts, batch().completions))
    _, sums = loss_lib.batch_loss(model(), params(), hidden(), placed(batch()), loss)
    got = means(sums)
    assert got["sampler/gap"] == pytest.approx(np.abs(now - old)[mask].mean(), rel=1e-4)
    assert got["policy/ratio"] == 1


def placed(tree):
    """The arrays on the device, as the compiled programs see them."""
    return jax.tree.map(jnp.asarray, tree)


@functools.cache
def hidden():
    return jax.jit(model().group_hidden)(params(), batch().prompts, batch().completions)


def head_gradient(loss=LOSS, data=None):
    """The gradient that the loss sends to the output layer and to the hidden states."""

    def objective(head, hidden):
        tree = {**params(), "text": {**params()["text"], "head": head}}
        return loss_lib.batch_loss(model(), tree, hidden, placed(data or batch()), loss)[0]

    return jax.jit(jax.grad(objective, argnums=(0, 1)))(params()["text"]["head"], hidden())


def test_on_policy_equals_recomputed_old_logprobs():
    tokens = placed(batch().completions)
    now, _ = loss_lib.token_logprobs(model(), params(), hidden(), tokens, LOSS.temperature)
    recomputed = head_gradient(data=batch()._replace(old_logprobs=now))
    assert distance(head_gradient(dataclasses.replace(LOSS, on_policy=True)), recomputed) < 1e-6


def test_logprobs_and_entropy_are_those_of_the_softmax():
    logits = np.asarray(model().logits(params(), hidden()), np.float64) / 0.7
    logp = logits - logits.max(-1, keepdims=True)
    logp = logp - np.log(np.exp(logp).sum(-1, keepdims=True))
    tokens = placed(batch().completions)
    got, entropy = loss_lib.token_logprobs(model(), params(), hidden(), tokens, 0.7)
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
        return jax.grad(lambda h: loss_lib.batch_loss(model(), params(), h, data, c)[0])(hidden)

    whole = np.asarray(gradient(hidden(), data))
    for half in (slice(0, 2), slice(2, 4)):
        got = gradient(hidden()[half], jax.tree.map(lambda x, at=half: x[at], data))
        np.testing.assert_allclose(got, whole[half], atol=1e-6 * np.abs(whole).max())


def test_the_correction_compares_old_with_the_sampler():
    c = LossConfig(correction="token_tis", correction_high=1.1, temperature=0.7)
    mask = batch().completion_mask
    rho = np.exp(batch().old_logprobs - batch().behavior_logprobs)[mask]
    got = means(loss_lib.batch_loss(model(), params(), hidden(), placed(batch()), c)[1])
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
    monkeypatch.setattr(loss_lib, "LOGITS_BYTES", positions * N * oracle.VOCAB * 4)
    assert distance(head_gradient(loss), expected) < 1e-5


@pytest.mark.parametrize("entropy_coef", [0.0, 0.5])
def test_chunked_backward_never_holds_all_logits(monkeypatch, entropy_coef):
    monkeypatch.setattr(loss_lib, "LOGITS_BYTES", N * oracle.VOCAB * 4)
    loss = dataclasses.replace(LOSS, entropy_coef=entropy_coef)
    made = make_update(model(), optimizer(), loss)
    text = made.accumulate.lower(params(), params(), batch()).as_text()
    assert f"{G}x{N}x1x{oracle.VOCAB}xf32" in text
    for tokens in (f"{N}x{R}", f"{N * R}", f"{R}x{N}", f"{R}x{G}x{N}x1"):
        assert f"{tokens}x{oracle.VOCAB}xf32" not in text

"""What multiplies the policy loss or is added to it beside its own formula."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evr1.config import algorithms
from evr1.rl.correction import REJECTIONS, Guards, correction_weights, mean_weight
from evr1.rl.diagnostics import means
from evr1.rl.kl import GRADIENTS, kl_loss
from evr1.rl.losses import LossConfig, TokenInputs, token_loss

FREE = LossConfig(clip_low=0.0, clip_high=0.0, clip_dual=0.0)


def inputs(new, advantages, **fields):
    """Completions with these logprobs [N, R]; old, behavior and reference are -1."""
    new = jnp.asarray(new, jnp.float32)[None]
    minus = jnp.full(new.shape, -1.0)
    advantages = jnp.broadcast_to(jnp.asarray(advantages, jnp.float32), new.shape)
    arrays = {
        "entropy": jnp.ones(new.shape),
        "old_logprobs": minus,
        "behavior_logprobs": minus,
        "ref_logprobs": minus,
        "mask": jnp.ones(new.shape, bool),
        "is_offline": jnp.zeros((1, new.shape[1], 1), bool),
        "kl_coef": jnp.ones((1, 1, 1)),
    }
    arrays |= {name: jnp.asarray(x) for name, x in fields.items()}
    return TokenInputs(logprobs=new, advantages=advantages, **arrays)


def gradient(x, c):
    def total(logprobs):
        return token_loss(x._replace(logprobs=logprobs), c)[0].sum()

    return np.asarray(jax.grad(total)(x.logprobs))[0]


def guarded(rho, guards, correction="token_tis", high=2.0):
    log_rho = jnp.log(jnp.asarray(rho, jnp.float32))[None]
    on = jnp.ones(log_rho.shape, bool)
    got, sums = correction_weights(correction, log_rho, 0 * log_rho, on, 0.0, high, guards)
    return np.asarray(got[0]), means(sums)


# Completions with rho (4, .25), (1.5, 1.25), (4, 1) and (1, .001): products 1, 1.875, 4, .001.
RHO = [[4, 0.25], [1.5, 1.25], [4, 1], [1, 0.001]]


@pytest.mark.parametrize(
    ("guards", "expected"),
    [
        (Guards(), [[2, 0.25], [1.5, 1.25], [2, 1], [1, 0.001]]),
        (Guards(floor=0.5), [[2, 0.5], [1.5, 1.25], [2, 1], [1, 0.5]]),
        (Guards(0, "token", 0.3, 3), [[0, 0], [1.5, 1.25], [0, 1], [1, 0]]),
        (Guards(0, "token", 0, 3), [[0, 0.25], [1.5, 1.25], [0, 1], [1, 0.001]]),
        (Guards(0, "sequence", 0.5, 3), [[2, 0.25], [1.5, 1.25], [0, 0], [0, 0]]),
        (Guards(0, "sequence", 0.5, 0), [[2, 0.25], [1.5, 1.25], [2, 1], [0, 0]]),
        (Guards(0, "geometric", 0.9, 1.1), [[2, 0.25], [0, 0], [0, 0], [0, 0]]),
        (Guards(veto=0.01), [[2, 0.25], [1.5, 1.25], [2, 1], [0, 0]]),
        # A weight, a floor, a rejection and a veto at once.
        (Guards(0.5, "sequence", 0, 3, 0.01), [[2, 0.5], [1.5, 1.25], [0, 0], [0, 0]]),
    ],
)
def test_guards_beside_a_correction_by_hand(guards, expected):
    np.testing.assert_allclose(guarded(RHO, guards)[0], expected, rtol=1e-5)


def test_guards_alone_leave_weights_of_one():
    got, metrics = guarded(RHO, Guards(0, "sequence", 0.5, 3, 0.01), correction="")
    np.testing.assert_array_equal(got, [[1, 1], [1, 1], [0, 0], [0, 0]])
    assert metrics["correction/masked_share"] == 0.5
    assert metrics["correction/clipped_share"] == 0


@pytest.mark.parametrize(
    ("correction", "floor", "expected"),
    [
        ("token_tis", 0.0, (2 + 0.25 + 1.5 + 1.25) / 4),
        ("token_tis", 0.5, (2 + 0.5 + 1.5 + 1.25) / 4),
        ("sequence_tis", 0.0, (1 + 1.875) / 2),  # a completion counts once
        ("token_mis", 0.0, (0 + 0 + 1.5 + 1.25) / 4),
    ],
)
def test_the_mean_weight_by_hand(correction, floor, expected):
    """rho (4, .25) and (1.5, 1.25), and a completion without tokens; bounds .5 and 2."""
    log_rho = jnp.log(jnp.array([[[4, 0.25], [1.5, 1.25], [9, 9]]]))
    mask = jnp.array([[[True, True], [True, True], [False, False]]])
    got = mean_weight(correction, log_rho, 0 * log_rho, mask, 0.5, 2.0, floor)
    assert got == pytest.approx(expected, rel=1e-6)


def test_a_mean_weight_of_nothing_is_one():
    zeros = jnp.zeros((1, 1, 2))
    assert mean_weight("token_tis", zeros, zeros, zeros > 0, 0, 2) == 1
    on = jnp.ones((1, 1, 2), bool)
    assert mean_weight("token_mis", zeros + 5, zeros, on, 0.5, 2) == 1


def test_the_loss_of_guards():
    """rho = (3, 1), (1, 1): the first completion's geometric mean is 1.73, so it is dropped."""
    x = inputs([[-1, -1], [-1, -1]], 1.0, behavior_logprobs=[[[-1 - np.log(3), -1], [-1, -1]]])
    x = x._replace(behavior_logprobs=x.behavior_logprobs.astype(jnp.float32))
    c = LossConfig(rejection="geometric", rejection_low=0.5, rejection_high=1.5)
    np.testing.assert_array_equal(gradient(x, c), [[0, 0], [-1, -1]])
    x = x._replace(is_offline=jnp.array([[[True], [False]]]))
    np.testing.assert_array_equal(gradient(x, c), [[-1, -1], [-1, -1]])  # never touched


@pytest.mark.parametrize(
    ("drift", "advantage", "bound", "is_left_out"),
    [
        ((1.5, 0.0), -1.0, 0.5, True),  # .75 nats a token
        ((1.5, 0.0), 1.0, 0.5, False),
        ((0.5, 0.0), -1.0, 0.5, False),
        ((1.0, 0.0), -1.0, 0.5, False),  # at the bound
        ((-1.5, 0.0), -1.0, 0.5, False),  # likelier than the sampler had it
        ((1.5, 0.0), -1.0, 0.0, False),  # off
        ((60.0, -50.0), -1.0, 4.0, True),  # 5 a token: nothing is cut before the mean
    ],
)
def test_off_policy_completions_by_hand(drift, advantage, bound, is_left_out):
    """`drift` is log(behavior / policy) of the two tokens; a second completion has none."""
    behavior = np.float32([[[drift[0] - 1, drift[1] - 1], [-1, -1]]])
    x = inputs([[-1, -1], [-1, -1]], advantage, behavior_logprobs=behavior)
    c = LossConfig(policy="reinforce", off_policy_bound=bound)
    expected = [0 if is_left_out else -advantage] * 2
    np.testing.assert_array_equal(gradient(x, c), [expected, [-advantage] * 2])
    if bound:
        share = means(token_loss(x, c)[1])["policy/off_policy_share"]
        assert share == (0.5 if is_left_out else 0)


def test_off_policy_masks_neither_kl_nor_offline_completions():
    behavior = np.float32([[[1.0, 1.0], [1.0, 1.0]]])
    x = inputs(
        [[-1, -1], [-1, -1]],
        -1.0,
        behavior_logprobs=behavior,
        is_offline=np.array([[[True], [False]]]),
    )
    c = LossConfig(policy="reinforce", off_policy_bound=0.5, has_kl=True, kl_estimator="k1")
    np.testing.assert_array_equal(gradient(x, c), [[2, 2], [1, 1]])


def test_policy_weights_and_the_distance_to_the_old_policy_by_hand():
    """r = e on three tokens, A = 1, factors (1, 0, .5); KL-Cov .25 on the first: -e + .25."""
    x = inputs(
        [[0, 0, 0]],
        1.0,
        policy_weights=np.float32([[[1, 0, 0.5]]]),
        kl_old_coef=np.float32([[[0.25, 0, 0]]]),
    )
    e = np.e
    loss, sums = token_loss(x, FREE)
    np.testing.assert_allclose(loss[0, 0], [-e + 0.25, 0, -e / 2], rtol=1e-6)
    np.testing.assert_allclose(gradient(x, FREE)[0], [-e + 0.25, 0, -e / 2], rtol=1e-6)
    got = means(sums)
    assert got["policy/selected_share"] == pytest.approx(2 / 3)
    assert got["policy/kl_cov_share"] == pytest.approx(1 / 3)


def test_the_coefficient_of_the_entropy_is_data():
    x = inputs([[-1, -1]], 0.0, entropy_coef=np.full((1, 1, 1), 0.25, np.float32))
    c = LossConfig(entropy_coef=9.0, entropy_controller="adaptive")
    assert c.has_entropy
    np.testing.assert_array_equal(token_loss(x, c)[0], [[[-0.25, -0.25]]])


ON = jnp.ones((1, 1, 1), bool)


@pytest.mark.parametrize(
    ("estimator", "kind", "ratio", "value", "slope"),
    # d = ln 2: k1 .6931, k2 .2402, k3 .1931; their own gradients 1, .6931 and .5.
    [
        ("k3", "own", 2.0, 0.193147, 0.5),
        ("k3", "k2", 2.0, 0.193147, 0.693147),
        ("k3", "importance", 1.0, 0.193147, 0.693147),
        ("k3", "importance", 2.0, 0.386294, 1.386294),
        ("k1", "importance", 1.0, 0.693147, 1.693147),
        ("k1", "k2", 1.0, 0.693147, 0.693147),
        ("k2", "importance", 2.0, 0.480453, 2 * (0.240227 + 0.693147)),
    ],
)
def test_gradients_of_the_kl_by_hand(estimator, kind, ratio, value, slope):
    new = jnp.full((1, 1, 1), np.float32(np.log(2) - 1))
    ref, old = jnp.full((1, 1, 1), -1.0), new - np.float32(np.log(ratio))

    def at(x):
        return kl_loss(estimator, kind, x, ref, old, ON)[0, 0, 0]

    got, gradient = jax.value_and_grad(at)(new)
    assert float(got) == pytest.approx(value, rel=1e-5)
    assert float(gradient[0, 0, 0]) == pytest.approx(slope, rel=1e-5)


def exact_and_estimated(estimator, kind, theta, start):
    """The gradient of KL(policy || reference) over three tokens, and what the term gives on average
    when the tokens are drawn from the policy of `start`."""
    ref = jax.nn.log_softmax(jnp.array([0.3, -0.2, 0.5]))
    old = jax.nn.log_softmax(start)

    def exact(x):
        p = jax.nn.log_softmax(x)
        return jnp.sum(jnp.exp(p) * (p - ref))

    def estimated(x):
        terms = kl_loss(
            estimator,
            kind,
            jax.nn.log_softmax(x)[None, None],
            ref[None, None],
            old[None, None],
            jnp.ones((1, 1, 3), bool),
        )
        return jnp.sum(jnp.exp(old) * terms[0, 0])

    return jax.grad(exact)(theta), jax.grad(estimated)(theta)


THETA = jnp.array([1.0, 0.2, -0.7])


@pytest.mark.parametrize(
    ("estimator", "kind", "is_moved"),
    [
        *itertools.product(("k1", "k3"), ["importance"], [False, True]),
        *itertools.product(algorithms.KL_ESTIMATORS, ["k2"], [False]),
        ("k2", "own", False),
    ],
)
def test_the_gradient_is_that_of_the_kl_on_average(estimator, kind, is_moved):
    start = THETA + jnp.array([0.5, -0.4, 0.1]) * is_moved
    exact, estimated = exact_and_estimated(estimator, kind, THETA, start)
    np.testing.assert_allclose(estimated, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "kind", "is_moved"),
    [("k3", "own", False), ("k1", "own", False), ("k3", "k2", True), ("k2", "own", True)],
)
def test_it_is_not_where_the_formula_or_the_samples_are_others(estimator, kind, is_moved):
    start = THETA + jnp.array([0.5, -0.4, 0.1]) * is_moved
    exact, estimated = exact_and_estimated(estimator, kind, THETA, start)
    assert np.abs(estimated - exact).max() > 0.02


@pytest.mark.parametrize("kind", GRADIENTS)
def test_wild_values_off_the_mask_stay_out_of_the_kl(kind):
    new = jnp.array([[[-1.0, jnp.inf]]])
    mask = jnp.array([[[True, False]]])

    def total(x):
        ref, old = jnp.array([[[-2.0, jnp.nan]]]), jnp.array([[[-1.5, -1e9]]])
        return kl_loss("k3", kind, x, ref, old, mask).sum()

    value, gradient = jax.value_and_grad(total)(new)
    assert np.isfinite(value)
    assert gradient[0, 0, 1] == 0
    assert gradient[0, 0, 0] != 0


def test_names_and_refusals():
    assert tuple(GRADIENTS) == algorithms.KL_GRADIENTS
    assert set(REJECTIONS) == set(algorithms.REJECTIONS)
    with pytest.raises(ValueError, match="rejection='seq' is unknown; use one of token, sequence"):
        guarded([[1.0]], Guards(rejection="seq"))
    with pytest.raises(ValueError, match="kl_gradient='k5' is unknown; use one of own, k2, import"):
        kl_loss("k3", "k5", ON * 1.0, ON * 1.0, ON * 1.0, ON)

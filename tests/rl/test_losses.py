import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rl_oracle as oracle

from evr1.batch.assemble import token_advantages
from evr1.config import algorithms
from evr1.rl.advantages import ESTIMATORS, group_advantages
from evr1.rl.diagnostics import means
from evr1.rl.losses import POLICY_LOSSES, LossConfig, TokenInputs, token_loss
from evr1.rl.offline import OFFLINE_LOSSES
from evr1.rl.outcomes import Outcomes, Part, update_moments
from evr1.rl.weights import loss_weights

PLAIN = LossConfig(clip_low=0.2, clip_high=0.28, clip_dual=3.0)
# Every policy with offline completions as sampled, and every treatment beside two policies.
VARIANTS = [
    *((policy, "on_policy") for policy in POLICY_LOSSES),
    *itertools.product(("ppo", "gspo"), [t for t in OFFLINE_LOSSES if t != "on_policy"]),
]


def config(policy, **fields):
    """The loss with the policy's default bounds."""
    names = ("clip_low", "clip_high", "clip_dual")
    bounds = {name: getattr(algorithms.POLICIES[policy], name) or 0.0 for name in names}
    return LossConfig(policy=policy, **{**bounds, **fields})


def make(new, old, advantages, mask=None, **fields):
    """Inputs of these [G, N, R] arrays; the rest is 0."""
    arrays = [jnp.asarray(x, jnp.float32) for x in (new, old, advantages)]
    zeros = jnp.zeros(arrays[0].shape, jnp.float32)
    rest = {
        "entropy": zeros,
        "behavior_logprobs": arrays[1],
        "ref_logprobs": zeros,
        "mask": jnp.ones(zeros.shape, bool) if mask is None else jnp.asarray(mask),
        "is_offline": jnp.zeros((*zeros.shape[:2], 1), bool),
        "kl_coef": jnp.zeros((zeros.shape[0], 1, 1)),
        **{name: jnp.asarray(value) for name, value in fields.items()},
    }
    return TokenInputs(logprobs=arrays[0], old_logprobs=arrays[1], advantages=arrays[2], **rest)


def one_token(ratio, advantage, **fields):
    """One completion a token long for each (ratio, advantage)."""
    old = np.full((1, len(ratio), 1), -1.0)
    new = old + np.log(np.array(ratio))[None, :, None]
    return make(new, old, np.array(advantage)[None, :, None], **fields)


def value_and_gradient(inputs, c, weights=1.0):
    def total(x):
        return jnp.sum(weights * token_loss(inputs._replace(logprobs=x), c)[0])

    value, gradient = jax.value_and_grad(total)(inputs.logprobs)
    return float(value), np.asarray(gradient)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    # slope = d loss / d logprob
    [
        (1.0, 1.0, -1.0, -1.0),
        (1.0, -2.0, 2.0, 2.0),
        (1.25, 1.0, -1.25, -1.25),  # inside the higher upper bound; the symmetric .2 would clip it
        (1.5, 1.0, -1.28, 0.0),
        (1.5, -1.0, 1.5, 1.5),  # a bad token that became likelier is not clipped above
        (0.5, -1.0, 0.8, 0.0),
        (0.5, 1.0, -0.5, -0.5),
        (10.0, -1.0, 3.0, 0.0),  # dual clip
        (10.0, 1.0, -1.28, 0.0),
    ],
)
def test_ppo_by_hand(ratio, advantage, loss, slope):
    value, gradient = value_and_gradient(one_token([ratio], [advantage]), PLAIN)
    assert value == pytest.approx(loss, rel=1e-6)
    assert gradient[0, 0, 0] == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_bounds_of_zero_are_off():
    free = LossConfig(clip_low=0.0, clip_high=0.0, clip_dual=0.0)
    inputs = one_token([10.0, 0.01, 10.0, 0.01], [-1.0, -1.0, 1.0, 1.0])
    loss, sums = token_loss(inputs, free)
    np.testing.assert_allclose(loss[0, :, 0], [10, 0.01, -10, -0.01], rtol=1e-5)
    assert {name: float(total) for name, (total, _) in sums.items()} == {
        "policy/clip_low_share": 0,
        "policy/clip_high_share": 0,
    }


def test_gspo_by_hand():
    """log r = (ln 4, 0), A = 1: s = exp((ln 4 + 0) / 2) = 2 on both tokens.

    With weights 1/2 the loss is -2 and its gradient -s / 2 = -1 on each token. A per-token ratio
    would give -(4 + 1) / 2 and (-2, -.5). Bounds .5 and 1.5 do not clip 2; a bound of .28 does.
    """
    old = np.full((1, 1, 2), -3.0)
    inputs = make(old + np.array([np.log(4), 0]), old, np.ones((1, 1, 2)))
    for policy in ("gspo", "gspo_token"):
        c = config(policy, clip_low=0.5, clip_high=1.5)
        value, gradient = value_and_gradient(inputs, c, 0.5)
        assert value == pytest.approx(-2, rel=1e-6)
        np.testing.assert_allclose(gradient[0, 0], [-1, -1], rtol=1e-6)
        value, gradient = value_and_gradient(inputs, config(policy, clip_high=0.28), 0.5)
        assert value == pytest.approx(-1.28, rel=1e-6)
        np.testing.assert_array_equal(gradient, 0)


def test_gspo_bounds_are_those_of_the_paper():
    """Two tokens with log r = 5e-4 each: s = 1.0005, over 1 + 4e-4, so it is clipped.

    Bounds of `ppo` would let it through.
    """
    old = np.full((1, 1, 2), -0.5)
    inputs = make(old + 5e-4, old, np.ones((1, 1, 2)))
    _, gradient = value_and_gradient(inputs, config("gspo"))
    np.testing.assert_array_equal(gradient, 0)
    inputs = make(old + 3e-4, old, np.ones((1, 1, 2)))
    _, gradient = value_and_gradient(inputs, config("gspo"))
    np.testing.assert_allclose(gradient, -1.0003, rtol=1e-4)


def test_gspo_token_and_gspo_differ_where_advantages_differ_within_a_completion():
    """A = (1, 0), s = 1: gspo spreads the gradient of A's token over both, gspo_token does not."""
    old = np.full((1, 1, 2), -3.0)
    inputs = make(old, old, [[[1.0, 0.0]]])
    np.testing.assert_allclose(value_and_gradient(inputs, config("gspo"))[1], [[[-0.5, -0.5]]])
    np.testing.assert_allclose(value_and_gradient(inputs, config("gspo_token"))[1], [[[-1, 0]]])


@pytest.mark.parametrize(
    ("ratio", "advantage", "bounds", "slope"),
    [
        (10.0, 1.0, {"clip_high": 0.28}, -1.28),  # clipped, and still learns; ppo gives 0
        (10.0, -1.0, {"clip_high": 0.28}, 1.28),
        (0.1, 1.0, {}, -0.1),  # no bound below
        (0.1, 1.0, {"clip_low": 0.2}, -0.8),
        (10.0, 1.0, {}, -5.0),  # the default cap
    ],
)
def test_cispo_by_hand(ratio, advantage, bounds, slope):
    """The loss is -clip(r) A logprob, with logprob = -1 + ln r; its gradient -clip(r) A."""
    inputs = one_token([ratio], [advantage])
    value, gradient = value_and_gradient(inputs, config("cispo", **bounds))
    assert gradient[0, 0, 0] == pytest.approx(slope, rel=1e-6)
    assert value == pytest.approx(slope * (np.log(ratio) - 1), rel=1e-6)


def test_sapo_by_hand():
    """r = 1, A = 1, tau = 1: -4 sigmoid(0) = -2, gradient -4 * 1/4 = -1.

    A = -1 has tau 1.05: 4 / 1.05 / 2 = 1.904762, gradient 1. r = 3, A = 1: -4 sigmoid(2) =
    -3.523188, gradient -4 * .880797 * .119203 * 3 = -1.259924.
    """
    inputs = one_token([1.0, 1.0, 3.0], [1.0, -1.0, 1.0])
    c = config("sapo")
    np.testing.assert_allclose(
        token_loss(inputs, c)[0][0, :, 0], [-2, 1.904762, -3.523188], rtol=1e-6
    )
    _, gradient = value_and_gradient(inputs, c)
    np.testing.assert_allclose(gradient[0, :, 0], [-1, 1, -1.259924], rtol=1e-6)


def test_reinforce_by_hand():
    """logprob -1 and -1 + ln 2, A = (2, -1): losses 2 and -.306853, gradients -2 and 1."""
    inputs = one_token([1.0, 2.0], [2.0, -1.0])
    loss, _ = token_loss(inputs, config("reinforce"))
    np.testing.assert_allclose(loss[0, :, 0], [2, -0.306853], rtol=1e-5)
    np.testing.assert_allclose(value_and_gradient(inputs, config("reinforce"))[1][0, :, 0], [-2, 1])


def test_luffy_by_hand():
    """p = .1, gamma = .1, A = 1, offline: f = .5, f' = 2.5, so d loss / d logprob = -2.5 p = -.25.

    The online completion beside it, r = 10: ppo without bounds, -10 and -10. Taking the offline
    token's ratio to old instead would give f(r) with r = 1: .909.
    """
    old = np.array([[[np.log(0.1)], [-5.0]]])
    new = old + np.array([[[0.0], [np.log(10)]]])
    inputs = make(new, old, np.ones((1, 2, 1)), is_offline=np.array([[[True], [False]]]))
    c = config("ppo", clip_low=0.0, clip_high=0.0, clip_dual=0.0, offline="luffy")
    loss, sums = token_loss(inputs, c)
    np.testing.assert_allclose(loss[0, :, 0], [-0.5, -10], rtol=1e-5)
    _, gradient = value_and_gradient(inputs, c)
    np.testing.assert_allclose(gradient[0, :, 0], [-0.25, -10], rtol=1e-5)
    assert [float(x) for x in sums["policy/offline_shape"]] == pytest.approx([0.5, 1])


@pytest.mark.parametrize(
    ("logprob", "behavior", "advantage", "clip", "loss", "slope"),
    [
        (0.1, 0.4, 1.0, 1.0, -0.25, -0.25),
        (0.1, 0.05, 1.0, 1.0, -1.0, 0.0),  # rho = 2 is clipped: no gradient
        (0.1, 0.05, -2.0, 3.0, 4.0, 4.0),  # a higher bound, a bad trajectory
        (0.1, 0.05, -2.0, 1.0, 2.0, 0.0),
        (0.2, 0.2, 1.0, 1.0, -1.0, -1.0),  # at the bound: all of the gradient, not half
        (0.2, 1.0, 1.0, 1.0, -0.2, -0.2),  # nobody knows: rho = p
    ],
)
def test_importance_by_hand(logprob, behavior, advantage, clip, loss, slope):
    """rho = p / behavior. What `old_logprobs` says does not matter: it would give rho = .1."""
    new, old = np.full((1, 1, 1), np.log(logprob)), np.zeros((1, 1, 1))
    inputs = make(
        new,
        old + np.log(logprob * 10),
        old + advantage,
        behavior_logprobs=np.full((1, 1, 1), np.log(behavior), np.float32),
        is_offline=np.ones((1, 1, 1), bool),
    )
    c = config("ppo", offline="importance", offline_clip=clip)
    value, gradient = value_and_gradient(inputs, c)
    assert value == pytest.approx(loss, rel=1e-6)
    assert gradient[0, 0, 0] == pytest.approx(slope, rel=1e-6, abs=1e-7)
    got = means(token_loss(inputs, c)[1])
    assert got["policy/offline_clip_share"] == float(loss != slope)


def test_sft_by_hand():
    """Weight .5 for A, logprobs (-1, -2): losses (.5, 1), gradients -.5; whatever the ratio is.

    The online completion beside it, r = 10, A = 1: clipped at 1.28.
    """
    new = np.array([[[-1.0, -2.0], [-1.0, -1.0]]])
    old = new - np.array([[[5.0], [np.log(10)]]])
    a = np.array([[[0.5, 0.5], [1.0, 1.0]]])
    inputs = make(new, old, a, is_offline=np.array([[[True], [False]]]))
    c = config("ppo", offline="sft")
    np.testing.assert_allclose(token_loss(inputs, c)[0], [[[0.5, 1], [-1.28, -1.28]]], rtol=1e-6)
    np.testing.assert_allclose(value_and_gradient(inputs, c)[1], [[[-0.5, -0.5], [0, 0]]])


@pytest.mark.parametrize("treatment", OFFLINE_LOSSES)
def test_losses_and_logprobs_of_offline_tokens_are_told_apart(treatment):
    """r = 1, A = 1, p = .1 offline (2 tokens, one masked) and .5 online (2 tokens).

    Online -1. Offline: ppo -1, importance with behavior .2: -.5, luffy -.5, sft -ln .1 = 2.302585.
    """
    new = np.log(np.array([[[0.1, 0.1], [0.5, 0.5]]]))
    inputs = make(
        new,
        new,
        np.ones((1, 2, 2)),
        np.array([[[True, False], [True, True]]]),
        behavior_logprobs=np.full((1, 2, 2), np.log(0.2), np.float32),
        is_offline=np.array([[[True], [False]]]),
    )
    c = config("ppo", offline=treatment, has_offline=True)
    got = means(token_loss(inputs, c)[1])
    offline = {"on_policy": -1, "importance": -0.5, "luffy": -0.5, "sft": 2.302585}[treatment]
    assert got["policy/loss_online"] == pytest.approx(-1)
    assert got["policy/loss_offline"] == pytest.approx(offline, rel=1e-6)
    assert got["policy/offline_logprob"] == pytest.approx(-2.302585, rel=1e-6)
    bare = token_loss(inputs, dataclasses.replace(c, has_offline=False))[1]
    assert set(got) - set(bare) == {
        "policy/loss_online",
        "policy/loss_offline",
        "policy/offline_logprob",
    }


def test_clip_shares_are_of_sampled_tokens_where_offline_ones_have_their_own_loss():
    inputs = one_token([1.5, 1.5, 1], [1, 1, 1], is_offline=[[[True], [False], [False]]])
    for treatment, share in (("on_policy", 2 / 3), ("sft", 1 / 2)):
        sums = token_loss(inputs, config("ppo", offline=treatment))[1]
        assert means(sums)["policy/clip_high_share"] == pytest.approx(share)


def test_gmpo_by_hand():
    """log r = (.8, 0), A = 1, bound .4: exp((.4 + 0) / 2) = 1.221403; only the second token learns.

    A = -1: not clipped above, exp(.4) = 1.491825 and gradient .745912 on both.
    """
    old = np.full((1, 2, 2), -3.0)
    a = np.broadcast_to(np.array([1.0, -1.0])[None, :, None], (1, 2, 2))
    inputs = make(old + np.array([0.8, 0]), old, a)
    loss, _ = token_loss(inputs, config("gmpo"))
    np.testing.assert_allclose(loss[0, :, 0], [-1.221403, 1.491825], rtol=1e-5)
    _, gradient = value_and_gradient(inputs, config("gmpo"), 0.5)
    np.testing.assert_allclose(gradient[0], [[0, -1.221403 / 2], [1.491825 / 2] * 2], rtol=1e-5)


def test_clip_shares():
    batch = one_token([0.5, 0.5, 1.5, 1.5, 10, 1], [1, -1, 1, -1, -1, 1])
    _, sums = token_loss(batch, PLAIN)
    got = {name: (float(s), float(c)) for name, (s, c) in sums.items()}
    assert got == {
        "policy/clip_low_share": (1, 6),
        "policy/clip_high_share": (1, 6),
        "policy/clip_dual_share": (1, 6),
    }


def random_batch(seed=0, shape=(2, 3, 5), spread=1.0):
    """Inputs on a 2**-10 grid, which float32 holds exactly: both sides see the same numbers."""
    rng = np.random.default_rng(seed)

    def grid(low, high):
        return rng.integers(low * 1024, high * 1024, shape) / 1024

    old = grid(-4, 0)
    lengths = rng.integers(0, shape[2] + 1, shape[:2])
    lengths[0, 0] = shape[2]
    completions = rng.integers(-2048, 2048, (*shape[:2], 1)) / 1024
    return make(
        old + np.round(spread * grid(-1, 2) * 1024) / 1024,
        old,
        np.broadcast_to(completions, shape),
        np.arange(shape[2]) < lengths[..., None],
        behavior_logprobs=np.float32(old + grid(-1, 1)),
        ref_logprobs=np.float32(grid(-4, 0)),
        entropy=np.float32(grid(0, 2)),
        is_offline=rng.integers(0, 2, (*shape[:2], 1)) > 0,
        kl_coef=np.full((shape[0], 1, 1), 0.375, np.float32),
    )


def wide(inputs):
    return jax.tree.map(lambda x: np.asarray(x, np.float64 if x.dtype != bool else bool), inputs)


# Every policy by itself, with a KL term, and under each correction; wide and narrow ratios.
CASES = [
    *({"policy": p, "spread": s} for p in POLICY_LOSSES for s in (1.0, 0.02)),
    *(
        {"policy": p, "has_kl": True, "kl_estimator": k, "entropy_coef": 0.125}
        for p, k in zip(itertools.cycle(POLICY_LOSSES), algorithms.KL_ESTIMATORS, strict=False)
    ),
    *({"policy": "ppo", "correction": c} for c in algorithms.CORRECTIONS),
    *({"policy": "gspo", "correction": c} for c in algorithms.CORRECTIONS),
    *({"policy": p, "on_policy": True} for p in POLICY_LOSSES),
    *(
        {"policy": p, "offline": t, "correction": k, "offline_clip": 1.5}
        for (p, t), k in zip(
            itertools.product(POLICY_LOSSES, [t for t in OFFLINE_LOSSES if t != "on_policy"]),
            itertools.cycle(["", "token_tis", "sequence_mis"]),
            strict=False,
        )
    ),
]


@pytest.mark.parametrize(
    ("case", "aggregation"),
    zip(CASES, itertools.cycle(algorithms.AGGREGATIONS)),
    ids=["-".join(str(v) for v in case.values()) for case in CASES],
)
def test_value_and_gradient_against_finite_differences_in_float64(case, aggregation):
    """1e-6 of the largest entry: float32 carries 6e-8 a rounding, and exp of a log ratio of 2 that
    is itself rounded is off by twice that; central differences with h = 1e-5 by 1e-10.
    """
    case = dict(case)
    inputs = random_batch(spread=case.pop("spread", 1.0))
    c = config(**case)
    weights = loss_weights(np.asarray(inputs.mask), aggregation, 5)
    x = wide(inputs)
    value, gradient = value_and_gradient(inputs, c, weights)
    expected = oracle.gradient(x.logprobs, x, weights, c)
    scale = abs(expected).max()
    assert value == pytest.approx(
        oracle.total_loss(x.logprobs, x.logprobs, x, weights, c), rel=1e-6, abs=1e-6
    )
    assert scale > 0
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_array_equal(gradient[~x.mask], 0)


@pytest.mark.parametrize("seed", range(16))
def test_from_rewards_to_the_gradient(seed):
    """A random pick of estimator, loss, aggregation, KL term and correction against float64.

    5e-6: the advantages are rounded to float32 before the loss sees them.
    """
    rng = np.random.default_rng(seed)

    def pick(names):
        return str(rng.choice(list(names)))

    inputs = random_batch(seed, shape=(3, 4, 5))
    mask = np.asarray(inputs.mask)
    correct, form = rng.integers(0, 2, (2, 3, 4))
    rewards = np.float32(0.75 * correct + 0.25 * form)
    parts = {"accuracy": Part(0.75, correct), "format": Part(0.25, form)}
    tasks, lengths = ["a", "b", "a"], np.maximum(mask.sum(-1), 1)
    mode = pick(ESTIMATORS)
    outcomes = Outcomes(rewards, np.ones((3, 4), bool), lengths, parts, tasks)
    outcomes = outcomes._replace(
        moments=update_moments({}, outcomes, 0.99), baselines=rewards[:, 0]
    )
    plain = [(p.weight, p.scores.tolist()) for p in parts.values()]
    exact = oracle.advantages(mode, rewards.tolist(), lengths.tolist(), plain, tasks)
    got = group_advantages(outcomes, mode)
    inputs = inputs._replace(advantages=jnp.asarray(token_advantages(got, mask)))
    c = config(
        pick(POLICY_LOSSES),
        has_kl=bool(rng.integers(2)),
        kl_estimator=pick(algorithms.KL_ESTIMATORS),
        correction=pick(["", *algorithms.CORRECTIONS]),
        on_policy=bool(rng.integers(2)),
        offline=pick(OFFLINE_LOSSES),
    )
    weights = loss_weights(mask, pick(algorithms.AGGREGATIONS), 5)
    x = wide(inputs)._replace(advantages=np.where(mask, np.array(exact)[..., None], 0))
    expected = oracle.gradient(x.logprobs, x, weights, c)
    _, gradient = value_and_gradient(inputs, c, weights)
    np.testing.assert_allclose(gradient, expected, rtol=5e-6, atol=2e-6 * abs(expected).max())


@pytest.mark.parametrize("policy", POLICY_LOSSES)
def test_the_first_update_has_the_gradient_of_reinforce(policy):
    """With old = new, and one advantage a completion, under weights of each aggregation.

    Bounds lie on both sides of 1, so nothing is clipped.
    """
    inputs = random_batch(1)
    inputs = inputs._replace(
        old_logprobs=inputs.logprobs, is_offline=jnp.zeros_like(inputs.is_offline)
    )
    for aggregation in algorithms.AGGREGATIONS:
        weights = loss_weights(np.asarray(inputs.mask), aggregation, 5)
        expected = np.where(inputs.mask, -weights * np.asarray(inputs.advantages), 0)
        _, gradient = value_and_gradient(inputs, config(policy), weights)
        np.testing.assert_allclose(gradient, expected, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize("policy", POLICY_LOSSES)
def test_on_policy_is_the_first_update_whatever_old_says(policy):
    inputs = random_batch(2)._replace(is_offline=jnp.zeros((2, 3, 1), bool))
    weights = loss_weights(np.asarray(inputs.mask), "sequence_mean", 5)
    now = inputs._replace(old_logprobs=inputs.logprobs)
    _, expected = value_and_gradient(now, config(policy), weights)
    _, gradient = value_and_gradient(inputs, config(policy, on_policy=True), weights)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("policy", POLICY_LOSSES)
def test_zero_advantage_has_zero_gradient(policy):
    inputs = random_batch(3)
    inputs = inputs._replace(advantages=jnp.zeros_like(inputs.advantages))
    np.testing.assert_array_equal(value_and_gradient(inputs, config(policy))[1], 0)


@pytest.mark.parametrize(("policy", "offline"), VARIANTS)
def test_groups_completions_and_padding_do_not_touch_each_other(policy, offline):
    """A split into groups adds up to the whole; order and padding change nothing."""
    inputs = random_batch(4)
    c = config(policy, offline=offline, correction="sequence_tis", has_kl=True)
    weights = loss_weights(np.asarray(inputs.mask), "sequence_mean", 5)
    value, whole = value_and_gradient(inputs, c, weights)
    parts = [
        value_and_gradient(jax.tree.map(lambda x, g=g: x[g : g + 1], inputs), c, weights[g : g + 1])
        for g in range(2)
    ]
    assert sum(v for v, _ in parts) == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(np.concatenate([g for _, g in parts]), whole, rtol=1e-6)
    order = np.array([2, 0, 1])
    moved = jax.tree.map(lambda x: x[:, order] if x.shape[1] == 3 else x, inputs)
    _, shuffled = value_and_gradient(moved, c, weights[:, order])
    np.testing.assert_allclose(shuffled, whole[:, order], rtol=1e-6)
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 4 * (x.shape[2] > 1)))), inputs)
    _, gradient = value_and_gradient(padded, c, np.pad(weights, ((0, 0), (0, 0), (0, 4))))
    np.testing.assert_allclose(gradient[..., :5], whole, rtol=1e-6)
    np.testing.assert_array_equal(gradient[..., 5:], 0)


@pytest.mark.parametrize("policy", POLICY_LOSSES)
def test_devices_and_parts_change_nothing(policy):
    """Groups over 1 and 8 devices, and in 1, 2, 4 and 8 parts."""
    inputs, c = random_batch(8, shape=(8, 2, 4)), config(policy, correction="sequence_mis")
    weights = loss_weights(np.asarray(inputs.mask), "sequence_mean", 4)

    @jax.jit
    def gradient(inputs, weights):
        def total(x):
            return jnp.sum(weights * token_loss(inputs._replace(logprobs=x), c)[0])

        return jax.grad(total)(inputs.logprobs)

    whole = np.asarray(gradient(inputs, weights))
    mesh = jax.make_mesh((8,), ("groups",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.P("groups"))
    got = gradient(*jax.device_put((inputs, weights), spread))
    assert len(got.sharding.device_set) == 8
    np.testing.assert_allclose(got, whole, rtol=1e-6)
    for size in (1, 2, 4):
        for start in range(0, 8, size):
            part = slice(start, start + size)
            got = gradient(jax.tree.map(lambda x, at=part: x[at], inputs), weights[part])
            np.testing.assert_allclose(got, whole[part], rtol=1e-6)


@pytest.mark.parametrize(("policy", "offline"), VARIANTS)
def test_wild_values_off_the_mask_stay_out(policy, offline):
    inputs = random_batch(5)
    off = ~np.asarray(inputs.mask)
    assert off.any()

    def wild(x, value):
        return jnp.where(off, value, x)

    mad = inputs._replace(
        logprobs=wild(inputs.logprobs, jnp.inf),
        entropy=wild(inputs.entropy, jnp.nan),
        old_logprobs=wild(inputs.old_logprobs, -1e9),
        behavior_logprobs=wild(inputs.behavior_logprobs, jnp.nan),
        ref_logprobs=wild(inputs.ref_logprobs, jnp.nan),
    )
    weights = loss_weights(np.asarray(inputs.mask), "token_mean", 5)
    fields = {"has_kl": True, "correction": "sequence_mis", "entropy_coef": 0.1}
    fields |= {"offline": offline, "has_offline": True}
    for c in (config(policy, **fields), config(policy, on_policy=True, **fields)):
        value, gradient = value_and_gradient(mad, c, weights)
        expected, whole = value_and_gradient(inputs, c, weights)
        assert value == pytest.approx(expected, rel=1e-6)
        np.testing.assert_array_equal(gradient[off], 0)
        np.testing.assert_allclose(gradient, whole, rtol=1e-6)
        got, plain = (means(token_loss(x, c)[1]) for x in (mad, inputs))
        assert got == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize(("policy", "offline"), VARIANTS)
def test_an_empty_completion_and_one_of_the_end_token_alone_are_finite(policy, offline):
    old = np.full((1, 2, 3), -1.0)
    mask = np.array([[[False] * 3, [True, False, False]]])
    inputs = make(old, old, np.ones((1, 2, 3)), mask, is_offline=np.ones((1, 2, 1), bool))
    weights = loss_weights(mask, "sequence_mean", 3)
    c = config(policy, offline=offline, correction="geometric")
    value, gradient = value_and_gradient(inputs, c, weights)
    assert np.isfinite(value)
    assert np.count_nonzero(gradient) == 1


@pytest.mark.parametrize(("policy", "offline"), VARIANTS)
def test_offline_rows_of_weight_zero_change_nothing(policy, offline):
    inputs = random_batch(6)
    mask = np.asarray(inputs.mask)
    is_offline = np.broadcast_to(np.arange(3)[None, :, None] == 2, (2, 3, 1))
    weights = loss_weights(mask & ~is_offline, "token_mean", 5)
    c = config(policy, offline=offline, correction="token_tis")
    found = []
    for flag, shift in ((is_offline, 0.0), (np.zeros((2, 3, 1), bool), 7.0)):
        moved = inputs._replace(
            is_offline=jnp.asarray(flag),
            advantages=inputs.advantages + shift * is_offline,
            old_logprobs=inputs.old_logprobs - shift * is_offline,
            behavior_logprobs=inputs.behavior_logprobs - shift * is_offline,
        )
        found.append(value_and_gradient(moved, c, weights)[1])
    np.testing.assert_array_equal(found[0], found[1])


def test_a_huge_ratio_is_finite_in_every_loss():
    inputs = one_token([1.0, 1.0], [1.0, -1.0], is_offline=[[[True], [True]]])
    for shift, (policy, offline) in itertools.product((500.0, -500.0), VARIANTS):
        far = inputs._replace(
            old_logprobs=inputs.old_logprobs + shift,
            behavior_logprobs=inputs.behavior_logprobs + shift,
        )
        value, gradient = value_and_gradient(far, config(policy, offline=offline))
        assert np.isfinite(value), (policy, offline)
        assert np.isfinite(gradient).all(), (policy, offline)


def test_the_kl_coefficient_is_data():
    inputs = random_batch(7)
    c = config("ppo", has_kl=True)
    traced = []

    @jax.jit
    def total(inputs):
        traced.append(1)
        return token_loss(inputs, c)[0].sum()

    one, two, none = (total(inputs._replace(kl_coef=inputs.kl_coef * k)) for k in (1, 2, 0))
    assert len(traced) == 1
    assert float(two - none) == pytest.approx(2 * float(one - none), rel=1e-4)


def test_names_and_defaults_stand_in_one_table():
    assert set(POLICY_LOSSES) == set(algorithms.POLICIES)
    assert tuple(OFFLINE_LOSSES) == algorithms.OFFLINE_LOSSES
    fields = {field.name: field.default for field in dataclasses.fields(LossConfig)}
    ppo = algorithms.POLICIES["ppo"]
    assert (fields["clip_low"], fields["clip_high"], fields["clip_dual"]) == ppo[:3]


def test_refusal():
    with pytest.raises(ValueError, match="'gpso' is unknown; use one of ppo, gspo"):
        token_loss(one_token([1], [1]), LossConfig(policy="gpso"))
    with pytest.raises(ValueError, match="mix.treatment='lufy' is unknown; use one of on_policy"):
        token_loss(one_token([1], [1]), LossConfig(offline="lufy"))

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evr1.learner.optimizer import (
    AdamW,
    is_frozen,
    make_optimizer,
    make_schedule,
    state_shardings,
    trainable,
)

PARAMS = {
    "text": {"embed": jnp.arange(1.0, 7.0).reshape(3, 2), "norm": jnp.ones(2)},
    "vision": {"patch": jnp.full((2, 2), -1.0)},
}


def rates(*args, **kwargs):
    schedule = make_schedule(*args, **kwargs)
    return [float(schedule(i)) for i in range(args[2])]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("constant", (0.5, 1, 1, 1, 1)),
        ("linear", (0.5, 1, 1, 2 / 3, 1 / 3)),
        ("cosine", (0.5, 1, 1, 0.75, 0.25)),
    ],
)
def test_schedules_by_hand(shape, expected):
    assert rates(shape, 1.0, 5, warmup_updates=2) == pytest.approx(expected, rel=1e-6)


def test_no_update_is_wasted():
    for shape in ("constant", "linear", "cosine"):
        for warmup in (0, 1, 3):
            assert min(rates(shape, 1e-3, 7, warmup_updates=warmup)) > 0


def test_decay_ends_at_the_minimum():
    schedule = make_schedule("cosine", 1.0, 10, min_learning_rate=0.1)
    assert float(schedule(0)) == pytest.approx(1.0)
    assert float(schedule(10)) == float(schedule(99)) == pytest.approx(0.1)


def test_warmup_of_one_update_is_no_warmup():
    assert rates("linear", 1.0, 4, warmup_updates=1)[0] == 1.0


def adamw(params, grads, steps, rate, b1, b2, eps, decay, max_norm):
    """AdamW in float64, from the paper (1711.05101, algorithm 2)."""
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)]).astype(np.float64)
    g = np.concatenate([np.ravel(x) for x in jax.tree.leaves(grads)]).astype(np.float64)
    g = g * min(1, max_norm / np.linalg.norm(g))
    m = v = 0
    for i in range(1, steps + 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        step = m / (1 - b1**i) / (np.sqrt(v / (1 - b2**i)) + eps)
        flat = flat - rate * (step + decay * flat)
    return flat


@pytest.mark.parametrize("max_norm", [0.1, 1e9])
def test_three_updates_against_the_formula(max_norm):
    grads = jax.tree.map(lambda x: jnp.sin(x) / 3 + 0.01, PARAMS)
    settings = AdamW(b1=0.8, b2=0.9, eps=1e-3, weight_decay=0.2, max_grad_norm=max_norm)
    optimizer = make_optimizer(lambda count: 0.1, settings)
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(3):
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    got = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    expected = adamw(PARAMS, grads, 3, 0.1, 0.8, 0.9, 1e-3, 0.2, max_norm)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_moments_in_bfloat16_are_right_in_the_mean():
    """The second moment of constant gradients rises to their square in steps of a thousandth.

    Rounded to the nearest, it would stand still at an eighth of it.
    """
    params = {"w": jnp.zeros(4096)}
    grads = {"w": jnp.full(4096, 0.5)}
    settings = AdamW(max_grad_norm=0.0, moments_dtype="bfloat16")
    optimizer = make_optimizer(lambda count: 1e-3, settings, ())

    def turn(state, _):
        return optimizer.update(grads, state, params)[1], None

    state = jax.jit(lambda s: jax.lax.scan(turn, s, None, length=2000)[0])(optimizer.init(params))
    (adam, *_) = state[0]
    assert (adam.mu["w"].dtype, adam.nu["w"].dtype) == (jnp.bfloat16, jnp.bfloat16)
    expected = 0.25 * (1 - 0.999**2000)
    assert float(adam.nu["w"].astype(jnp.float32).mean()) == pytest.approx(expected, rel=3e-3)
    assert float(adam.mu["w"].astype(jnp.float32).mean()) == pytest.approx(0.5, rel=3e-3)


def test_frozen_parameters_stand_still_and_have_no_moments():
    optimizer = make_optimizer(lambda count: 0.1, AdamW(weight_decay=0.5), ("vision/.*",))
    state = optimizer.init(PARAMS)
    updates, _ = optimizer.update(PARAMS, state, PARAMS)
    np.testing.assert_array_equal(updates["vision"]["patch"], jnp.zeros((2, 2)))
    assert np.all(updates["text"]["embed"] != 0)
    moments = [x for x in jax.tree.leaves(state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * (6 + 2)


def test_frozen_gradients_do_not_count_in_the_norm():
    ones = jax.tree.map(jnp.ones_like, PARAMS["text"])
    grads = {"text": ones, "vision": {"patch": jnp.full((2, 2), 1e6)}}
    settings = AdamW(weight_decay=0.0, max_grad_norm=1.0, eps=1.0)
    both = make_optimizer(lambda count: 1.0, settings, ("vision/patch",))
    alone = make_optimizer(lambda count: 1.0, settings)
    got, _ = both.update(grads, both.init(PARAMS), PARAMS)
    text = PARAMS["text"]
    expected, _ = alone.update(grads["text"], alone.init(text), text)
    jax.tree.map(np.testing.assert_array_equal, got["text"], expected)


def test_trainable_matches_whole_paths():
    assert trainable(PARAMS, ("text/.*",)) == {
        "text": {"embed": False, "norm": False},
        "vision": {"patch": True},
    }
    assert trainable(PARAMS, (".*norm",))["text"] == {"embed": True, "norm": False}


@pytest.mark.parametrize(
    ("freeze", "is_still"),
    [((), False), (("vision/.*",), True), (("text/.*",), False), (("text/norm", ".*patch"), True)],
)
def test_a_part_is_frozen_where_nothing_in_it_is_trained(freeze, is_still):
    assert is_frozen(PARAMS, freeze, "vision") == is_still


def test_refusals():
    with pytest.raises(ValueError, match=r"'visoin/.\*' matches no parameter; paths look like"):
        trainable(PARAMS, ("visoin/.*",))
    with pytest.raises(ValueError, match="freezes every parameter"):
        trainable(PARAMS, (".*",))
    with pytest.raises(ValueError, match="'cos' is unknown; use one of constant"):
        make_schedule("cos", 1.0, 5)
    with pytest.raises(ValueError, match="warmup_steps=5 does not fit 5 updates"):
        make_schedule("linear", 1.0, 5, warmup_updates=5)


@pytest.mark.parametrize("freeze", [(), ("vision/.*",)])
def test_moments_are_laid_out_as_their_parameters(freeze):
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"))
    spec = jax.sharding.PartitionSpec
    name = lambda *axes: jax.sharding.NamedSharding(mesh, spec(*axes))  # noqa: E731
    shardings = {
        "text": {"embed": name(None, "data"), "norm": name("data")},
        "vision": {"patch": name("data")},
    }
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), PARAMS, shardings
    )
    state = jax.eval_shape(make_optimizer(lambda count: 1.0, freeze=freeze).init, PARAMS)
    got = jax.tree.leaves_with_path(state_shardings(state, abstract, name()))
    assert {jax.tree_util.keystr(p[-2:]): s.spec for p, s in got if "mu" in str(p)} == {
        "['text']['embed']": spec(None, "data"),
        "['text']['norm']": spec("data"),
    } | ({} if freeze else {"['vision']['patch']": spec("data")})
    assert all(s.spec == spec() for p, s in got if str(p[-1]) == ".count")

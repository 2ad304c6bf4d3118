"""The reference of the KL as it moves, and what of the networks a checkpoint holds."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_learn import settings

from evr1.networks import Networks, next_reference
from evr1.step import TrainState


def networks(policy, reference=None, critic=None):
    def state(x):
        return TrainState(jnp.int32(3), {"w": jnp.full(2, x)}, {"mu": jnp.full(2, x / 2)})

    old = None if reference is None else {"w": jnp.full(2, reference)}
    return Networks(state(policy), None if critic is None else state(critic), old)


@pytest.mark.parametrize(
    ("fields", "done", "expected"),
    [
        ({"kl_coef": 0.1}, 4, 1.0),  # stays as it was
        ({"kl_coef": 0.1, "reference_decay": 0.75}, 4, 0.75 * 1 + 0.25 * 5),
        ({"kl_coef": 0.1, "reference_decay": 0.0}, 4, 5.0),
        ({"kl_coef": 0.1, "reference_refresh_steps": 4}, 4, 5.0),
        ({"kl_coef": 0.1, "reference_refresh_steps": 4}, 6, 1.0),
    ],
)
def test_where_the_reference_stands_after_a_step(fields, done, expected):
    """Reference 1, policy 5."""
    after = next_reference(settings(**fields), networks(5.0, 1.0), done)
    np.testing.assert_allclose(after.reference["w"], expected)
    np.testing.assert_allclose(after.policy.params["w"], 5.0)


def test_a_refreshed_reference_is_a_copy():
    """The update gives the policy's arrays away; the reference must not be the same ones."""
    c = settings(kl_coef=0.1, reference_refresh_steps=1)
    after = next_reference(c, networks(5.0, 1.0), 1)
    assert after.reference["w"].unsafe_buffer_pointer() != (
        after.policy.params["w"].unsafe_buffer_pointer()
    )


@pytest.mark.parametrize(
    ("fields", "has_critic", "names"),
    [
        ({}, False, {"step", "params", "opt_state"}),
        ({"kl_coef": 0.1}, False, {"step", "params", "opt_state"}),
        (
            {"kl_coef": 0.1, "reference_decay": 0.9},
            True,
            {"step", "params", "opt_state", "critic", "reference"},
        ),
    ],
)
def test_a_checkpoint_holds_what_cannot_be_read_again(fields, has_critic, names):
    c, kept = settings(**fields), networks(5.0, 1.0, 7.0 if has_critic else None)
    saved = kept.saved(c)
    assert set(saved) == names
    restored = networks(0.0, 2.0, 0.0 if has_critic else None).restored(saved)
    assert float(restored.policy.params["w"][0]) == 5
    assert float(restored.reference["w"][0]) == (1 if "reference" in names else 2)
    if has_critic:
        assert float(restored.critic.opt_state["mu"][0]) == 3.5

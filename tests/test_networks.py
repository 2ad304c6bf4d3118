"""The reference of the KL as it moves, and what of the networks a checkpoint holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_learn import settings

from evr1.networks import Networks, init_networks, next_reference
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


def test_under_adapters_the_model_is_held_once():
    """Reference and checkpoint have adapters alone; what is beside them is the policy's own."""
    c = settings(kl_coef=0.1, reference_refresh_steps=2)
    c.lora.rank = 1
    params = {"text": jnp.ones(3), "lora": {"b": jnp.full(2, 5.0)}}
    kept = Networks(TrainState(jnp.int32(3), params, {}), None, {"lora": {"b": jnp.zeros(2)}})
    assert kept.reference_params["text"] is params["text"]
    assert float(kept.reference_params["lora"]["b"][0]) == 0
    saved = kept.saved(c)
    assert set(saved["params"]) == set(saved["reference"]) == {"lora"}
    fresh = {"text": jnp.full(3, 2.0), "lora": {"b": jnp.zeros(2)}}
    restored = kept._replace(policy=TrainState(0, fresh, {})).restored(saved)
    assert restored.policy.params == {"text": fresh["text"], "lora": params["lora"]}
    moved = next_reference(c, kept, 2)
    assert set(moved.reference) == {"lora"}
    assert float(moved.reference_params["lora"]["b"][0]) == 5


class AdaptedPolicy:
    """Gives new adapters to a base that is read once."""

    critic = None

    def __init__(self):
        self.loads = 0

    def load(self, model):
        self.loads += 1
        return {"text": jnp.ones(3), "lora": {"a": jnp.ones(2), "b": jnp.zeros(2)}}

    def init_state(self, params):
        return TrainState(jnp.int32(0), params, {})


def test_the_reference_of_adapters_is_the_base_without_them():
    c, policy = settings(kl_coef=0.1), AdaptedPolicy()
    c.lora.rank = 1
    made = init_networks(c, policy)
    assert policy.loads == 1
    assert made.reference_params["text"] is made.policy.params["text"]
    assert not any(x.any() for x in jax.tree.leaves(made.reference_params["lora"]))


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

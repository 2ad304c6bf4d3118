"""The reference of the KL as it moves, and what of the networks a checkpoint holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import step_rig
from learner_rig import learner, settings

from evr1.learner.state import LearnerState, next_reference, restored, saved_arrays
from evr1.learner.update import TrainState
from evr1.models import lora
from evr1.models.io import hf, peft
from evr1.rl.state import AlgorithmState

MEMORY = AlgorithmState(0.1)


def make_state(policy, reference=None, critic=None, step=0):
    def network(x):
        return TrainState(jnp.int32(3), {"w": jnp.full(2, x)}, {"mu": jnp.full(2, x / 2)})

    old = None if reference is None else {"w": jnp.full(2, reference)}
    other = None if critic is None else network(critic)
    return LearnerState(step, network(policy), MEMORY, other, old)


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
    state = make_state(5.0, 1.0, step=done)
    np.testing.assert_allclose(next_reference(settings(**fields), state)["w"], expected)
    np.testing.assert_allclose(state.policy.params["w"], 5.0)


def test_a_refreshed_reference_is_a_copy():
    """The update gives the policy's arrays away; the reference must not be the same ones."""
    c = settings(kl_coef=0.1, reference_refresh_steps=1)
    state = make_state(5.0, 1.0, step=1)
    assert next_reference(c, state)["w"].unsafe_buffer_pointer() != (
        state.policy.params["w"].unsafe_buffer_pointer()
    )


def test_under_adapters_the_model_is_held_once():
    """Reference and checkpoint have adapters alone; what is beside them is the policy's own."""
    c = settings(kl_coef=0.1, reference_refresh_steps=2, lora={"rank": 1})
    params = {"text": jnp.ones(3), "lora": {"b": jnp.full(2, 5.0)}}
    policy, off = TrainState(jnp.int32(3), params, {}), {"lora": {"b": jnp.zeros(2)}}
    kept = LearnerState(2, policy, MEMORY, reference=off)
    assert kept.reference_params["text"] is params["text"]
    assert float(kept.reference_params["lora"]["b"][0]) == 0
    saved = saved_arrays(c, kept)
    assert set(saved["params"]) == set(saved["reference"]) == {"lora"}
    fresh = {"text": jnp.full(3, 2.0), "lora": {"b": jnp.zeros(2)}}
    after = restored(kept._replace(policy=TrainState(0, fresh, {})), 2, saved)
    assert after.policy.params == {"text": fresh["text"], "lora": params["lora"]}
    moved = kept._replace(reference=next_reference(c, kept))
    assert set(moved.reference) == {"lora"}
    assert float(moved.reference_params["lora"]["b"][0]) == 5


def test_the_reference_of_adapters_is_the_base_without_them(monkeypatch):
    """The base is read once; the policy's adapters are new."""
    reads = []

    def read(directory, *_, **__):
        reads.append(directory)
        return step_rig.copy(step_rig.params())

    monkeypatch.setattr(hf, "load_params", read)
    made = learner(settings(kl_coef=0.1, lora={"rank": 1})).init()
    assert len(reads) == 1
    assert made.reference_params["text"] is made.policy.params["text"]
    assert any(x.any() for x in jax.tree.leaves(made.policy.params["lora"]))
    assert not any(x.any() for x in jax.tree.leaves(made.reference_params["lora"]))


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """A directory with an adapter on one matrix, and the base with it added."""
    model, base = step_rig.model(), step_rig.params()
    adapted = lora.adapt(model, rank=2, alpha=6.0, targets=["text/layers/attention/q/kernel"])
    values = jax.tree.map(lambda x: x + 0.1, adapted.init_adapters(jax.random.key(0)))
    peft.save_adapter({"lora": values}, adapted, tmp_path / "adapter", source="base")
    monkeypatch.setattr(hf, "load_params", lambda *_, **__: step_rig.copy(base))
    return str(tmp_path / "adapter"), values, adapted.merge(base | {"lora": values})


def _same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_an_adapter_that_is_trained_further_is_its_own_reference(adapter):
    path, values, _ = adapter
    made = learner(settings(kl_coef=0.1, lora={"adapter": path}))
    assert made.model.lora.scale == 3
    state = made.init()
    _same(state.policy.params["lora"], values)
    _same(state.reference["lora"], values)
    one, other = (x["lora"]["text"] for x in (state.policy.params, state.reference))
    for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        assert x.unsafe_buffer_pointer() != y.unsafe_buffer_pointer()  # the update gives one away
    assert set(saved_arrays(made.settings, state)["params"]) == {"lora"}
    with pytest.raises(ValueError, match=r"lora\.rank=4: the adapter in .* has rank 2; leave it"):
        learner(settings(lora={"adapter": path, "rank": 4}))


@pytest.mark.parametrize("rank", [0, 1])
def test_an_adapter_that_is_merged_is_a_part_of_the_model(adapter, rank):
    """All of it is trained, or new adapters on it; the reference is the merged model."""
    path, _, merged = adapter
    fields = {"adapter": path, "merge_adapter": True, "rank": rank}
    state = learner(settings(kl_coef=0.1, lora=fields)).init()
    for params in (state.policy.params, state.reference_params):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
            {k: v for k, v in params.items() if k != "lora"},
            merged,
        )
    if rank:
        assert not any(x.any() for x in jax.tree.leaves(state.reference["lora"]))


@pytest.mark.parametrize(
    ("fields", "has_critic", "names"),
    [
        ({}, False, {"updates", "params", "opt_state"}),
        ({"kl_coef": 0.1}, False, {"updates", "params", "opt_state"}),
        (
            {"kl_coef": 0.1, "reference_decay": 0.9},
            True,
            {"updates", "params", "opt_state", "critic", "reference"},
        ),
    ],
)
def test_a_checkpoint_holds_what_cannot_be_read_again(fields, has_critic, names):
    c, kept = settings(**fields), make_state(5.0, 1.0, 7.0 if has_critic else None)
    saved = saved_arrays(c, kept)
    assert set(saved) == names
    after = restored(make_state(0.0, 2.0, 0.0 if has_critic else None), 9, saved)
    assert after.step == 9
    assert float(after.policy.params["w"][0]) == 5
    assert float(after.reference["w"][0]) == (1 if "reference" in names else 2)
    if has_critic:
        assert float(after.critic.opt_state["mu"][0]) == 3.5

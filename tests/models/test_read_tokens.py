"""Of the last layer only those tokens are worked out that somebody reads: nothing else changes."""

import families
import jax
import jax.numpy as jnp
import kinds
import numpy as np
import pytest
from models_oracle import gap, jit, on_device

from evr1.models import FAMILIES
from evr1.models.nn.layout import read
from evr1.models.nn.stack import everything
from evr1.models.vision_language import VisionLanguageModel

NAMES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe mixed", "qwen3_5", "qwen3_5_moe")


@pytest.fixture(scope="module", params=kinds.families(NAMES, ["qwen3_vl"]))
def case(request):
    """A model, its parameters, and a ragged batch with two completions a prompt."""
    sizes, family = families.VARIANTS[request.param]
    model = FAMILIES[request.param.split()[0]](sizes, dtype="float32", remat="full")
    batch, completions = on_device(family.pack(family.prompts(family.cases)))
    return model, model.init(jax.random.key(0)), batch, completions


def both(monkeypatch, case, of):
    """What `of` gives when the last layer works for the tokens that are read, and when for all."""
    model, params, batch, _ = case

    def forward(params, *args, **kwargs):
        hidden, kept = model._forward(params, *args, **kwargs)
        if hidden.shape[1] > batch.tokens.shape[1]:
            hidden = read(hidden, batch.lengths, batch.tokens.shape[1])
        return hidden, kept

    short = jit(lambda p: of(forward, p))(params)
    monkeypatch.setattr(VisionLanguageModel, "_reader", lambda *_: everything)
    return short, jit(lambda p: of(forward, p))(params)


def test_states_and_gradients(monkeypatch, case):
    model, _, batch, completions = case
    weights = jnp.sin(jnp.arange(model.config.width, dtype=jnp.float32))

    def of(forward, params):
        def loss(params):
            hidden, _ = forward(params, batch, completions)
            return (jnp.sin(hidden) @ weights).sum(), hidden

        grads, hidden = jax.grad(loss, has_aux=True)(params)
        return hidden, grads

    (hidden, grads), (all_hidden, all_grads) = both(monkeypatch, case, of)
    assert hidden.shape[1] == 1 + completions[0].size
    assert gap(hidden, all_hidden) < 1e-6
    pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(all_grads), strict=True)
    assert max(gap(got, want) for got, want in pairs if np.any(want)) < 5e-6


def test_prefill(monkeypatch, case):
    """Keys, values and states are those of all tokens."""
    _, _, batch, completions = case
    none = completions[:, :0, :0]

    def of(forward, params):
        hidden, kept = forward(params, batch, none, keep_cache=True)
        last = hidden[:, 0] if hidden.shape[1] == 1 else read_last(hidden, batch.lengths)
        return last, kept.cache

    short, whole = both(monkeypatch, case, of)
    for got, want in zip(jax.tree.leaves(short), jax.tree.leaves(whole), strict=True):
        if got.size:
            assert gap(got, want) < 1e-6


def read_last(hidden, lengths):
    return jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]

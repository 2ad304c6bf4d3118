"""Properties of the model that need no torch, and the recorded logits of transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_oracle import config, gap, jit, on_device, pack, prompts, write_hf_dir
from repo import GOLDEN
from traces import counted

from evr1.models import load_model
from evr1.models.io.hf import load_params
from evr1.types import Prompts, VisionInput


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    path = write_hf_dir(tmp_path_factory.mktemp("hf") / "model", config())
    model = load_model(str(path))
    return model, load_params(path, model)


@pytest.fixture(scope="module")
def batch():
    return pack(prompts())


@pytest.fixture(scope="module")
def hidden(loaded, batch):
    model, params = loaded
    return np.asarray(jit(model.group_hidden)(params, *batch))


def _loss(model, params, batch, completions, weights):
    logits = model.logits(params, model.group_hidden(params, batch, completions))
    logprobs = jax.nn.log_softmax(logits)
    taken = jnp.take_along_axis(logprobs, completions[..., None], axis=-1)[..., 0]
    return (taken * weights).sum()


def _separate(batch, completions):
    """Every completion with a prompt, and a video, of its own."""
    n = completions.shape[1]
    repeated = jax.tree.map(lambda x: np.repeat(x, n, axis=0), batch)
    return repeated, completions.reshape(-1, 1, completions.shape[-1])


def test_recorded_logits(tmp_path):
    with np.load(GOLDEN / "qwen3_vl.npz") as golden:
        fields = [golden[f"prompts_{name}"] for name in Prompts._fields[:-1]]
        vision = [golden[f"vision_{name}"] for name in VisionInput._fields[:-1]]
        vision = VisionInput(*vision, is_image=np.zeros(vision[1].shape, bool))
        completions, expected = golden["completions"], golden["logits"]
    for tied in (False, True):
        path = write_hf_dir(tmp_path / str(tied), config(tied=tied))
        model = load_model(str(path))
        params = load_params(path, model)
        out = jit(model.group_hidden)(params, Prompts(*fields, vision), completions)
        assert gap(model.logits(params, out), expected[int(tied)]) < 1e-5
        params["text"]["layers"]["attention"]["q_norm"]["scale"] *= 1.01
        out = jit(model.group_hidden)(params, Prompts(*fields, vision), completions)
        assert gap(model.logits(params, out), expected[int(tied)]) > 1e-4


@pytest.fixture(scope="module")
def weights():
    """A random weight for every completion token; the completions are of ragged length."""
    lengths = np.array([[5, 3], [4, 1], [2, 5], [1, 5]])[..., None]
    drawn = np.random.default_rng(1).normal(size=(4, 2, 5)).astype(np.float32)
    return drawn * (np.arange(5) < lengths)


@pytest.fixture(scope="module")
def grads(loaded, batch, weights):
    model, params = loaded
    return jit(jax.grad(lambda p: _loss(model, p, *on_device(batch), weights)))(params)


def _worst(got, expected):
    return max(jax.tree.leaves(jax.tree.map(gap, got, expected)))


def test_group_equals_separate_sequences(loaded, batch, hidden, weights, grads):
    model, params = loaded
    alone = jit(model.group_hidden)(params, *_separate(*batch))
    assert gap(np.asarray(alone).reshape(hidden.shape), hidden) < 1e-5
    f = jit(jax.grad(lambda p, w: _loss(model, p, *on_device(_separate(*batch)), w)))
    assert _worst(f(params, weights.reshape(-1, 1, 5)), grads) < 1e-4
    weights = weights.copy()
    weights[2, 1, 4] *= 1.05  # the negative twin
    assert _worst(f(params, weights.reshape(-1, 1, 5)), grads) > 1e-3


def test_remat_and_blocked_attention_change_nothing(loaded, batch, weights, grads):
    model, params = loaded
    other = dataclasses.replace(model, remat="none", implementation="blocked")
    f = jit(jax.grad(lambda p: _loss(other, p, *on_device(batch), weights)))
    assert _worst(f(params), grads) < 1e-4


def test_decode_equals_group_hidden(loaded, batch, hidden):
    """Four groups in a cache of six slots, longer than the prompts; the groups start one by one."""
    model, params = loaded
    prompts_, completions = batch
    first, prefix = jit(model.prefill)(params, prompts_)
    assert gap(first, hidden[:, 0, 0]) < 1e-5
    decode = jit(model.decode, donate_argnums=1)
    slots, starts = np.array([4, 0, 5, 2]), np.array([0, 2, 1, 0])
    cache = jax.tree.map(lambda x: x + 7, model.init_cache(6, 2, 40, 5))  # stale numbers
    cache = model.insert(cache, prefix, *on_device((prompts_.lengths, slots)))
    worst = 0.0
    for time in range(6):
        t = time - starts
        live = (t >= 0) & (t < 4)
        tokens, steps, positions = (np.full((6, 2), x) for x in (0, 5, 0))
        tokens[slots[live]] = completions[live, :, t[live]]
        steps[slots[live]] = t[live][:, None]
        positions[slots[live]] = (prompts_.next_positions + t)[live][:, None]
        out, cache = decode(params, cache, tokens, steps, positions)
        worst = max(worst, gap(np.asarray(out)[slots[live]], hidden[live, :, t[live] + 1]))
    assert worst < 1e-5
    wrong = cache._replace(prefix_lengths=cache.prefix_lengths.at[slots[1]].add(-1))
    steps = np.full((6, 2), 3, np.int32)
    out, _ = decode(params, wrong, tokens, steps, positions)
    assert gap(np.asarray(out)[slots[1:2]], hidden[1:2, :, 4]) > 1e-4


def test_insert_leaves_out_slots_that_do_not_exist(loaded, batch):
    model, params = loaded
    _, prefix = jit(model.prefill)(params, batch[0])
    cache = model.init_cache(2, 2, 40, 5)
    lengths = jnp.asarray(batch[0].lengths)
    cache = model.insert(cache, prefix, lengths, jnp.array([9, 1, 7, 8]))
    assert not cache.prefix.k[:, 0].any()
    assert cache.prefix_lengths.tolist() == [0, lengths[1]]
    small = model.init_cache(2, 2, 10, 5)
    with pytest.raises(ValueError, match="a prefix of .* tokens exceeds the cache's 10"):
        model.insert(small, prefix, lengths, jnp.arange(4))


def test_decode_updates_the_cache_in_place(loaded):
    model, params = loaded
    cache = model.init_cache(4, 2, 64, 32)
    zeros = np.zeros((4, 2), np.int32)
    args = (params, cache, zeros, zeros, zeros)
    memory = jax.jit(model.decode, donate_argnums=1).lower(*args).compile().memory_analysis()
    held = sum(x.nbytes for x in jax.tree.leaves(cache))
    assert memory.alias_size_in_bytes >= held
    # One layer's slice of the cache (a third of it here) is read at a time; never all of it.
    assert memory.temp_size_in_bytes < held


def test_a_hidden_state_sees_the_past_of_its_own_completion_only(loaded, batch, hidden):
    model, params = loaded
    completions = batch[1].copy()
    completions[:, 0, 2] = (completions[:, 0, 2] + 1) % 90
    changed = np.asarray(jit(model.group_hidden)(params, batch[0], completions))
    same = np.isclose(changed, hidden, atol=1e-5).all(-1)
    assert same[:, 1].all()
    assert same[:, 0, :3].all()
    assert not same[:, 0, 3:].any()


def test_padding_changes_nothing(loaded, hidden):
    model, params = loaded
    padded, completions = pack(prompts(), prompt_tokens=48, rows=5)
    rng = np.random.default_rng(2)
    beyond = np.arange(48)[None] >= padded.lengths[:, None]
    padded.tokens[beyond] = 33
    padded.positions[np.broadcast_to(beyond[:, None], padded.positions.shape)] = 1000
    empty = padded.vision.segment_ids == 0
    padded.vision.patches[empty] = rng.integers(0, 256, (empty.sum(), 96))
    padded.vision.interp_weight[empty] = 3.0
    out = jit(model.group_hidden)(params, padded, completions)
    assert gap(out, hidden) < 1e-5


def test_batch_without_vision_rows(loaded, hidden):
    model, params = loaded
    batch, completions = on_device(pack(prompts(["text"])))
    none = VisionInput(*(x[:, :0] for x in batch.vision))
    out = jit(model.group_hidden)(params, batch._replace(vision=none), completions)
    assert gap(out, hidden[:1]) < 1e-5
    grads = jit(jax.grad(lambda p: _loss(model, p, batch._replace(vision=none), completions, 1.0)))(
        params
    )
    assert all(not x.any() for x in jax.tree.leaves(grads["vision"]))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_every_mix_of_media_is_one_program_and_text_alone_has_no_pass(loaded, hidden):
    """Text, image, clip and all together, padded to the same shapes: one compilation. The tower's
    products stand in the branch that a batch without media does not take.
    """
    model, params = loaded
    weights = jnp.float32(1.0)
    loss, traces = counted(lambda p, *batch: _loss(model, p, *batch, weights))
    grad = jit(jax.value_and_grad(loss))
    whole, _ = pack(prompts())
    shape = {"prompt_tokens": whole.tokens.shape[1], "rows": whole.vision.patches.shape[1]}
    for cases in (["text"], ["image"], ["video of three frames"], ["two videos and an image"]):
        batch, completions = pack(prompts(cases), **shape)
        value, grads = grad(params, batch, completions)
        has_vision = any(np.asarray(x).any() for x in jax.tree.leaves(grads["vision"]))
        assert has_vision == (cases != ["text"])
        assert np.isfinite(value)
    assert len(traces) == 1
    text_only = on_device(pack(prompts(["text"]), **shape))
    assert gap(jit(model.group_hidden)(params, *text_only), hidden[:1]) < 1e-5
    outside = jax.make_jaxpr(model.encode)(params, text_only[0].vision).eqns
    names = [eqn.primitive.name for eqn in outside]
    assert "cond" in names
    assert not {"dot_general", "conv_general_dilated", "scan"} & set(names)


def test_bfloat16_stays_near_float32(loaded, batch):
    model, params = loaded
    low = dataclasses.replace(model, dtype="bfloat16")
    exact = model.logits(params, jit(model.group_hidden)(params, *batch))
    rough = low.logits(params, jit(low.group_hidden)(params, *batch))
    assert rough.dtype == jnp.float32
    assert gap(rough, exact) < 0.05  # bfloat16 keeps 8 bits; three layers add their roundings
    _, prefix = jax.eval_shape(low.prefill, params, batch[0])
    assert prefix.k.dtype == jnp.bfloat16


def test_strict_dtype_promotion(loaded, batch):
    model, params = loaded
    low = dataclasses.replace(model, dtype="bfloat16")
    with jax.numpy_dtype_promotion("strict"):
        for m in (model, low):
            jax.eval_shape(lambda p, m=m: m.logits(p, m.group_hidden(p, *on_device(batch))), params)
            jax.eval_shape(m.prefill, params, batch[0])


def test_init_is_abstract_params_made_real(loaded):
    model, params = loaded
    fresh = jit(model.init)(jax.random.key(0))
    abstract = model.abstract_params()
    assert jax.tree.map(lambda x: (x.shape, x.dtype), fresh) == jax.tree.map(
        lambda x: (x.shape, x.dtype), abstract
    )
    kernel = fresh["text"]["layers"]["mlp"]["up"]["kernel"]
    assert abs(float(kernel.std()) - 0.02) < 0.001
    assert float(jnp.abs(kernel[0] - kernel[1]).max()) > 0.01  # layers differ
    assert jax.tree.structure(params) == jax.tree.structure(fresh)


def test_equal_models_compile_once(loaded, tmp_path):
    model, params = loaded
    path = write_hf_dir(tmp_path / "again", config())
    again = load_model(str(path))
    assert again == model
    assert hash(again) == hash(model)
    logits, traces = counted(lambda m, p, h: m.logits(p, h))
    f = jax.jit(logits, static_argnums=0)
    for m in (model, again):
        f(m, params, jnp.ones((2, 32)))
    assert len(traces) == 1

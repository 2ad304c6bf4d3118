"""Qwen3-VL MoE against transformers in float32, and the parts of its experts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from families import moe_config
from hf import load_torch
from models_oracle import gap, hf_inputs, hf_model, jit, on_device, pack, prompts, write_hf_dir

from evr1.batch.assemble import group_batch
from evr1.learner.update import make_update
from evr1.models import load_model
from evr1.models.io import hf, safetensors
from evr1.models.nn import experts
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import batch_sharding, replicated
from evr1.rl.losses import LossConfig
from evr1.types import Rollouts

torch = load_torch()

# Float32 keeps 24 bits; sums over 32 to 128 products in another order move the last four.
TIGHT = 1e-5
CASES = ["text", "two videos and an image"]


VARIANTS = {
    "sparse": {},
    "every second": {"decoder_sparse_step": 2},
    "mixed": {"mlp_only_layers": [1]},
}


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    raw = moe_config(**VARIANTS[request.param])
    path = write_hf_dir(tmp_path_factory.mktemp("hf") / "model", raw)
    model = load_model(str(path))
    return hf_model(raw), model, hf.load_params(path, model)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    path = write_hf_dir(tmp_path_factory.mktemp("hf") / "model", moe_config())
    model = load_model(str(path))
    return path, model, hf.load_params(path, model)


def _dense_experts(x, logits, per_token, gate_up, down):
    """By definition: every expert on every token, those that were not chosen weighted 0."""
    chances = np.exp(logits - logits.max(-1, keepdims=True))
    chances /= chances.sum(-1, keepdims=True)
    kept = chances >= np.sort(chances, axis=-1)[..., -per_token, None]
    weights = np.where(kept, chances, 0)
    weights /= weights.sum(-1, keepdims=True)
    gate, up = np.split(np.einsum("btd,edf->btef", x, gate_up), 2, axis=-1)
    out = np.einsum("btef,efd->bted", gate / (1 + np.exp(-gate)) * up, down)
    return (out * weights[..., None]).sum(axis=2)


@pytest.mark.parametrize("load", ["spread", "all on two", "one token"])
def test_no_token_is_dropped(load):
    rng = np.random.default_rng(0)
    b, t = (1, 1) if load == "one token" else (2, 9)
    x, logits = rng.normal(size=(b, t, 6)), rng.normal(size=(b, t, 5))
    if load == "all on two":
        logits[..., 3:] += 50
    gate_up, down = rng.normal(size=(5, 6, 8)), rng.normal(size=(5, 4, 6))
    f32 = [jnp.asarray(a, jnp.float32) for a in (x, logits, gate_up, down)]
    chosen, weights = experts.route(f32[1], 2)
    got = jit(experts.dispatch)(f32[0], chosen, weights, f32[2], f32[3])
    assert gap(got, _dense_experts(x, logits, 2, gate_up, down)) < TIGHT


@pytest.mark.parametrize("slab", [4, 9])
def test_slabs_of_tokens_change_nothing(slab, monkeypatch):
    """18 tokens in slabs of 4, the last with two places to fill, and of 9: outputs, gradients."""
    rng = np.random.default_rng(1)
    sizes = ((2, 9, 6), (2, 9, 5), (5, 6, 8), (5, 4, 6))
    args = [jnp.asarray(rng.normal(size=size), jnp.float32) for size in sizes]
    turn = jnp.asarray(rng.normal(size=sizes[0]), jnp.float32)

    def loss(x, logits, gate_up, down):
        out = experts.dispatch(x, *experts.route(logits, 2), gate_up, down)
        return (out * turn).sum(), out

    (_, whole), grads = jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))(*args)
    monkeypatch.setattr(experts, "SLAB", slab)
    sliced = jax.value_and_grad(lambda *a: loss(*a), (0, 1, 2, 3), has_aux=True)
    (_, out), sliced_grads = jit(sliced)(*args)
    assert "scan" in str(jax.make_jaxpr(sliced)(*args))
    assert gap(out, whole) < TIGHT
    for a, b in zip(sliced_grads, grads, strict=True):
        assert gap(a, b) < TIGHT


def test_balance_loss_and_metrics_by_hand():
    """Two tokens, two experts, one a token, probabilities (.75, .25) and (.75, .25): all
    assignments fall on expert 0, so the loss is 2 * (1 * .75 + 0 * .25) = 1.5, and the largest
    share is twice the even one. The third token is padding; with it the loss would be 1.1."""
    p = np.log(np.array([[0.75, 0.25], [0.75, 0.25], [0.05, 0.95]], np.float32))
    mask = jnp.array([[True, True, False]])
    metrics = experts.router_metrics(jnp.asarray(p)[None, None], 1, mask)
    assert metrics.balance_loss == pytest.approx(1.5)
    assert experts.balance_loss(jnp.asarray(p)[None, None], 1, mask) == pytest.approx(1.5)
    assert metrics.load.tolist() == [1, 0]
    assert metrics.max_load == pytest.approx(2)
    assert metrics.entropy == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))


@pytest.mark.parity
def test_balance_loss_is_that_of_transformers():
    from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import load_balancing_loss_func

    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3, 2, 7, 5)).astype(np.float32)
    mask = np.arange(7)[None] < np.array([7, 4])[:, None]
    given = [torch.tensor(x.reshape(-1, 5), requires_grad=True) for x in logits]
    expected = load_balancing_loss_func(tuple(given), 5, 2, torch.from_numpy(mask))
    expected.backward()
    got, grads = jax.value_and_grad(experts.balance_loss)(on_device(logits), 2, on_device(mask))
    assert got == pytest.approx(expected.item(), rel=1e-6)
    assert gap(grads.reshape(3, 14, 5), np.stack([x.grad.numpy() for x in given])) < TIGHT


@pytest.mark.parity
def test_hidden_states_and_router(pair):
    """The states that are read, after the final norm, and the router's log-probabilities."""
    reference, model, params = pair
    items = prompts(CASES)
    batch, completions = pack(items)
    p_max, r = batch.tokens.shape[1], completions.shape[2]
    hidden, kept = jit(model._forward, static_argnames="keep_router")(
        params, batch, completions, keep_router=True
    )
    assert len(kept.router) == len(model.config.sparse_layers)
    for g, p in enumerate(items):
        with torch.no_grad():
            out = reference.model(**hf_inputs(p, completions[g, 1]), output_router_logits=True)
        places = [*range(len(p.tokens)), *range(p_max + r, p_max + 2 * r)]
        last = len(p.tokens) - 1  # the states before it are nobody's
        expected = out.last_hidden_state[0, last:].numpy()
        assert gap(hidden[g, [0, *range(1 + r, 1 + 2 * r)]], expected) < TIGHT
        for mine, expected in zip(kept.router, out.router_logits, strict=True):
            expected = torch.log_softmax(expected, -1).numpy()
            assert gap(jax.nn.log_softmax(mine[g, places]), expected) < TIGHT
            assert gap(jax.nn.log_softmax(mine[g, places][::-1]), expected) > 1e-2  # negative twin


def _loss(model, batch, completions, weights):
    def loss(params):
        logits = model.logits(params, model.group_hidden(params, batch, completions))
        taken = jnp.take_along_axis(jax.nn.log_softmax(logits), completions[..., None], axis=-1)
        return (taken[..., 0] * weights).sum(), logits

    return loss


@pytest.mark.slow
def test_balance_in_the_update(sparse):
    """The update's gradient gains coefficient * share of the loss weights * that of the balance."""
    _, model, params = sparse
    prompts_, completions = pack(prompts(CASES))
    g, n, r = completions.shape
    rollouts = Rollouts(
        completions, np.zeros((g, n, r), np.float32), np.full((g, n), r - 1), np.ones((g, n), bool)
    )
    advantages = np.random.default_rng(2).normal(size=(g, n)).astype(np.float32)
    batch = group_batch(prompts_, rollouts, advantages, aggregation="token_mean", max_tokens=r)
    batch = batch._replace(loss_weights=batch.loss_weights * 0.25)  # a quarter of a minibatch

    def gradient(coef):
        loss = LossConfig(policy="reinforce", on_policy=True, balance_coef=coef)
        made = make_update(model, optax.sgd(1.0), loss)
        return made.accumulate(params, made.zeros(params), batch)

    (with_, sums), (without, none) = gradient(0.5), gradient(0.0)
    p = prompts_.tokens.shape[1]
    real = np.arange(p)[None] < prompts_.lengths[:, None]
    mask = np.concatenate([real, np.asarray(batch.completion_mask).reshape(g, -1)], axis=1)
    sequences, mask = on_device(((prompts_, completions), mask))

    def balance(params):
        router = model.group_forward(params, *sequences, keep_router=True)[1].router
        return experts.balance_loss(router, 2, mask)

    value, expected = jit(jax.value_and_grad(balance))(params)
    for a, b, c in zip(*map(jax.tree.leaves, (with_, without, expected)), strict=True):
        np.testing.assert_allclose(a - b, 0.125 * c, atol=1e-5)
    router = expected["text"]["layers"]["moe"]["router"]["kernel"]
    assert np.abs(router).max() > 1e-3
    assert sums["router/balance"][0] / sums["router/balance"][1] == pytest.approx(
        float(value), rel=1e-5
    )
    assert "router/balance" not in none


def test_group_is_separate_and_decode_is_group(sparse):
    """Both completions beside one prompt, one at a time, and token by token through the cache."""
    _, model, params = sparse
    batch, completions = on_device(pack(prompts(CASES)))
    g, n, r = completions.shape
    hidden = jit(model.group_hidden)
    both = hidden(params, batch, completions)
    for j in range(n):
        assert gap(hidden(params, batch, completions[:, j : j + 1])[:, 0], both[:, j]) < TIGHT
    first, prefix = jit(model.prefill)(params, batch)
    assert gap(first, both[:, 0, 0]) < TIGHT
    cache = model.init_cache(g, n, batch.tokens.shape[1], r)
    cache = model.insert(cache, prefix, batch.lengths, jnp.arange(g))
    decode = jit(model.decode)
    for t in range(r - 1):
        steps = jnp.full((g, n), t)
        positions = jnp.broadcast_to(batch.next_positions[:, None], (g, n)) + t
        out, cache = decode(params, cache, completions[:, :, t], steps, positions)
        assert gap(out, both[:, :, t + 1]) < TIGHT


@pytest.mark.parametrize(
    ("sizes", "slab"),
    [
        pytest.param((1, 2, 4), experts.SLAB, marks=pytest.mark.slow),
        pytest.param((2, 2, 2), experts.SLAB, marks=pytest.mark.slow),
        pytest.param((2, 2, 2), 32, marks=pytest.mark.slow),
        ((1, 1, 8), 32),
    ],
)
def test_eight_devices_give_the_same(sparse, sizes, slab, monkeypatch):
    """Experts split four and two ways, and eight ways, which four experts do not divide by; the
    tokens of a device at once, and in slabs."""
    _, model, params = sparse
    batch, completions = pack(prompts(CASES * 2))
    weights = np.ones(completions.shape, np.float32)
    run = jax.value_and_grad(lambda *a: _loss(model, *a[1:])(a[0])[0])
    expected = jit(run)(params, batch, completions, weights)
    monkeypatch.setattr(experts, "SLAB", slab)
    mesh = make_mesh(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])
    places = model.shardings(mesh)
    ways = sizes[2] if sizes[2] <= 4 else 1
    held = places["text"]["layers"]["moe"]["down"].shard_shape((3, 4, 20, 32))
    assert held[1] == 4 // ways
    with jax.set_mesh(mesh):
        rows = batch_sharding(mesh)
        shard = jax.jit(
            run,
            in_shardings=(places, rows, rows, rows),
            out_shardings=(replicated(mesh), places),
        )
        got = shard(
            jax.device_put(params, places), *jax.device_put((batch, completions, weights), rows)
        )
    assert gap(got[0], expected[0]) < TIGHT
    for a, b in zip(jax.tree.leaves(got[1]), jax.tree.leaves(expected[1]), strict=True):
        if np.asarray(b).any():
            assert gap(a, b) < 1e-4


@pytest.mark.parity
@pytest.mark.parametrize("version", ["4.57.0", "5.23.0"])
def test_both_orders_of_the_files_come_back_as_they_were(tmp_path, version):
    """Published files hold [E, in, out], those of transformers 5 [E, out, in]; both give the
    parameters that transformers has, and each is written as it was, bit for bit."""
    raw = moe_config(mlp_only_layers=[0])
    source = write_hf_dir(tmp_path / "5", raw)
    if version < "5":
        raw["transformers_version"] = version
        tensors = {k: v.open() for k, v in hf.entries(source).items()}
        source = tmp_path / "4"
        source.mkdir()
        (source / "config.json").write_text(json.dumps(raw))
        tensors = {k: v.swapaxes(-1, -2) if ".experts." in k else v for k, v in tensors.items()}
        safetensors.write(
            source / "model.safetensors",
            [(k, v.shape, v.dtype) for k, v in tensors.items()],
            (np.ascontiguousarray(v) for v in tensors.values()),
        )
    model = load_model(str(source))
    params = hf.load_params(source, model)
    hf.save_params(params, model, tmp_path / "out", source_dir=source, dtype="float32")
    before, after = hf.entries(source), hf.entries(tmp_path / "out")
    assert before.keys() == after.keys()
    for name in before:
        assert np.array_equal(before[name].open(), after[name].open()), name
    reference = hf_model(raw)
    loaded, info = type(reference).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for (name, a), b in zip(reference.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts_per_tok": 5}, "num_experts_per_tok=5 is over num_experts=4"),
        ({"num_experts": -1}, "num_experts=-1; give a whole number from 0"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step=0; give a whole number from 1"),
        ({"mlp_only_layers": 1}, "mlp_only_layers=1; give a list of layer numbers"),
    ],
)
def test_bad_sizes_are_named(tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps(moe_config(**change)))
    with pytest.raises(ValueError, match=message):
        load_model(str(tmp_path))

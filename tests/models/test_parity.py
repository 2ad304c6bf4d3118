"""Our model against transformers in float32, module by module, down to the gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hf import load_torch
from models_oracle import (
    CASES,
    config,
    gap,
    hf_inputs,
    hf_model,
    jit,
    on_device,
    pack,
    prompts,
    write_hf_dir,
)

from evr1.models import load_model
from evr1.models.io import hf
from evr1.models.nn import layers, rope
from evr1.models.nn.layout import segments
from evr1.models.nn.stack import everything
from evr1.models.towers import qwen3 as vision
from evr1.models.vision_language import VisionLanguageModel

torch = load_torch()
pytestmark = pytest.mark.parity

# Float32 keeps 24 bits; sums over 32 to 128 products in another order move the last four.
TIGHT = 1e-5


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    path = write_hf_dir(tmp_path_factory.mktemp("hf") / "model", config())
    model = load_model(str(path))
    return hf_model(config()), model, hf.load_params(path, model)


def _record(modules, run):
    """The first output of each module while `run` runs."""
    seen = []
    hooks = [
        m.register_forward_hook(
            lambda _m, _i, out: seen.append((out[0] if isinstance(out, tuple) else out).numpy())
        )
        for m in modules
    ]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return seen


def _layer(params, i):
    return jax.tree.map(lambda x: x[i], params)


def _with_grid(case):
    """A prompt and one row that holds all of its patches."""
    p = prompts([case])[0]
    patches = sum(len(m[2]) for m in p.media)
    return p, pack([p], row_patches=patches)[0].vision


@pytest.mark.parametrize("case", ["image", "video of three frames"])
def test_vision_tower_block_by_block(untied, case):
    reference, model, params = untied
    p, packed = _with_grid(case)
    kwargs = hf_inputs(p, p.completions[0])
    tower = reference.model.visual
    pixels = kwargs.get("pixel_values", kwargs.get("pixel_values_videos"))
    grid = kwargs.get("image_grid_thw", kwargs.get("video_grid_thw"))
    expected = _record([tower.patch_embed, *tower.blocks], lambda: tower(pixels, grid))
    packed = on_device(jax.tree.map(lambda x: x[0], packed))

    c, mine = model.config.vision, params["vision"]
    x = layers.bind(vision.Embed, c, params=mine["embed"])(packed, jnp.dtype("float32"))
    angles = rope.axial(packed.positions, rope.frequencies(c.width // c.heads // 2, c.rope_theta))
    layout = segments(packed.segment_ids, causal=False)

    @jit
    def block(weights, x, angles):
        return layers.bind(vision.Block, c, params=weights)(x, angles, layout, "auto")

    for i in range(c.depth):
        before, x = x, block(_layer(mine["blocks"], i), x, angles)
        assert gap(x[0], expected[1 + i]) < TIGHT
    wrong = packed.positions[..., ::-1]  # the negative twin: rows for columns
    angles = rope.axial(wrong, rope.frequencies(c.width // c.heads // 2, c.rope_theta))
    assert gap(block(_layer(mine["blocks"], i), before, angles)[0], expected[-1]) > 1e-3


@pytest.mark.parametrize("case", [c for c in CASES if c != "text"])
def test_visual_tokens(untied, case):
    """Pooled and DeepStack features, the patches packed into rows of several segments."""
    reference, model, params = untied
    p = prompts([case])[0]
    batch, _ = pack([p], row_patches=28)
    kwargs = hf_inputs(p, p.completions[0])
    features = {}
    with torch.no_grad():
        for kind, suffix in (("image", ""), ("video", "_videos")):
            if f"pixel_values{suffix}" in kwargs:
                tower = reference.model.visual
                features[kind] = tower(kwargs["pixel_values" + suffix], kwargs[kind + "_grid_thw"])
    visual = jit(model.encode)(params, batch.vision)
    order = batch.visual_index[0][batch.visual_index[0] >= 0]
    tokens = p.tokens[batch.visual_index[0, : len(p.tokens)] >= 0]
    for kind, token in (("image", 90), ("video", 91)):
        if kind in features:
            mine = order[tokens == token]
            assert gap(visual.embeds[0, mine], features[kind].pooler_output.numpy()) < TIGHT
            for k, expected in enumerate(features[kind].deepstack_features):
                assert gap(visual.deepstack[0, k, mine], expected.numpy()) < TIGHT


def test_deepstack_blocks_in_any_order(tmp_path):
    """The features go to the text layers by block; the mergers stand in the config's order."""
    raw = config()
    raw["vision_config"]["deepstack_visual_indexes"] = [2, 0]
    path = write_hf_dir(tmp_path / "model", raw)
    model = load_model(str(path))
    p = prompts(["image"])[0]
    batch, _ = pack([p])
    kwargs = hf_inputs(p, p.completions[0])
    with torch.no_grad():
        tower = hf_model(raw).model.visual
        expected = tower(kwargs["pixel_values"], kwargs["image_grid_thw"]).deepstack_features
    visual = jit(model.encode)(hf.load_params(path, model), batch.vision)
    mine = batch.visual_index[0][batch.visual_index[0] >= 0]
    for k in (0, 1):
        assert gap(visual.deepstack[0, k, mine], expected[k].numpy()) < TIGHT


def test_text_model_layer_by_layer(monkeypatch, untied):
    """The first one, two, three layers with the final norm, on all cases at once."""
    monkeypatch.setattr(VisionLanguageModel, "_reader", lambda *_: everything)
    reference, model, params = untied
    items = prompts()
    batch, completions = pack(items)
    p_max = batch.tokens.shape[1]
    expected = [_normed_states(reference, p, p.completions[1]) for p in items]
    for count in range(1, model.config.layers + 1):
        part = dataclasses.replace(model, config=dataclasses.replace(model.config, layers=count))
        stack = jax.tree.map(lambda x, n=count: x[:n], params["text"]["layers"])
        cut = {"vision": params["vision"], "text": params["text"] | {"layers": stack}}
        hidden, _ = jit(part._forward)(cut, batch, completions)
        for g, p in enumerate(items):
            mine = np.concatenate([hidden[g, : len(p.tokens)], hidden[g, p_max + 5 :]])
            assert gap(mine, expected[g][count - 1]) < TIGHT
            assert gap(mine, expected[g][count % 3]) > 1e-2  # the negative twin: another layer


def _normed_states(reference, p, completion):
    """The final norm of what leaves each layer, the DeepStack features added."""
    core = reference.model.language_model
    states = []
    hooks = [
        m.register_forward_pre_hook(
            lambda _m, args, kw: states.append(kw.get("hidden_states", *args[:1])[0]),
            with_kwargs=True,
        )
        for m in (*core.layers[1:], core.norm)
    ]
    with torch.no_grad():
        reference(**hf_inputs(p, completion))
        for hook in hooks:
            hook.remove()
        return [core.norm(x).numpy() for x in states]


def test_rope_parameters_in_both_spellings(tmp_path):
    """transformers 5 writes rope_parameters, the published checkpoints have rope_scaling."""
    old = config()
    new = config()
    turn = new["text_config"].pop("rope_scaling") | {
        "rope_theta": new["text_config"].pop("rope_theta")
    }
    new["text_config"]["rope_parameters"] = turn
    models = [load_model(str(write_hf_dir(tmp_path / n, c))) for n, c in (("o", old), ("n", new))]
    assert models[0] == models[1]


def test_transformers_loads_what_we_save(untied, tmp_path):
    reference, model, params = untied
    source = write_hf_dir(tmp_path / "source", config())
    hf.save_params(
        params, model, tmp_path / "out", source_dir=source, dtype="float32", max_shard_bytes=60_000
    )
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 3
    loaded, info = type(reference).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for (name, a), b in zip(reference.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b), name

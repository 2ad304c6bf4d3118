"""Qwen2-VL and Qwen2.5-VL against transformers in float32: blocks, logits, gradients."""

import dataclasses
import json

import families_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hf import load_torch
from models_oracle import gap, jit, on_device

from evr1.models import load_model
from evr1.models.families import qwen2_vl
from evr1.models.io import hf, safetensors
from evr1.models.nn import layers, rope
from evr1.models.nn.layout import segments
from evr1.models.nn.stack import everything
from evr1.models.towers import qwen2 as vision
from evr1.models.vision_language import VisionLanguageModel

torch = load_torch()
pytestmark = pytest.mark.parity

# Float32 keeps 24 bits; sums over 32 to 128 products in another order move the last four.
TIGHT = 1e-5


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl"])
def pair(request, tmp_path_factory):
    raw = oracle.config(request.param, tied=request.param == "qwen2_5_vl")
    reference = oracle.hf_model(raw)
    path = oracle.write_hf_dir(tmp_path_factory.mktemp("hf") / "model", raw, reference)
    model = load_model(str(path))
    return request.param, reference, model, hf.load_params(path, model), path


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


def _window_order(grid):
    """The place of every patch in transformers' order: cells of 2 x 2 merged tokens, row by row.

    A grid of 4 x 6 patches has merged tokens 0 1 2 / 3 4 5, which go 0 1 3 4 | 2 5.
    """
    order, before = [], 0
    for t, h, w in grid:
        h, w = h // 2, w // 2
        for frame in range(t):
            cells = [(i // 2, j // 2, i, j) for i in range(h) for j in range(w)]
            order += [before + frame * h * w + i * w + j for *_, i, j in sorted(cells)]
        before += t * h * w
    return (np.array(order)[:, None] * 4 + np.arange(4)).ravel()


@pytest.mark.parametrize("case", ["image", "video"])
def test_vision_tower_block_by_block(pair, case):
    family, reference, model, params, _ = pair
    p = oracle.prompts(family, [case])[0]
    (_, grid, patches), *_ = p.media
    packed = oracle.pack([p], row_patches=len(patches))[0].vision
    kwargs = oracle.hf_inputs(p, p.completions[0], family)
    tower = reference.model.visual
    pixels = kwargs.get("pixel_values", kwargs.get("pixel_values_videos"))
    thw = kwargs.get("image_grid_thw", kwargs.get("video_grid_thw"))
    expected = _record([tower.patch_embed, *tower.blocks], lambda: tower(pixels, thw))
    if family == "qwen2_5_vl":
        order = _window_order([grid])
        expected = [expected[0], *(x[np.argsort(order)] for x in expected[1:])]
    packed = on_device(jax.tree.map(lambda x: x[0], packed))

    c, mine = model.config.vision, params["vision"]
    x = layers.bind(vision.Embed, c, params=mine["embed"])(packed, jnp.dtype("float32"))
    assert gap(x[0], expected[0]) < TIGHT
    angles = rope.axial(packed.positions, rope.frequencies(c.width // c.heads // 2, c.rope_theta))
    frames = jnp.asarray(packed.segment_ids)
    local = vision.windows(frames, packed.positions, c.window) if c.window else frames

    @jit
    def block(weights, x, ids):
        layout = segments(ids, causal=False)
        return layers.bind(vision.Block, c, params=weights)(x, angles, layout, "auto")

    for i in range(c.depth):
        weights = jax.tree.map(lambda x, i=i: x[i], mine["blocks"])
        ids, other = (frames, local) if i in c.full_blocks else (local, frames)
        wrong, x = block(weights, x, other), block(weights, x, ids)
        assert gap(x[0], expected[1 + i]) < TIGHT
        if family == "qwen2_5_vl":  # the negative twin: full attention for windows and vice versa
            assert gap(wrong[0], expected[1 + i]) > 1e-3


def test_windows_by_hand():
    """Windows of 4 patches over a frame of 2 x 6 and one of 2 x 2, then padding.

    Columns 0 to 3 are a window and 4, 5 another; the second frame has its own.
    """
    at = [(r, c) for left in (0, 2, 4) for r in (0, 1) for c in (left, left + 1)]
    at += [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0)]
    segment = np.array([[1] * 12 + [2] * 4 + [0]])
    ids = np.asarray(vision.windows(jnp.asarray(segment), jnp.asarray(at)[None], 4))[0]
    assert len(set(ids[:8])) == len(set(ids[8:12])) == len(set(ids[12:16])) == 1
    assert len({ids[0], ids[8], ids[12], ids[16]}) == 4
    assert ids[16] == 0
    # 512 windows to the right is not one down, in a frame of any width.
    corners = jnp.array([[[0, 0], [0, 1024], [2, 0], [2, 1024]]])
    ids = np.asarray(vision.windows(jnp.ones((1, 4), jnp.int32), corners, 2))[0]
    assert len(set(ids)) == 4


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("", {"num_key_value_heads": 3}, "=3 does not divide num_attention_heads=4"),
        ("", {"rope_scaling": {"type": "yarn"}}, "rope type='yarn' is not supported"),
        ("", {"rope_scaling": {"mrope_section": ["2", 3, 3]}}, "for each of three axes"),
        ("", {"rms_norm_eps": 0}, "text_config.rms_norm_eps=0; give a number over 0"),
        ("vision_config", {"rope_parameters": {"rope_type": "linear"}}, "rope type='linear'"),
        ("vision_config", {"in_channels": 4}, "in_channels=4 is not supported"),
        ("vision_config", {"hidden_size": 8, "out_hidden_size": 1}, "make them equal"),
    ],
)
def test_bad_configs(tmp_path, family, section, changes, message):
    raw = oracle.config(family)
    (raw[section] if section else raw).update(changes)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=message):
        load_model(str(tmp_path))


def test_rotary_parameters_are_read_as_by_transformers():
    """The older key goes before the newer one, all of it; rope_theta may stand beside them."""
    turn = {"rope_type": "default", "rope_theta": 5.0, "mrope_section": [4, 2, 2]}
    raw = oracle.config("qwen2_vl")
    raw["vision_config"] |= {"rope_theta": 77.0}
    raw |= {"rope_parameters": turn, "rope_theta": 99.0}
    raw["rope_scaling"] = {"type": "mrope", "mrope_section": [2, 4, 2]}
    theirs, ours = oracle.hf_model(raw).config, qwen2_vl.parse(raw)
    assert ours.rope_theta == theirs.text_config.rope_parameters["rope_theta"] == 99
    assert list(ours.rope_sections) == theirs.text_config.rope_parameters["mrope_section"]
    assert ours.vision.rope_theta == theirs.vision_config.rope_parameters["rope_theta"] == 77


def test_visual_tokens(pair):
    """The whole tower, with patches of two videos and an image packed into rows."""
    family, reference, model, params, _ = pair
    p = oracle.prompts(family, ["two videos and an image"])[0]
    batch, _ = oracle.pack([p], row_patches=56)
    kwargs = oracle.hf_inputs(p, p.completions[0], family)
    visual = jit(model.encode)(params, batch.vision)
    order = batch.visual_index[0][batch.visual_index[0] >= 0]
    tokens = p.tokens[batch.visual_index[0, : len(p.tokens)] >= 0]
    for token, pixels, grid in (
        (90, "pixel_values", "image_grid_thw"),
        (91, "pixel_values_videos", "video_grid_thw"),
    ):
        with torch.no_grad():
            expected = reference.model.visual(kwargs[pixels], kwargs[grid]).pooler_output
        assert gap(visual.embeds[0, order[tokens == token]], expected.numpy()) < TIGHT


def test_text_model_layer_by_layer(monkeypatch, pair):
    """The first one, two, three layers with the final norm, on all cases at once."""
    monkeypatch.setattr(VisionLanguageModel, "_reader", lambda *_: everything)
    family, reference, model, params, _ = pair
    items = oracle.prompts(family)
    batch, completions = oracle.pack(items)
    p_max = batch.tokens.shape[1]
    core = reference.model.language_model
    expected = []
    for p in items:
        states = _record(
            core.layers,
            lambda p=p: reference(**oracle.hf_inputs(p, p.completions[1], family)),
        )
        with torch.no_grad():
            expected.append(
                [core.norm(torch.from_numpy(x)).numpy().reshape(-1, 64) for x in states]
            )
    batch = batch._replace(vision=jit(model.encode)(params, batch.vision))
    for count in range(1, model.config.layers + 1):
        part = dataclasses.replace(model, config=dataclasses.replace(model.config, layers=count))
        stack = jax.tree.map(lambda x, n=count: x[:n], params["text"]["layers"])
        cut = {"vision": params["vision"], "text": params["text"] | {"layers": stack}}
        hidden, _ = jit(part._forward)(cut, batch, completions)
        for g, p in enumerate(items):
            mine = np.concatenate([hidden[g, : len(p.tokens)], hidden[g, p_max + 5 :]])
            assert gap(mine, expected[g][count - 1]) < TIGHT
            assert gap(mine, expected[g][count % 3]) > 1e-2  # the negative twin: another layer


def test_decode_equals_group_hidden(pair):
    """Prefill, insert, then one token at a time, with its keys in the cache."""
    family, _, model, params, _ = pair
    items = oracle.prompts(family, ["text", "image", "video"])
    batch, completions = oracle.pack(items)
    g, n, r = completions.shape
    whole = jit(model.group_hidden)(params, batch, completions)
    last, kv = jit(model.prefill)(params, batch)
    assert gap(last, whole[:, 0, 0]) < TIGHT
    cache = model.init_cache(g, n, batch.tokens.shape[1], r)
    cache = model.insert(cache, kv, jnp.asarray(batch.lengths), jnp.arange(g))
    decode = jit(model.decode)
    for t in range(r - 1):
        steps = jnp.full((g, n), t, jnp.int32)
        positions = jnp.broadcast_to(batch.next_positions[:, None], (g, n)) + t
        hidden, cache = decode(params, cache, completions[:, :, t], steps, positions)
        assert gap(hidden, whole[:, :, t + 1]) < TIGHT


def test_saved_bytes_equal_the_loaded(pair, tmp_path):
    """transformers' own file, through our parameters, tensor by tensor; both config spellings."""
    _, _, model, params, path = pair
    hf.save_params(params, model, tmp_path / "out", source_dir=path, dtype="float32")
    theirs, ours = (safetensors.read_header(p / hf.SINGLE) for p in (path, tmp_path / "out"))
    assert theirs.keys() == ours.keys()
    for name, entry in theirs.items():
        assert entry.open().tobytes() == ours[name].open().tobytes(), name

    raw = json.loads((path / "config.json").read_text())
    text = {key: raw.pop(key) for key in oracle.TEXT}
    text["rope_parameters"] = text.pop("rope_scaling") | {"rope_theta": text.pop("rope_theta")}
    (tmp_path / "out" / "config.json").write_text(json.dumps(raw | {"text_config": text}))
    assert load_model(str(tmp_path / "out")) == model

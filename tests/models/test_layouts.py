"""Names and files of checkpoints as other software writes them."""

import itertools
import json
import shutil
from pathlib import Path

import families_oracle
import jax
import ml_dtypes
import numpy as np
import pytest
from adapters_rig import CONFIGS
from hf import load_torch
from models_oracle import write_hf_dir

from evr1.cli import convert_checkpoint
from evr1.data.processor import Processor
from evr1.models import FAMILIES, load_model
from evr1.models.io import hf, names, safetensors

ROOTS = [
    "".join(parts)
    for n in range(5)
    for parts in itertools.product(("model.", "language_model.", "visual."), repeat=n)
]
LEAVES = ("embed_tokens.weight", "layers.1.input_layernorm.weight", "blocks.0.attn.qkv.weight")
LEAVES += ("lm_head.weight",)


@pytest.mark.parity
@pytest.mark.parametrize("family", CONFIGS)
def test_every_name_is_read_as_transformers_reads_it(family):
    """All prefixes of up to four parts, before tensors of both halves and the head."""
    torch = load_torch()
    import transformers
    from transformers import conversion_mapping, core_model_loading

    raw = CONFIGS[family]()
    with torch.device("meta"):
        config = transformers.AutoConfig.for_model(**raw)
        theirs = transformers.AutoModelForImageTextToText.from_config(config)
    expected = theirs.state_dict()
    rules = conversion_mapping.get_model_conversion_mapping(theirs)
    renamings = [x for x in rules if isinstance(x, core_model_loading.WeightRenaming)]
    ours = FAMILIES[family](raw, dtype="float32", remat="none")
    weights = ours.weights()
    modules = names.renamings(weights)
    embed, norm = (
        next(w for w in weights if w.path == f"text/{x}") for x in ("embed", "norm/scale")
    )
    layer = norm.name.replace("norm", "layers.1.input_layernorm")
    qkv = next(w.name for w in weights if w.path == "vision/blocks/qkv/kernel").format(0)
    hub, read = (embed.name, layer, qkv), 0
    for root, leaf in itertools.product(ROOTS, LEAVES):
        there, _ = core_model_loading.rename_source_key(
            root + leaf, renamings, [], theirs.base_model_prefix, expected
        )
        found = names.find(weights, hub, [root + leaf]).stored
        got = names.module(next(iter(found)), modules) if found else None
        assert got == (there if there in expected else None), root + leaf
        read += bool(found)
    assert read > 10


def _layout(name):
    """Changes of the hub's names of Qwen2.5-VL."""
    vision, text = {
        "nested": ("model.visual.", "model.language_model."),
        "base model": ("visual.", "language_model."),
        "doubled": ("model.visual.", "model.model."),
    }[name]
    return lambda key: (
        key.replace("visual.", vision, 1)
        if key.startswith("visual.")
        else key.replace("model.", text, 1)
        if key.startswith("model.")
        else key
    )


def _tensors(path):
    return {k: np.array(e.open()) for k, e in hf.entries(path).items()}


def _write(path, tensors):
    listing = [(k, v.shape, v.dtype) for k, v in tensors.items()]
    safetensors.write(path / "model.safetensors", listing, tensors.values())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("layouts") / "hub"
    return write_hf_dir(path, families_oracle.config("qwen2_5_vl"))


@pytest.fixture
def copy(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["nested", "base model", "doubled"])
def test_the_layout_that_was_read_is_written(original, copy, tmp_path, name):
    rename = _layout(name)
    stored = {rename(k): v for k, v in _tensors(original).items()}
    _write(copy, stored)
    model = load_model(copy)
    params = hf.load_params(copy, model)
    jax.tree.map(np.testing.assert_array_equal, params, hf.load_params(original, model))
    hf.save_params(params, model, tmp_path / "out", source_dir=copy, dtype="float32")
    middle, back = tmp_path / "orbax", tmp_path / "back"
    assert convert_checkpoint.main([f"--from_hf={copy}", f"--to_orbax={middle}"]) == 0
    assert convert_checkpoint.main([f"--from_orbax={middle}", f"--to_hf={back}"]) == 0
    for out in (tmp_path / "out", back):
        got = _tensors(out)
        assert got.keys() == stored.keys()
        assert all(np.array_equal(got[k], v) for k, v in stored.items())


def test_a_parameter_under_two_names_is_refused(copy):
    tensors = _tensors(copy)
    _write(copy, tensors | {"model.language_model.norm.weight": tensors["model.norm.weight"]})
    with pytest.raises(ValueError, match=r"norm\.weight are the same parameter; remove one"):
        hf.load_params(copy, load_model(copy))


STRAYS = {
    "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
    "visual.rotary_pos_emb.inv_freq": np.ones(8, ml_dtypes.bfloat16),
    "model.position_ids": np.arange(9, dtype=np.int64),
    "v_head.summary.weight": np.ones((1, 64), np.float32),
    "value_head.bias": np.ones(1, np.float32),
    "score.weight": np.ones((1, 64), np.float32),
}


def test_buffers_and_other_heads_are_named_and_left_out(original, copy, tmp_path, capsys):
    expected = _tensors(original)
    _write(copy, expected | STRAYS)
    model = load_model(copy)
    params = hf.load_params(copy, model)
    told = capsys.readouterr().err
    assert all(name in told for name in STRAYS), told
    assert told.count("\n") == 1
    hf.save_params(params, model, tmp_path / "out", source_dir=copy, dtype="float32")
    assert _tensors(tmp_path / "out").keys() == expected.keys()
    assert convert_checkpoint.main([f"--from_hf={copy}", f"--to_orbax={tmp_path / 'o'}"]) == 0
    _write(copy, expected | {"model.layers.0.mlp.spare": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=r"extra model\.layers\.0\.mlp\.spare"):
        hf.load_params(copy, model)


def test_a_parameter_of_whole_numbers_is_refused(copy):
    _write(copy, _tensors(copy) | {"model.norm.weight": np.ones(64, np.int64)})
    with pytest.raises(ValueError, match=r"model\.norm\.weight is int64, not float32, float16"):
        hf.load_params(copy, load_model(copy))


def test_tied_embeddings_stored_as_the_head(tmp_path):
    """transformers ties in either direction."""
    path = write_hf_dir(tmp_path / "m", families_oracle.config("qwen2_vl", tied=True))
    model, tensors = load_model(path), _tensors(path)
    expected = hf.load_params(path, model)
    _write(path, {k.replace("model.embed_tokens", "lm_head"): v for k, v in tensors.items()})
    params = hf.load_params(path, model)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    hf.save_params(params, model, tmp_path / "out", source_dir=path, dtype="float32")
    assert _tensors(tmp_path / "out").keys() == _tensors(path).keys()


def _file(path, header, data):
    raw = header.encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def _entry(name, start, end):
    shape, offsets = [(end - start) // 4], [start, end]
    return f'"{name}": ' + json.dumps({"dtype": "F32", "shape": shape, "data_offsets": offsets})


BAD = {
    "duplicate": (f"{{{_entry('a', 0, 4)}, {_entry('a', 4, 8)}}}", 8, "a stands there twice"),
    "overlap": (f"{{{_entry('a', 0, 8)}, {_entry('b', 4, 12)}}}", 12, "b overlaps a"),
    "the same": (f"{{{_entry('a', 0, 8)}, {_entry('b', 0, 8)}}}", 8, "b overlaps a"),
    "gap": (f"{{{_entry('a', 0, 4)}, {_entry('b', 8, 12)}}}", 12, "b has a gap before it"),
    "trailing": (f"{{{_entry('a', 0, 4)}}}", 7, "3 bytes behind the last tensor"),
    "shape": ('{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}', 4, "entry of a"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_other_readers_refuse(tmp_path, case):
    header, size, message = BAD[case]
    _file(tmp_path / "model.safetensors", header, bytes(size))
    with pytest.raises(ValueError, match=message) as e:
        hf.entries(tmp_path)
    assert "\n" not in str(e.value)
    official = pytest.importorskip("safetensors")
    with pytest.raises(official.SafetensorError):
        official.safe_open(tmp_path / "model.safetensors", "np")


def test_a_tensor_in_two_shards_is_refused(copy):
    for name in ("a.safetensors", "b.safetensors"):
        shutil.copy(copy / "model.safetensors", copy / name)
    (copy / "model.safetensors").unlink()
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"stands in a\.safetensors and in b\.safetensors"):
        hf.entries(copy)


def test_an_adapter_given_as_the_model_is_told_as_such(original, copy, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    text = json.dumps({"peft_type": "LORA", "r": 8, "base_model_name_or_path": "some/base"})
    for path in (adapter, copy):
        (path / "adapter_config.json").write_text(text)
    for read in (load_model, lambda path: Processor.from_hf(str(path))):
        with pytest.raises(ValueError, match=r"an adapter, no model; give its base model \(some/"):
            read(adapter)
        with pytest.raises(ValueError, match=r"a model and an adapter .*; remove adapter_config"):
            read(copy)


SLIDING = {
    "both fields off": ({"sliding_window": 64}, False),
    "no size": ({"use_sliding_window": True, "sliding_window": None}, False),
    "from no layer on": ({"use_sliding_window": True, "max_window_layers": 3}, False),
    "from the last layer on": ({"use_sliding_window": True, "max_window_layers": 2}, True),
    "types before numbers": (
        {
            "use_sliding_window": True,
            "max_window_layers": 0,
            "layer_types": ["full_attention"] * 3,
        },
        False,
    ),
    "one type": (
        {
            "use_sliding_window": True,
            "max_window_layers": 3,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
        True,
    ),
}


@pytest.mark.parametrize("case", SLIDING)
def test_contradicting_flags_of_windows_mean_what_they_mean_to_transformers(copy, case):
    changes, has_windows = SLIDING[case]
    raw = families_oracle.config("qwen2_5_vl") | changes
    (copy / "config.json").write_text(json.dumps(raw))
    if has_windows:
        with pytest.raises(ValueError, match="use_sliding_window=true is not supported"):
            load_model(copy)
    else:
        load_model(copy)
    config = pytest.importorskip("transformers").AutoConfig.for_model(**raw)
    windows = [x == "sliding_attention" for x in config.text_config.layer_types]
    assert (any(windows) and config.text_config.sliding_window is not None) == has_windows


@pytest.mark.parametrize(
    ("family", "outer", "inner"),
    [
        (family, outer, inner)
        for family in CONFIGS
        for outer in (None, False, True)
        for inner in (None, False, True)
    ],
)
def test_embeddings_are_tied_where_transformers_ties_them(family, outer, inner):
    raw = CONFIGS[family]()
    raw.pop("tie_word_embeddings", None)
    if "text_config" not in raw:
        raw = {k: v for k, v in raw.items() if k not in families_oracle.TEXT}
        raw["text_config"] = dict(families_oracle.TEXT)
    raw |= {} if outer is None else {"tie_word_embeddings": outer}
    raw["text_config"] |= {} if inner is None else {"tie_word_embeddings": inner}
    theirs = pytest.importorskip("transformers").AutoConfig.for_model(**json.loads(json.dumps(raw)))
    assert FAMILIES[family](raw, dtype="float32", remat="none").config.tied == bool(
        theirs.tie_word_embeddings
    )


@pytest.mark.parametrize(
    ("wrapped", "prefix"),
    [
        ("module.model.visual.x.weight", "module."),
        ("_orig_mod.model.visual.x.weight", "_orig_mod."),
        ("model.layers.0._fsdp_wrapped_module.mlp.weight", "_fsdp_wrapped_module."),
    ],
)
def test_names_of_a_wrapper_are_told_as_that(wrapped, prefix):
    with pytest.raises(ValueError, match="save the model inside it, or take") as error:
        names.find((), [], [wrapped, "spare"])
    assert f"1 tensor with {prefix} in the name, such as {wrapped}: " in str(error.value)
    assert names.find((), [], ["module.score.weight"]).strays  # a head beside the model, as before

"""Adapters that others wrote, and our own, read back."""

import json
import re

import families_oracle
import jax
import ml_dtypes
import numpy as np
import pytest
from adapters_rig import CONFIGS, family_model
from hf import load_torch
from models_oracle import config, gap, write_hf_dir

from evr1.cli import convert_checkpoint
from evr1.models import load_model, lora
from evr1.models.io import hf, names, peft, peft_read, safetensors
from evr1.models.tree import flatten


@pytest.mark.parametrize("family", CONFIGS)
def test_what_is_written_is_read_again(family, tmp_path):
    """On every matrix, experts and router included: the merged matrices are the same."""
    model, params = family_model(family, has_tower=True)
    peft.save_adapter(params, model, tmp_path / "adapter", source="base")
    read = peft_read.read(tmp_path / "adapter", model.base)
    assert (read.rank, read.alpha) == (model.lora.rank, model.lora.alpha)
    again = read.adapt(model.base)
    assert {w.path for w in again.targets()} == {w.path for w in model.targets()}
    expected = flatten(params["lora"])
    for path, value in flatten(read.params()).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


def test_experts_of_one_half_alone(tmp_path):
    base = family_model("qwen3_5_moe", has_tower=False)[0].base
    path = next(w.path for w in base.weights() if w.role == "experts" and w.path.endswith("up"))
    model = lora.adapt(base, rank=2, alpha=4.0, targets=[re.escape(path)])
    adapters = jax.tree.map(lambda x: x + 0.1, model.init_adapters(jax.random.key(0)))
    peft.save_adapter({"lora": adapters}, model, tmp_path / "adapter", source="base")
    read = peft_read.read(tmp_path / "adapter", base)
    assert read.targets == (re.escape(path),)
    np.testing.assert_array_equal(read.values[path + "/b"], flatten(adapters)[path + "/b"])


TEXT = r".*language_model\.layers\.\d+\.(self_attn\.[qv]_proj|mlp\.down_proj)"
VARIANTS = {
    "list": {"target_modules": ["q_proj", "v_proj"]},
    "regex": {"target_modules": TEXT},
    "root of the rank": {"target_modules": ["q_proj", "o_proj"], "use_rslora": True},
    "patterns": {
        "target_modules": ["q_proj", "k_proj", "down_proj"],
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
        "alpha_pattern": {r"language_model\.layers\.0\.self_attn\.k_proj": 3, "down_proj": 20},
    },
    "layers": {
        "target_modules": ["q_proj"],
        "layers_to_transform": [1],
        "layers_pattern": "layers",
    },
    "tower": {"target_modules": r".*visual\.(blocks\.\d+\.attn\.(qkv|proj)|patch_embed\.proj)"},
    "not these": {"target_modules": "all-linear", "exclude_modules": r".*(lm_head|visual.*)"},
}


@pytest.mark.parity
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("case", VARIANTS)
def test_adapters_of_peft_are_added_as_peft_adds_them(case, family, tmp_path):
    """Every matrix of the merged model."""
    torch, theirs = load_torch(), pytest.importorskip("peft")
    import transformers

    raw = CONFIGS[family]()
    path = write_hf_dir(tmp_path / "hf", raw)
    kind = transformers.AutoModelForImageTextToText
    base = kind.from_pretrained(path, dtype=torch.float32)
    settings = theirs.LoraConfig(r=4, lora_alpha=12, **VARIANTS[case])
    wrapped = theirs.get_peft_model(base, settings)
    torch.manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(tmp_path / "adapter")
    expected = {k: v.numpy() for k, v in wrapped.merge_and_unload().state_dict().items()}
    model = load_model(path)
    adapter = peft_read.read(tmp_path / "adapter", model)
    params = peft_read.load_merged(path, model, adapter)
    hf.save_params(params, model, tmp_path / "out", source_dir=path, dtype="float32")
    before, after = hf.entries(path), hf.entries(tmp_path / "out")
    moved = 0
    for name, entry in after.items():
        there = names.module(name, names.renamings(model.weights()))
        assert gap(entry.open(), expected[there]) < 1e-5, name
        moved += gap(entry.open(), before[name].open()) > 1e-3
    tensors = safetensors.read_header(tmp_path / "adapter" / "adapter_model.safetensors")
    assert moved == len(tensors) / 2


@pytest.fixture
def adapter(tmp_path):
    """A small one on two matrices, its model and its tensors."""
    path = write_hf_dir(tmp_path / "hf", config())
    model = load_model(path)
    adapted = lora.adapt(model, rank=2, alpha=6.0, targets=["text/layers/attention/[qv]/kernel"])
    adapters = jax.tree.map(lambda x: x + 0.1, adapted.init_adapters(jax.random.key(0)))
    peft.save_adapter({"lora": adapters}, adapted, tmp_path / "adapter", source="base")
    return tmp_path / "adapter", model


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl_moe"])
def test_conversion_merges_an_adapter(family, tmp_path, capsys):
    """Of every matrix, experts and the tower included; on the way to Orbax it is refused."""
    path = write_hf_dir(tmp_path / "hf", CONFIGS[family]())
    model, params = family_model(family, has_tower=True)
    root, middle, out = (tmp_path / name for name in ("adapter", "orbax", "out"))
    peft.save_adapter(params, model, root, source="base")
    there = [f"--from_hf={path}", f"--to_orbax={middle}"]
    assert convert_checkpoint.main([*there, f"--adapter={root}"]) == 1
    assert "--adapter goes with --from_orbax" in capsys.readouterr().err
    assert convert_checkpoint.main(there) == 0
    back = [f"--from_orbax={middle}", f"--to_hf={out}", f"--adapter={root}"]
    assert convert_checkpoint.main(back) == 0
    plain = load_model(str(path))
    expected = flatten(peft_read.load_merged(path, plain, peft_read.read(root, plain)))
    before = flatten(hf.load_params(path, plain))
    for name, value in flatten(hf.load_params(out, plain)).items():
        assert gap(value, expected[name]) < 1e-6, name
    moved = {name for name, value in before.items() if gap(value, expected[name]) > 1e-6}
    assert moved == {weight.path for weight in model.targets()}


def _tensors(root):
    stored = safetensors.read_header(root / "adapter_model.safetensors")
    return {k: np.array(e.open()) for k, e in stored.items()}


def _write(root, tensors):
    listing = [(k, v.shape, v.dtype) for k, v in tensors.items()]
    safetensors.write(root / "adapter_model.safetensors", listing, tensors.values())


RENAMED = {
    "with the adapter's name": lambda k: k.replace(".weight", ".default.weight"),
    "of the base model": lambda k: k.replace("base_model.model.model.", "base_model.model."),
    "bare": lambda k: k.removeprefix("base_model.model."),
}


@pytest.mark.parametrize("case", RENAMED)
def test_names_that_tools_write(adapter, case):
    root, model = adapter
    expected = peft_read.read(root, model)
    _write(root, {RENAMED[case](k): v for k, v in _tensors(root).items()})
    got = peft_read.read(root, model)
    assert got.targets == expected.targets
    assert all(np.array_equal(got.values[k], v) for k, v in expected.values.items())


def test_names_of_older_transformers(tmp_path):
    """Adapters of Qwen2.5-VL from before version 4.52 have the hub's names."""
    path = write_hf_dir(tmp_path / "hf", families_oracle.config("qwen2_5_vl"))
    model = load_model(path)
    targets = ["text/layers/attention/q/kernel", "vision/blocks/proj/kernel"]
    adapted = lora.adapt(model, rank=2, alpha=6.0, targets=targets)
    adapters = jax.tree.map(lambda x: x + 0.1, adapted.init_adapters(jax.random.key(0)))
    root = tmp_path / "adapter"
    peft.save_adapter({"lora": adapters}, adapted, root, source="base")
    expected = peft_read.read(root, model)
    old = {
        k.replace("model.model.language_model.", "model.model.").replace(
            "model.model.visual.", "model.visual."
        ): v.astype(ml_dtypes.bfloat16)
        for k, v in _tensors(root).items()
    }
    _write(root, old)
    got = peft_read.read(root, model)
    assert got.targets == expected.targets
    assert all(gap(got.values[k], v) < 1e-2 for k, v in expected.values.items())


BAD_SETTINGS = {
    "dora": ({"use_dora": True}, "use_dora=True is not supported; merge it with peft"),
    "whole matrices": ({"modules_to_save": ["lm_head"]}, "modules_to_save="),
    "bias": ({"bias": "lora_only"}, "bias='lora_only' is not supported"),
    "another kind": ({"peft_type": "IA3"}, "peft_type=IA3 is not supported, LORA is"),
    "changed base": ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4"),
    "rank": ({"r": 3}, "has rank 2, adapter_config.json says 3"),
    "alpha": ({"lora_alpha": "x"}, "lora_alpha='x' of"),
    "no alpha": ({"lora_alpha": 0}, "lora_alpha=0 of .*; give a number, and not 0"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_variants_are_refused(adapter, case):
    root, model = adapter
    changes, message = BAD_SETTINGS[case]
    settings = json.loads((root / "adapter_config.json").read_text())
    (root / "adapter_config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(ValueError, match=message) as e:
        peft_read.read(root, model)
    assert "\n" not in str(e.value)


MODULE = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
BAD_TENSORS = {
    "dora": ({f"{MODULE}.lora_magnitude_vector.weight": np.ones(64, np.float32)}, "no tensor of"),
    "no module": (
        {"base_model.model.x.lora_A.weight": np.ones((2, 3), np.float32)},
        "x has lora_A",
    ),
    "unknown": (
        {f"base_model.model.x.lora_{x}.weight": np.ones((2, 2), np.float32) for x in "AB"},
        "x is no matrix of the model",
    ),
    "not finite": (
        {f"{MODULE}.lora_A.weight": np.full((2, 64), np.nan, np.float32)},
        "lora_A.weight is not finite",
    ),
    "size": ({f"{MODULE}.lora_A.weight": np.ones((2, 5), np.float32)}, r"is for \[5, 64\]"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_tensors_that_do_not_fit_are_named(adapter, case):
    root, model = adapter
    changes, message = BAD_TENSORS[case]
    _write(root, _tensors(root) | changes)
    with pytest.raises(ValueError, match=message):
        peft_read.read(root, model)


def test_a_directory_without_weights(adapter):
    root, model = adapter
    (root / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no adapter_model\.safetensors; evr1 reads"):
        peft_read.read(root, model)
    (root / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"no adapter_config\.json; give a directory that peft"):
        peft_read.read(root, model)

"""Adapter files: `peft` puts them on the transformers model, which is then the merged model."""

import json

import families_oracle
import jax
import models_oracle
import numpy as np
import pytest
from adapters_rig import CONFIGS, family_model
from hf import load_torch
from models_oracle import config, gap, jit, write_hf_dir

from evr1.models import load_model, lora
from evr1.models.io import hf, peft, safetensors

torch = load_torch()
pytestmark = pytest.mark.parity


def _load(path):
    import transformers

    model = transformers.AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    return model.eval()


def _logits(model, family):
    oracle = families_oracle if family.startswith("qwen2") else models_oracle
    more = (family,) if family.startswith("qwen2") else ()
    prompt = oracle.prompts(*more, cases=["image"])[0]
    with torch.no_grad():
        return model(**oracle.hf_inputs(prompt, prompt.completions[0], *more)).logits.numpy()


# It looks for them among modules, and uses them for parameters all the same.
@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning")
@pytest.mark.parametrize("family", CONFIGS)
def test_peft_loads_adapters_on_every_matrix(family, tmp_path):
    """Base of transformers + adapter = transformers with our merged export."""
    theirs = pytest.importorskip("peft")
    model, params = family_model(family, has_tower=True)
    raw, source = CONFIGS[family](), tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(raw))
    for name, tree in (
        ("base", {k: v for k, v in params.items() if k != "lora"}),
        ("merged", jit(model.merge)(params)),
    ):
        hf.save_params(tree, model.base, tmp_path / name, source_dir=source, dtype="float32")
    peft.save_adapter(params, model, tmp_path / "adapter", source=str(tmp_path / "base"))
    base = _load(tmp_path / "base")
    before = _logits(base, family)
    expected = _logits(_load(tmp_path / "merged"), family)
    got = _logits(theirs.PeftModel.from_pretrained(base, tmp_path / "adapter"), family)
    assert gap(got, expected) < 1e-4
    assert gap(before, expected) > 1e-2


def test_adapter_files(tmp_path):
    """peft reads HF weight + alpha / r * lora_B @ lora_A, for each module it names."""
    path = write_hf_dir(tmp_path / "hf", config())
    base = load_model(str(path))
    targets = ("text/layers/attention/[qv]/kernel", "vision/blocks/qkv/kernel")
    model = lora.adapt(base, rank=2, alpha=6.0, targets=targets)
    params = model.attach(hf.load_params(path, base), jax.random.key(0))
    params["lora"] = jax.tree.map(lambda x: x + 0.1, params["lora"])
    peft.save_adapter(params, model, tmp_path / "adapter", source="base")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    tensors = safetensors.read_header(tmp_path / "adapter" / "adapter_model.safetensors")
    hf.save_params(
        model.merge(params), model.base, tmp_path / "m", source_dir=path, dtype="float32"
    )
    before, after = hf.entries(path), hf.entries(tmp_path / "m")
    scale = settings["lora_alpha"] / settings["r"]
    changed = set()
    for name in before:
        module = name.removesuffix(".weight")
        w, key = np.array(before[name].open()), f"base_model.model.{module}.lora_"
        if module in settings["target_modules"]:
            a, b = (np.asarray(tensors.pop(f"{key}{x}.weight").open()) for x in "AB")
            w = w + scale * (b @ a).reshape(w.shape)
            changed.add(module)
        assert gap(after[name].open(), w) < 1e-6, name
    assert not tensors
    assert len(changed) == len(settings["target_modules"]) == 9  # three layers of q, v; blocks

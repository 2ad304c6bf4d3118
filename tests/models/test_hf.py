"""HF and Orbax directories: what goes in comes out; every bad input is one clear line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from models_oracle import config, write_hf_dir
from repo import ROOT

from evr1.cli import convert_checkpoint
from evr1.models import load_model
from evr1.models.io import hf, orbax_dir, safetensors
from evr1.models.tree import flatten
from evr1.parallel.mesh import make_mesh
from evr1.sampler.weights import lay_out

Q_PROJ = "model.language_model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = write_hf_dir(tmp_path_factory.mktemp("hf") / "model", config())
    (path / "tokenizer.json").write_text("{}")
    (path / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    (path / "pytorch_model.bin").write_text("weights of another framework")
    return path


@pytest.fixture
def broken(original, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(original, tmp_path / "broken"))


def _tensors(path):
    return {k: np.array(e.open()) for k, e in hf.entries(path).items()}


def _rewrite(path, change):
    """Applies `change` to the dict of tensors of a directory."""
    tensors = _tensors(path)
    change(tensors)
    listing = [(k, v.shape, v.dtype) for k, v in tensors.items()]
    safetensors.write(path / "model.safetensors", listing, tensors.values())


def _same(a, b):
    assert a.keys() == b.keys()
    for name, x in a.items():
        assert x.dtype == b[name].dtype, name
        assert x.tobytes() == b[name].tobytes(), name


def test_layout_by_hand(original):
    """[out, in] becomes [in, out]; fused q, k, v a middle axis; the patch convolution a matrix."""
    model = load_model(str(original))
    params, tensors = hf.load_params(original, model), _tensors(original)
    layer = params["text"]["layers"]["attention"]["q"]["kernel"][1]
    assert np.array_equal(layer, tensors[Q_PROJ].T)
    qkv = params["vision"]["blocks"]["qkv"]["kernel"][2]
    fused = tensors["model.visual.blocks.2.attn.qkv.weight"]
    assert np.array_equal(qkv[:, 1], fused[32:64].T)
    patch = params["vision"]["embed"]["patch"]["kernel"]
    conv = tensors["model.visual.patch_embed.proj.weight"]
    channel, time, row, column = 2, 1, 3, 0
    value = ((channel * 2 + time) * 4 + row) * 4 + column
    assert np.array_equal(patch[value], conv[:, channel, time, row, column])


def test_saving_gives_back_the_same_tensors_and_side_files(original, tmp_path):
    model = load_model(str(original))
    params = hf.load_params(original, model)
    out = tmp_path / "out"
    for limit in (70_000, 10**9):  # the second time over the first
        hf.save_params(
            params, model, out, source_dir=original, dtype="float32", max_shard_bytes=limit
        )
        _same(_tensors(out), _tensors(original))
        names = {p.name for p in out.iterdir()}
        assert {"config.json", "tokenizer.json", "generation_config.json"} <= names
        assert "pytorch_model.bin" not in names
        assert ("model.safetensors" in names) == (limit == 10**9)
        sizes = [p.stat().st_size for p in out.glob("*.safetensors")]
        assert limit == 10**9 or max(sizes) < 75_000
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_bfloat16_export_rounds_once(original, tmp_path):
    model = load_model(str(original))
    params = hf.load_params(original, model)
    hf.save_params(params, model, tmp_path / "out", source_dir=original)
    expected = {k: v.astype(ml_dtypes.bfloat16) for k, v in _tensors(original).items()}
    _same(_tensors(tmp_path / "out"), expected)


def test_sharded_load_reads_every_slice_to_its_place(original):
    model = load_model(str(original))
    whole = hf.load_params(original, model)
    shardings = model.shardings(make_mesh(data=1, fsdp=4, tensor=2))
    parts = hf.load_params(original, model, shardings=shardings)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)
    assert jax.tree.map(lambda x: x.sharding, parts) == shardings
    up = parts["text"]["layers"]["mlp"]["up"]["kernel"]
    assert up.addressable_shards[0].data.shape == (3, 32 // 4, 48 // 2)


def test_config_says_the_dtype_of_the_tensors(broken, tmp_path):
    """transformers reads tensors as config.json says: it would round these to bfloat16."""
    said = json.loads((broken / "config.json").read_text())
    said |= {"dtype": "bfloat16", "note": "ü"}
    said["text_config"] |= {"torch_dtype": "bfloat16", "mamba_ssm_dtype": "float32"}
    (broken / "config.json").write_text(json.dumps(said))
    model = load_model(str(broken))
    params = hf.load_params(broken, model)
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / dtype
        hf.save_params(params, model, out, source_dir=broken, dtype=dtype)
        expected = said | {"dtype": dtype}
        expected["text_config"] = said["text_config"] | {"torch_dtype": dtype}
        assert json.loads((out / "config.json").read_text()) == expected
    assert (out / "config.json").read_bytes() == (broken / "config.json").read_bytes()
    _rewrite(broken, _mix_dtypes)  # several dtypes: nothing that it could say
    convert_checkpoint.main([f"--from_hf={broken}", f"--to_orbax={tmp_path / 'orbax'}"])
    convert_checkpoint.main([f"--from_orbax={tmp_path / 'orbax'}", f"--to_hf={tmp_path / 'mixed'}"])
    assert json.loads((tmp_path / "mixed" / "config.json").read_text()) == said


@pytest.mark.parametrize("stored", ["float32", "mixed"])
def test_matrices_are_read_in_the_dtype_of_the_computation(broken, tmp_path, stored):
    """Bit for bit what a cast of the float32 parameters gives, numbers next to 0 included."""
    edge = np.array([1e-40, -3e-39, 2**-133, 1 + 2**-8, 1 + 3 * 2**-8, 65504], np.float32)
    _rewrite(broken, lambda t: t[Q_PROJ].flat.__setitem__(slice(len(edge)), edge))
    if stored == "mixed":
        _rewrite(broken, _mix_dtypes)
    convert_checkpoint.main([f"--from_hf={broken}", f"--to_orbax={tmp_path / 'orbax'}"])
    model = load_model(str(broken), dtype="bfloat16")
    places = model.shardings(make_mesh(data=1, fsdp=4, tensor=2))
    expected = lay_out(hf.load_params(broken, model), model)
    dtypes = model.compute_dtypes()
    for path in (broken, tmp_path / "orbax"):
        for shardings in (None, places):
            params = hf.load_params(path, model, shardings=shardings, dtype=dtypes)
            _same(*(jax.tree.map(np.asarray, flatten(x)) for x in (params, expected)))


def _mix_dtypes(tensors):
    for name in tensors:
        if "norm" not in name:
            tensors[name] = tensors[name].astype(ml_dtypes.bfloat16)
    tensors[Q_PROJ] = tensors[Q_PROJ].astype(np.float16)


@pytest.mark.parametrize("tied", [False, True])
def test_conversion_and_back_is_byte_identical(tied, tmp_path, capsys):
    source = write_hf_dir(tmp_path / "source", config(tied=tied))
    (source / "tokenizer.json").write_text('{"a": 1}')
    _rewrite(source, _mix_dtypes)
    if tied:  # some checkpoints store the tied head once more
        embed = "model.language_model.embed_tokens.weight"
        _rewrite(source, lambda t: t.update({"lm_head.weight": t[embed]}))
    middle, out = tmp_path / "orbax", tmp_path / "out"
    there = [f"--from_hf={source}", f"--to_orbax={middle}"]
    assert convert_checkpoint.main(there) == 0
    assert convert_checkpoint.main(there) == 0
    assert "nothing to do" in capsys.readouterr().out
    name = "model.visual.pos_embed.weight"  # the same model, trained a little longer
    other = tmp_path / "other"
    shutil.copytree(source, other)
    _rewrite(other, lambda t: t.update({name: t[name] + 1}))
    assert convert_checkpoint.main([f"--from_hf={other}", f"--to_orbax={middle}"]) == 1
    assert "holds something else" in capsys.readouterr().err
    shutil.rmtree(other)
    back = [f"--from_orbax={middle}", f"--to_hf={out}", "--max_shard_bytes=40000"]
    assert convert_checkpoint.main(back) == 0
    _same(_tensors(out), _tensors(source))
    assert (out / "tokenizer.json").read_text() == '{"a": 1}'
    assert {p.name for p in tmp_path.iterdir()} == {"source", "orbax", "out"}


def test_an_orbax_directory_serves_as_the_model(original, tmp_path):
    out = tmp_path / "orbax"
    assert convert_checkpoint.main([f"--from_hf={original}", f"--to_orbax={out}"]) == 0
    model = load_model(str(out))
    assert model == load_model(str(original))
    assert (hf.side_dir(out) / "tokenizer.json").is_file()
    whole = hf.load_params(original, model)
    shardings = model.shardings(make_mesh(data=2, fsdp=2, tensor=2))
    for places in (None, shardings):
        jax.tree.map(
            np.testing.assert_array_equal, hf.load_params(out, model, shardings=places), whole
        )
    hf.save_params(whole, model, tmp_path / "hf", source_dir=out, dtype="float32")
    _same(_tensors(tmp_path / "hf"), _tensors(original))


def test_conversion_to_another_dtype(original, tmp_path):
    middle, out = tmp_path / "orbax", tmp_path / "out"
    convert_checkpoint.main([f"--from_hf={original}", f"--to_orbax={middle}", "--dtype=bfloat16"])
    convert_checkpoint.main([f"--from_orbax={middle}", f"--to_hf={out}"])
    expected = {k: v.astype(ml_dtypes.bfloat16) for k, v in _tensors(original).items()}
    _same(_tensors(out), expected)


def test_an_interrupted_conversion_starts_over(original, tmp_path):
    for name in ("orbax.partial", "out.partial"):
        (tmp_path / name / "params").mkdir(parents=True)
        (tmp_path / name / "params" / "half").write_text("written before the kill")
    middle, out = tmp_path / "orbax", tmp_path / "out"
    assert convert_checkpoint.main([f"--from_hf={original}", f"--to_orbax={middle}"]) == 0
    assert convert_checkpoint.main([f"--from_orbax={middle}", f"--to_hf={out}"]) == 0
    _same(_tensors(out), _tensors(original))
    assert {p.name for p in tmp_path.iterdir()} == {"orbax", "out"}


BAD_TENSORS = {
    "missing": (lambda t: t.pop(Q_PROJ), f"missing {Q_PROJ} [64, 32]"),
    "extra": (
        lambda t: t.update(spare=np.zeros(3, np.float32)),
        "extra spare [3]",
    ),
    "mis-shaped": (
        lambda t: t.update({Q_PROJ: np.zeros((32, 64), np.float32)}),
        f"{Q_PROJ} is [32, 64], expected [64, 32]",
    ),
    "a layer too many": (
        lambda t: t.update({Q_PROJ.replace(".1.", ".3."): np.zeros((64, 32), np.float32)}),
        "extra model.language_model.layers.3.self_attn.q_proj.weight [64, 32]",
    ),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_tensors_that_do_not_fit_are_named(broken, case):
    change, message = BAD_TENSORS[case]
    _rewrite(broken, change)
    with pytest.raises(ValueError, match="tensors do not fit config.json") as e:
        hf.load_params(broken, load_model(str(broken)))
    assert message in str(e.value)
    assert str(broken) in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("head", [np.ones((96, 32)), np.ones((5, 32))])
def test_a_head_of_its_own_is_refused_where_the_config_ties_it(broken, head):
    """transformers would use it, with a warning."""
    raw = config() | {"tie_word_embeddings": True}
    (broken / "config.json").write_text(json.dumps(raw))
    _rewrite(broken, lambda t: t.update({"lm_head.weight": head.astype(np.float32)}))
    with pytest.raises(ValueError, match="lm_head.weight differs from the embeddings; set"):
        hf.load_params(broken, load_model(str(broken)))


def _cut(path):
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:-100])


def _garble(path):
    data = bytearray((path / "model.safetensors").read_bytes())
    data[8:40] = b"\xff" * 32
    (path / "model.safetensors").write_bytes(data)


def _header(path, value):
    text = json.dumps(value).encode()
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)


def _index(path, text):
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(text)


BAD_FILES = {
    "truncated": (_cut, "truncated; copy the file again"),
    "garbled header": (_garble, "unreadable header"),
    "empty": (lambda p: (p / "model.safetensors").write_bytes(b""), "corrupt"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "evr1 reads safetensors only"),
    "missing shard": (
        lambda p: _index(p, json.dumps({"weight_map": {"a": "model-1.safetensors"}})),
        "names model-1.safetensors, not there",
    ),
    "bad index": (lambda p: _index(p, "{"), "not an index"),
    "index of another kind": (lambda p: _index(p, "[]"), "not an index"),
    "index of numbers": (lambda p: _index(p, '{"weight_map": {"a": 5}}'), "names 5, not there"),
    "header of another kind": (lambda p: _header(p, []), "unreadable header"),
    "entry without a type": (lambda p: _header(p, {"a": {"shape": [1]}}), "unreadable entry of a"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(broken, case):
    spoil, message = BAD_FILES[case]
    model = load_model(str(broken))
    spoil(broken)
    with pytest.raises(ValueError, match=message) as e:
        hf.load_params(broken, model)
    assert "\n" not in str(e.value)


def test_a_single_file_goes_before_shards(broken):
    """As in transformers; an index beside it is a leftover."""
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    assert {e.file.name for e in hf.entries(broken).values()} == {"model.safetensors"}


BAD_CONFIGS = {
    "family": (lambda c: c.update(model_type="llama"), "'llama' is not supported; supported: qwen"),
    "activation": (
        lambda c: c["text_config"].update(hidden_act="relu"),
        "hidden_act='relu' is not",
    ),
    "rope": (
        lambda c: c["text_config"]["rope_scaling"].update(rope_type="yarn"),
        "rope type='yarn' is not supported",
    ),
    "size": (
        lambda c: c["text_config"].update(hidden_size=None),
        "text_config.hidden_size=None; give a whole number over 0",
    ),
    "deepstack": (
        lambda c: c["vision_config"].update(deepstack_visual_indexes=[0, 3]),
        r"deepstack_visual_indexes=\[0, 3\]; give distinct blocks from 0 to 2",
    ),
    "no list": (
        lambda c: c["vision_config"].update(deepstack_visual_indexes=None),
        "deepstack_visual_indexes=None; give a list",
    ),
    "norm": (lambda c: c["text_config"].update(rms_norm_eps="1e-6"), "rms_norm_eps='1e-6'; give"),
    "axes": (
        lambda c: c["text_config"]["rope_scaling"].update(mrope_section=[4, 2]),
        r"mrope_section=\[4, 2\]; give a whole number for each of three",
    ),
    "axes, no list": (
        lambda c: c["text_config"]["rope_scaling"].update(mrope_section=8),
        "mrope_section=8; give a whole number for each of three",
    ),
    "axes, no numbers": (
        lambda c: c["text_config"]["rope_scaling"].update(mrope_section=[4, 2, "2"]),
        r"mrope_section=\[4, 2, '2'\]; give a whole number for each of three",
    ),
    "heads": (lambda c: c["vision_config"].update(num_heads=3), "vision_config cannot be turned"),
    "output": (lambda c: c["vision_config"].update(out_hidden_size=1), "gives 1 channels"),
    "section": (lambda c: c.update(vision_config=[1]), "vision_config is no object"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_configs(broken, case):
    change, message = BAD_CONFIGS[case]
    raw = config()
    change(raw)
    (broken / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=message):
        load_model(str(broken))


def test_directories_without_a_model(tmp_path):
    with pytest.raises(ValueError, match="no config.json; give a HF model directory"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: not JSON"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="config.json: holds no JSON object"):
        load_model(str(tmp_path))


def test_output_directories_are_guarded(original, tmp_path, capsys):
    model = load_model(str(original))
    params = hf.load_params(original, model)
    with pytest.raises(ValueError, match="is also the source"):
        hf.save_params(params, model, original, source_dir=original)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no HF directory"):
        hf.save_params(params, model, tmp_path, source_dir=original)
    for flags, message in (
        ([f"--from_hf={original}", f"--to_orbax={tmp_path}"], "exists and holds something else"),
        ([f"--from_orbax={original}", f"--to_hf={tmp_path / 'x'}"], "no tensors.json"),
        ([f"--from_hf={original}"], "give --from_hf and --to_orbax"),
        ([f"--from_hf={tmp_path}", f"--to_orbax={tmp_path / 'x'}"], "no config.json"),
    ):
        assert convert_checkpoint.main(flags) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_an_orbax_directory_of_another_shape_is_refused(original, tmp_path):
    out = tmp_path / "orbax"
    convert_checkpoint.main([f"--from_hf={original}", f"--to_orbax={out}"])
    (out / orbax_dir.SIDE / "config.json").write_text(json.dumps(config(intermediate_size=40)))
    with pytest.raises(ValueError, match="up/kernel is .*, expected"):
        hf.load_params(out, load_model(str(out)))
    shutil.rmtree(out / orbax_dir.PARAMS)
    with pytest.raises(ValueError, match="convert it again"):
        hf.load_params(out, load_model(str(out)))


def test_the_command_line_imports_no_torch():
    code = (
        "import sys; from evr1.cli import conversion; "
        "sys.exit(bool({'torch', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

"""What the weight maps say of every parameter, against tables of its path alone."""

import json
import re

import pytest
from families import VARIANTS

from evr1.models import load_model, lora
from evr1.models.tree import flatten
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import spec
from evr1.telemetry import flops

# The first expression that matches the whole path, and the axes of the array, layers included.
AXES = (
    (r"text/embed", ("vocab", "embed")),
    (r"text/head", ("embed", "vocab")),
    (r"text/(layers|blocks/\d+)/attention/[qkv]/kernel", (None, "embed", "heads")),
    (r"text/(layers|blocks/\d+)/attention/[qkv]/bias", (None, "heads")),
    (r"text/(layers|blocks/\d+)/attention/o/kernel", (None, "heads", "embed")),
    (r"text/(layers|blocks/\d+)/mlp/(shared/)?(gate|up)/kernel", (None, "embed", "mlp")),
    (r"text/(layers|blocks/\d+)/mlp/(shared/)?down/kernel", (None, "mlp", "embed")),
    (r"text/(layers/moe|blocks/\d+/mlp)/(router|shared_gate)/kernel", (None, "embed")),
    (r"text/(layers/moe|blocks/\d+/mlp)/(gate|up|gate_up)", (None, "expert", "embed")),
    (r"text/(layers/moe|blocks/\d+/mlp)/down", (None, "expert", None, "embed")),
    (r"text/blocks/\d+/delta/(qkv|gate|beta|decay)/kernel", (None, "embed")),
    (r"text/blocks/\d+/delta/o/kernel", (None, None, "embed")),
    (r"text/blocks/\d+/delta/(conv|log_rate|decay_bias)", ()),
    (r"vision/blocks/qkv/kernel", (None, "embed", None, "heads")),
    (r"vision/blocks/qkv/bias", (None, None, "heads")),
    (r"vision/blocks/proj/kernel", (None, "heads", "embed")),
    (r"vision/(blocks|deepstack)/(gate|fc1)/kernel", (None, "embed", "mlp")),
    (r"vision/(blocks|deepstack)/(gate|fc1)/bias", (None, "mlp")),
    (r"vision/(blocks|deepstack)/fc2/kernel", (None, "mlp", "embed")),
    (r"vision/merger/fc1/kernel", ("embed", "mlp")),
    (r"vision/merger/fc1/bias", ("mlp",)),
    (r"vision/merger/fc2/kernel", ("mlp", "embed")),
    (r"vision/embed/(patch/kernel|table)", (None, "embed")),
    (r"lora/.*", ()),
    (r".*/(scale|bias)", ()),
)
ROLES = (
    (r"text/embed", "embedding"),
    (r".*/router/kernel", "router"),
    (r"text/head|.*/kernel", "matrix"),
    (r".*/(scale|norm\d?/bias)", "norm"),
    (r".*/bias", "bias"),
    (r"vision/embed/table|.*/(conv|log_rate|decay_bias)", "other"),
    (r"text/(layers/moe|blocks/\d+/mlp)/(gate|up|gate_up|down)", "experts"),
)


def _find(table, path):
    return next(value for pattern, value in table if re.fullmatch(pattern, path))


@pytest.fixture(scope="module", params=VARIANTS)
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("hf")
    (path / "config.json").write_text(json.dumps(VARIANTS[request.param][0]))
    base = load_model(str(path), dtype="bfloat16")
    return lora.adapt(base, rank=2, alpha=4, targets=("text/.*/(q|qkv|o|up|gate_up)(/kernel)?",))


def test_axes_and_shardings(model):
    shapes = flatten(model.abstract_params())
    for sizes in ((2, 2, 2), (1, 2, 4)):
        mesh = make_mesh(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])
        places = flatten(model.shardings(mesh))
        assert places.keys() == shapes.keys()
        for path, place in places.items():
            expected = spec(mesh, _find(AXES, path), shapes[path].shape)
            assert tuple(place.spec) == tuple(expected), path


def test_roles(model):
    roles = model.roles()
    assert roles == {path: _find(ROLES, path) for path in flatten(model.base.abstract_params())}
    assert {w.path for w in model.weights() if lora.is_matrix(w)} == {
        path for path in roles if path.endswith("/kernel") or roles[path] == "experts"
    } | ({"text/head"} & roles.keys())


def test_dtypes_of_a_decode_step(model):
    """The same as a rule on the last key of a path, and the experts' matrices, [L, E, in, out]."""
    experts = re.compile(r".*/(moe|mlp)/(gate|up|gate_up|down)")
    assert model.compute_dtypes() == {
        path: "bfloat16"
        if path.endswith(("/kernel", "/embed", "/head")) or experts.fullmatch(path)
        else "float32"
        for path in flatten(model.base.abstract_params())
    }


def test_operations_of_a_token_and_of_a_patch(model):
    """Matrices by their paths, experts as arrays [L, E, in, out] of which a token meets some."""
    c, text, vision = model.config, 0.0, 0.0
    for path, x in flatten(model.base.abstract_params()).items():
        is_layer = path.startswith(("text/layers/", "text/blocks/"))
        if is_layer and path.endswith("/kernel"):
            text += x.size
        elif is_layer and x.ndim == 4:
            text += x.size * c.experts.per_token / c.experts.count
        elif path.startswith("vision/") and path.endswith("/kernel"):
            vision += x.size / (c.vision.merge**2 if "/merger/" in path or "/deep" in path else 1)
    assert flops.token_weights(model) == pytest.approx(text, rel=1e-12)
    assert flops.patch_weights(model) == pytest.approx(vision, rel=1e-12)

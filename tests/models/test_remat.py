"""What layers keep for their backward pass changes no gradient, and the memory that it says."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import kinds
import pytest
from families import delta_config
from models_oracle import config, gap, jit, on_device, pack, prompts
from repo import ROOT

from evr1.config.settings import REMAT
from evr1.models import FAMILIES
from evr1.models.nn import remat


def test_the_config_names_the_policies():
    assert ("none", *remat.POLICIES) == REMAT


@pytest.fixture(scope="module", params=kinds.families(["qwen3_vl", "qwen3_5"], ["qwen3_vl"]))
def family(request):
    return request.param, {"qwen3_vl": config, "qwen3_5": delta_config}[request.param]()


@pytest.fixture(scope="module")
def gradient(family):
    """The gradient under a policy, as leaves."""
    name, sizes = family
    params = FAMILIES[name](sizes, dtype="float32", remat="none").init(jax.random.key(0))
    batch = on_device(pack(prompts()))

    def of(policy):
        model = FAMILIES[name](sizes, dtype="float32", remat=policy)
        weights = jnp.sin(jnp.arange(model.config.width, dtype=jnp.float32))
        loss = jit(jax.grad(lambda p: (model.group_hidden(p, *batch) @ weights).sum()))
        return jax.tree.leaves(loss(params))

    return of


@pytest.fixture(scope="module")
def kept(gradient):
    return gradient("none")


@pytest.mark.parametrize("policy", REMAT[1:])
def test_gradients_are_equal(gradient, kept, policy):
    pairs = [(got, want) for got, want in zip(gradient(policy), kept, strict=True) if want.any()]
    assert len(pairs) > len(kept) / 2
    assert max(gap(got, want) for got, want in pairs) < 1e-5


def test_what_is_kept():
    """Residuals of a layer with a named and an unnamed product, by hand."""

    def layer(x, w):
        return jnp.sin(remat.checkpoint_name(jnp.sin(x @ w), remat.ATTENTION) @ w), None

    def saved(policy):
        def run(x, w):
            return jax.lax.scan(remat.checkpointed(layer, policy), x, w)[0]

        jaxpr = jax.make_jaxpr(lambda x, w: jax.vjp(run, x, w)[1])(jnp.ones((4, 8)), WEIGHTS)
        of_layers = [v.aval for v in jaxpr.jaxpr.outvars if v.aval.shape == (3, 4, 8)]
        return len(of_layers), [a for a in of_layers if "host" in str(a)]

    assert saved("full") == (1, [])  # the inputs of the layers
    assert saved("attention") == (2, [])  # and the outputs of attention
    assert saved("dots") == (4, [])  # and both products
    count, host = saved("offload")
    assert (count, len(host)) == (1, 1)


WEIGHTS = jnp.ones((3, 8, 8))

ON_TPU = """
import os
os.environ.update(
    JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost",
    TPU_ACCELERATOR_TYPE="v5litepod-1", ALLOW_MULTIPLE_LIBTPU_LOAD="1",
)
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from evr1.models.nn.remat import checkpointed

devices = topologies.get_topology_desc("v5e:2x2", "tpu").devices
place = NamedSharding(Mesh(devices[:1], "d"), PartitionSpec())
abstract = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)
for policy in ("full", "offload"):
    layer = checkpointed(lambda x, w: (jnp.sin(x @ w), None), policy)
    loss = lambda x, w: jax.lax.scan(layer, x, w)[0].astype(jnp.float32).sum()
    lowered = jax.jit(jax.grad(loss)).lower(abstract(2**18, 256), abstract(8, 256, 256))
    memory = lowered.compile().memory_analysis()
    print(memory.temp_size_in_bytes >> 20, memory.host_temp_size_in_bytes >> 20)
"""


@pytest.mark.slow
def test_offloaded_inputs_lie_in_the_memory_of_the_host():
    """By the TPU compiler: 8 layers with inputs of 128 MiB."""
    pytest.importorskip("libtpu")
    run = subprocess.run([sys.executable, "-c", ON_TPU], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.split("\n")[:2]
    (full, none), (rest, host) = ([int(n) for n in line.split()] for line in lines)
    assert (none, host) == (0, 1024)
    assert full - rest > 512  # a few stay on the device while they are copied

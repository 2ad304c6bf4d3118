#!/usr/bin/env bash
# A token written into every row of a key cache makes the TPU compiler copy the whole cache.
#
# Decoding keeps a cache [layer, group, row, head, token, size] in a loop and writes one token of each
# row, at a place of its own. The natural way indexes what differs and leaves the rest to slices:
#
#     cache.at[:, groups, rows, :, steps].set(new)
#
# The scatter of the TPU compiler then wants its window (layers, heads, size) last, puts the cache into
# that order before the loop and back behind it: memory for a second cache, and both copies in every
# call. The same write with all axes but the last indexed keeps the order, in place:
#
#     cache.at[layers, groups, rows, heads, steps].set(new)
#
# Compiled for a v5p, without one: jax 0.10.2, libtpu 0.0.42.1, Python 3.11 or newer. Seen:
#     cache 512 MiB
#     sliced: temporaries 512 MiB
#     indexed: temporaries 0 MiB
# Fails where that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet jax==0.10.2 libtpu==0.0.42.1
cat > "$work/probe.py" <<'PY'
import os

os.environ["JAX_PLATFORMS"] = "cpu"  # compile for the TPU, run nothing on it
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-1"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

LAYERS, GROUPS, ROWS, HEADS, TOKENS, SIZE = 8, 4, 8, 2, 4096, 128


def write(cache, new, steps, is_indexed):
    if is_indexed:
        at = jnp.ix_(*(jnp.arange(n) for n in (LAYERS, GROUPS, ROWS, HEADS)))
        return cache.at[*at, steps[None, :, :, None]].set(new, mode="drop", unique_indices=True)
    groups, rows = jnp.arange(GROUPS)[:, None], jnp.arange(ROWS)[None]
    new = jnp.moveaxis(new, 0, 2)
    return cache.at[:, groups, rows, :, steps].set(new, mode="drop", unique_indices=True)


def decode(cache, query, is_indexed):
    def layer(query, keys):
        scores = jnp.einsum("gnka,gnkta->gnkt", query, keys)
        return query + jnp.einsum("gnkt,gnkta->gnka", scores, keys), query

    def step(i, carry):
        cache, query, steps = carry
        query, new = jax.lax.scan(layer, query, cache)
        return write(cache, new, steps, is_indexed), query, steps + 1

    start = (cache, query, jnp.zeros((GROUPS, ROWS), jnp.int32))
    return jax.lax.fori_loop(0, 8, step, start)[:2]


device = topologies.get_topology_desc("v5p:2x2x1", "tpu").devices[0]
place = SingleDeviceSharding(device)
shape = (LAYERS, GROUPS, ROWS, HEADS, TOKENS, SIZE)
cache = jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)
query = jax.ShapeDtypeStruct((GROUPS, ROWS, HEADS, SIZE), jnp.bfloat16, sharding=place)
size = cache.size * 2
print(f"cache {size >> 20} MiB")
temporaries = {}
for name, is_indexed in (("sliced", False), ("indexed", True)):
    program = jax.jit(decode, static_argnums=2, donate_argnums=0)
    compiled = program.lower(cache, query, is_indexed).compile()
    temporaries[name] = compiled.memory_analysis().temp_size_in_bytes
    print(f"{name}: temporaries {temporaries[name] >> 20} MiB")
assert temporaries["sliced"] >= size, "the sliced write is in place now"
assert temporaries["indexed"] < size // 100, "the indexed write is not in place any more"
PY
"$work/venv/bin/python" "$work/probe.py"

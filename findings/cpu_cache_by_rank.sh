#!/usr/bin/env bash
# Of several processes on CPUs, only the first ever finds its programs in JAX's compilation cache.
#
# All processes of a job compile the same program and share one cache directory, and the first one
# writes it. So a second start should compile nothing. On CPUs the key of an entry holds the topology
# as each process sees it, own place included: the other processes look for keys that nobody
# writes, and compile at every start. A job that is warm on one process is cold on the next ones,
# which the first then waits for.
#
# Two processes, started twice: jax 0.10.2, Python 3.11 or newer. Seen:
#     start 1: process 0 hits 0, process 1 hits 0
#     start 2: process 0 hits 1, process 1 hits 0
# Fails where that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet jax==0.10.2
cat > "$work/probe.py" <<'PY'
import sys

import jax
import jax.numpy as jnp

port, rank, cache = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.distributed.initialize(f"localhost:{port}", 2, rank)
mesh = jax.make_mesh((2,), ("x",))
place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
x = jax.make_array_from_process_local_data(place, jnp.ones((1, 64, 64)), (2, 64, 64))

counts = {"hits": 0, "misses": 0}


def count(event, **_):
    name = event.rsplit("cache_", 1)[-1]
    if event.startswith("/jax/compilation_cache/cache_") and name in counts:
        counts[name] += 1


jax.monitoring.register_event_listener(count)
jax.block_until_ready(jax.jit(lambda x: jnp.tanh(x @ x).sum(0))(x))
print(f"process {rank} hits {counts['hits']}")
PY
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
for start in 1 2; do
  for rank in 0 1; do
    "$work/venv/bin/python" "$work/probe.py" $((port + start)) "$rank" "$work/cache" \
      > "$work/out$rank" 2> "$work/err$rank" &
  done
  if ! { wait -n && wait -n; }; then cat "$work"/err*; exit 1; fi
  line="start $start: $(grep ^process "$work/out0"), $(grep ^process "$work/out1")"
  echo "$line"
  echo "$line" >> "$work/said"
done
diff "$work/said" - <<'TXT'
start 1: process 0 hits 0, process 1 hits 0
start 2: process 0 hits 1, process 1 hits 0
TXT

"""The table of TPU slices against what the TPU's own library knows of their shapes."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from repo import ROOT

# Apart from this process: libtpu wants its variables before jax begins.
COUNT = """
import json, sys
from jax.experimental import topologies
counts = {}
for name in sys.argv[1:]:
    devices = topologies.get_topology_desc(name, "tpu").devices
    counts[name] = [len(devices), len({d.process_index for d in devices})]
print(json.dumps(counts))
"""
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
}


@pytest.fixture(scope="module")
def slices():
    spec = importlib.util.spec_from_file_location("slices", ROOT / "tpu" / "slices.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_chips_and_hosts_are_those_of_libtpu(slices):
    pytest.importorskip("libtpu")
    several = [s for s in slices.SLICES.values() if s.plan]
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *(s.plan for s in several)],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-500:]
    counts = json.loads(done.stdout.splitlines()[-1])
    for one in several:
        chips, hosts = counts[one.plan]
        # libtpu's hosts have four chips; eight chips on one machine are Google Cloud's.
        expected = hosts if chips != 8 or one.chips_per_host == 4 else 1
        assert (one.chips, one.hosts) == (chips, expected), one.type


def test_a_type_is_the_number_of_its_chips_or_of_its_cores(slices):
    for name, one in slices.SLICES.items():
        assert int(name.partition("-")[2]) == one.chips * (2 if name.startswith("v5p") else 1)

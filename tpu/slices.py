"""TPU slices by accelerator type: how many hosts, and the names that Google Cloud has for them.

Sources: cloud.google.com/tpu/docs, pages v5e, v5p, v6e (shapes, virtual machines) and runtimes
(software versions); the GKE labels are those of its page "Plan TPUs in GKE" and of xpk 1.16.
"""

import math
from typing import NamedTuple


class Slice(NamedTuple):
    """One slice: chips joined by their own network, on one or more hosts."""

    type: str  # what `gcloud --accelerator-type` and `xpk --tpu-type` take
    topology: str  # its chips by side, e.g. 4x4x4
    hosts: int  # virtual machines; one process each
    chips_per_host: int
    plan: str  # what `evr1 plan --topology` takes; empty: it knows no single chip
    runtime: str  # `gcloud --runtime-version`
    gke_accelerator: str  # node label cloud.google.com/gke-tpu-accelerator
    machine: str  # of a GKE node

    @property
    def chips(self) -> int:
        """Chips of all hosts."""
        return self.hosts * self.chips_per_host


class _Kind(NamedTuple):
    prefix: str  # of the accelerator type
    cores: int  # TensorCores a chip: v5p counts them in its type, the others count chips
    plan: str
    runtime: str
    gke_accelerator: str
    machine: str
    topologies: str


_FLAT = "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"
_KINDS = (
    _Kind(
        *("v5litepod", 1, "v5e", "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice"),
        *("ct5lp-hightpu", _FLAT),
    ),
    _Kind(
        *("v5p", 2, "v5p", "v2-alpha-tpuv5", "tpu-v5p-slice", "ct5p-hightpu"),
        "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16",
    ),
    _Kind(
        *("v6e", 1, "v6e", "v2-alpha-tpuv6e", "tpu-v6e-slice"),
        *("ct6e-standard", _FLAT),
    ),
)


def _slice(kind: _Kind, topology: str) -> Slice:
    chips = math.prod(int(side) for side in topology.split("x"))
    # Eight chips lie on one machine (GKE has them on two of four as well, xpk takes those); larger
    # slices are machines of four.
    per_host = chips if chips <= 8 and kind.cores == 1 else 4
    return Slice(
        type=f"{kind.prefix}-{chips * kind.cores}",
        topology=topology,
        hosts=chips // per_host,
        chips_per_host=per_host,
        plan=f"{kind.plan}:{topology}" if chips > 1 else "",
        runtime=kind.runtime,
        gke_accelerator=kind.gke_accelerator,
        machine=f"{kind.machine}-{per_host}t",
    )


SLICES = {s.type: s for k in _KINDS for t in k.topologies.split() for s in (_slice(k, t),)}


def find_slice(accelerator: str) -> Slice:
    """Returns the slice of an accelerator type.

    Raises:
        ValueError: no such type.
    """
    if accelerator not in SLICES:
        kind = [t for t in SLICES if t.partition("-")[0] == accelerator.partition("-")[0]]
        known = ", ".join(kind or SLICES)
        raise ValueError(f"--accelerator={accelerator!r} is not known; one of {known}")
    return SLICES[accelerator]

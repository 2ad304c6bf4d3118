"""What launchers tell of the processes of a run; no jax."""

import os
from pathlib import Path

_TOLD = (
    "SLURM_STEP_NODELIST",
    "OMPI_MCA_orte_hnp_uri",
    "TPU_WORKER_HOSTNAMES",
    "TPU_PROCESS_ADDRESSES",
    "JAX_COORDINATOR_ADDRESS",
    "JOB_COMPLETION_INDEX",
)


def is_launched() -> bool:
    """Returns whether a launcher's variables, or TPU chips, are there; asks no network."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(chips) or any(os.environ.get(name) for name in _TOLD)


def gpus_of_a_node() -> list[int] | None:
    """Returns the GPUs of a process that has a node to itself, which JAX takes for one of many.

    None: JAX's choice is right.
    """
    slurm = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    per_node = slurm or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "")
    if per_node.split("(")[0] != "1":
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    number = len(visible.split(",")) if visible else gpus
    return list(range(number)) if number else None

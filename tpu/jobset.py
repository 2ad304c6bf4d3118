"""The JobSet that runs evr1 on a TPU slice of a GKE cluster: one pod a host, as plain data."""

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from slices import Slice

CONTAINER = "evr1"
# Exit statuses of an error that would come again: evr1's own, a bad command, no such command.
# 128 and above: ended by a signal, from outside.
FAILED = [1, 2, 126, 127]
MOUNT = "/shared"


class Job(NamedTuple):
    """What a JobSet is made from."""

    name: str
    namespace: str
    slice: Slice
    image: str  # with evr1 and its packages: tpu/Dockerfile
    claim: str  # PersistentVolumeClaim, ReadWriteMany; mounted at MOUNT
    max_restarts: int  # of the whole JobSet
    spot: bool  # on spot nodes
    queue: str  # Kueue's LocalQueue; empty: none
    grace_s: int  # between SIGTERM and SIGKILL


def manifest(job: Job, command: Sequence[str]) -> dict[str, Any]:
    """Returns the JobSet (jobset.x-k8s.io/v1alpha2).

    A pod that ends with an error fails it for good; anything else that ends a pod (its node is
    taken, the kernel kills it) starts all pods again.
    """
    metadata: dict[str, Any] = {
        "name": job.name,
        "namespace": job.namespace,
        # All pods on one node pool, which is one slice, and no other job beside them.
        "annotations": {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        },
    }
    if job.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": job.queue}
    taken = {"type": "DisruptionTarget", "status": "True"}  # preempted, drained
    is_error = {"containerName": CONTAINER, "operator": "In", "values": FAILED}
    spec = {
        "parallelism": job.slice.hosts,
        "completions": job.slice.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "Count", "onPodConditions": [taken]},
                {"action": "FailJob", "onExitCodes": is_error},
            ]
        },
        "template": {"spec": _pod(job, command)},
    }
    final = {
        "name": "error",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {
                "maxRestarts": job.max_restarts,
                # Two generations of pods never write to one workdir.
                "restartStrategy": "BlockingRecreate",
                "rules": [final],
            },
            "replicatedJobs": [{"name": "slice", "replicas": 1, "template": {"spec": spec}}],
        },
    }


def _pod(job: Job, command: Sequence[str]) -> dict[str, Any]:
    selector = {
        "cloud.google.com/gke-tpu-accelerator": job.slice.gke_accelerator,
        "cloud.google.com/gke-tpu-topology": job.slice.topology,
    }
    chips = {"google.com/tpu": job.slice.chips_per_host}
    return {
        "restartPolicy": "Never",
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "terminationGracePeriodSeconds": job.grace_s,
        "nodeSelector": selector | ({"cloud.google.com/gke-spot": "true"} if job.spot else {}),
        "containers": [
            {
                "name": CONTAINER,
                "image": job.image,
                "command": list(command),
                "env": [
                    {"name": "JAX_PLATFORMS", "value": "tpu,cpu"},  # never a CPU instead of a TPU
                    {"name": "PYTHONUNBUFFERED", "value": "1"},
                ],
                "resources": {"requests": chips, "limits": dict(chips)},
                "volumeMounts": [{"name": "shared", "mountPath": MOUNT}],
            }
        ],
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": job.claim}}],
    }


def to_yaml(data: dict[str, Any]) -> str:
    """Returns a manifest as `kubectl apply` reads it."""
    import yaml  # here: the other backends need no package

    return yaml.safe_dump(data, sort_keys=False, width=100)


def xpk_command(job: Job, command: Sequence[str], cluster: str, flags: Sequence[str]) -> list[str]:
    """Returns the xpk command that makes a like JobSet itself.

    xpk starts a workload again on exit statuses 42 and 127 to 255, and on no others.

    Args:
        job: without its claim, which xpk knows by the name of a storage.
        command: what every pod runs.
        cluster: of GKE.
        flags: more for xpk: --project, --zone, --storage.
    """
    return [
        *("xpk", "workload", "create", f"--cluster={cluster}", f"--workload={job.name}"),
        *(f"--tpu-type={job.slice.type}", "--num-slices=1", f"--docker-image={job.image}"),
        *(f"--max-restarts={job.max_restarts}",),
        *(f"--termination-grace-period-seconds={job.grace_s}",),
        *(["--spot"] if job.spot else []),
        *flags,
        f"--command={shlex.join(command)}",
    ]

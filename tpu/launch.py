"""Starts evr1 on the hosts of a pod or a cluster, or prints how.

    python tpu/launch.py queued --project=P --zone=Z --accelerator=v5p-128 --dry_run -- \\
        --config=configs/qwen_video.py --config.workdir=/shared/runs/one ...

What comes after -- goes to `python -m evr1.main` on every host. Backends:

    queued    a Cloud TPU slice by a queued resource: ask for it, install, start, follow, and all of
              it again after a preemption
    gke       a TPU slice of a GKE cluster: a JobSet, or with --xpk=CLUSTER the command for xpk
    slurm     GPU nodes: sbatch with tpu/slurm.sh
    mpi       any machines: mpirun of Open MPI
    machines  any machines, by hand: one command for each

--dry_run prints the commands or the manifest and runs nothing. `launch.py BACKEND --help` has the
flags of each. Exit status: 0 finished, 1 bad input or an error.
"""

import argparse
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

import jobset
import queued
from slices import Slice, find_slice

SCRIPT = "tpu/slurm.sh"
PYTHON = "python"
PORT = 8476  # of the first host, where the others find each other


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends with exit status 1."""
        sys.exit(f"error: {message}")


def parser() -> Parser:
    """Returns the flags of every backend."""
    top = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    backends = top.add_subparsers(dest="backend", required=True, metavar="BACKEND")
    for name, add in (
        ("queued", _queued_flags),
        ("gke", _gke_flags),
        ("slurm", _slurm_flags),
        ("mpi", _mpi_flags),
        ("machines", _machines_flags),
    ):
        one = backends.add_parser(name, allow_abbrev=False)
        one.add_argument("--name", default="evr1", help="of the job (default: evr1)")
        one.add_argument("--dry_run", action="store_true", help="print, run nothing")
        add(one)
    return top


def _queued_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("--project", required=True, help="Google Cloud project")
    p.add_argument("--zone", required=True, help="one that has the accelerator")
    p.add_argument("--accelerator", required=True, help="v5litepod-64, v5p-128, v6e-64, ...")
    p.add_argument("--capacity", choices=("", "spot", "reserved"), default="")
    p.add_argument("--setup", default="", help="shell command of every host: mount the shared disk")
    p.add_argument("--create_flag", action="append", default=[], help="more for the request")
    p.add_argument("--ssh_flag", action="append", default=[], help="more for ssh and scp")
    p.add_argument("--max_restarts", type=int, default=50, help="after preemptions (default: 50)")
    p.add_argument("--poll_s", type=float, default=30.0, help="between two looks (default: 30)")
    p.add_argument("--settle_s", type=float, default=60.0, help="until a preemption shows (60)")
    actions = ("run", "status", "logs", "stop", "delete")
    p.add_argument("--action", choices=actions, default="run", help="all but run: a slice there")


def _gke_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("--accelerator", required=True, help="v5litepod-64, v5p-128, v6e-64, ...")
    p.add_argument("--image", required=True, help="container image, see tpu/Dockerfile")
    p.add_argument("--claim", default="", help=f"volume claim, mounted at {jobset.MOUNT}")
    p.add_argument("--namespace", default="default")
    p.add_argument("--queue", default="", help="Kueue's LocalQueue")
    p.add_argument("--spot", action="store_true", help="on spot nodes")
    p.add_argument("--max_restarts", type=int, default=50, help="of all pods (default: 50)")
    p.add_argument("--grace_s", type=int, default=120, help="to save in, where nodes allow (120)")
    p.add_argument("--xpk", default="", metavar="CLUSTER", help="use xpk on this cluster")
    p.add_argument("--xpk_flag", action="append", default=[], help="more for xpk: --storage=NAME")


def _slurm_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("--nodes", type=int, required=True)
    p.add_argument("--gpus_per_node", type=int, default=8, help="(default: 8)")
    p.add_argument("--sbatch_flag", action="append", default=[], help="more: --time=24:00:00")


def _mpi_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("--hosts", required=True, help="names, with commas; the first one coordinates")
    p.add_argument("--port", type=int, default=PORT, help=f"of the first host (default: {PORT})")


def _machines_flags(p: argparse.ArgumentParser) -> None:
    _mpi_flags(p)
    p.add_argument("--index", type=int, help="only this machine's command, and run it")


def check_arguments(arguments: Sequence[str], hosts: int) -> None:
    """Checks what goes to evr1.

    Raises:
        ValueError: something is missing, or the workdir cannot be shared.
    """
    fields = dict(x.removeprefix("--").split("=", 1) for x in arguments if "=" in x)
    for field in ("config", "config.workdir"):
        if field not in fields:
            raise ValueError(f"--{field}=... is missing among the arguments for evr1, after --")
    workdir = fields["config.workdir"]
    if "://" in workdir:
        raise ValueError(f"config.workdir={workdir} is no path; mount it, and give its folder")
    if hosts > 1 and not pathlib.PurePosixPath(workdir).is_absolute():
        raise ValueError(
            f"config.workdir={workdir} would be another folder on each of the {hosts} hosts; "
            "give the absolute path of a folder that all of them share"
        )


def check_name(name: str) -> None:
    """Checks the name of a job; Kueue and GKE put up to 35 letters around it.

    Raises:
        ValueError: not a name that all of them take.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,26}[a-z0-9])?", name):
        raise ValueError(f"--name={name!r}: up to 28 of a-z, 0-9 and -, beginning with a letter")


def at_least(flag: str, value: float, least: float) -> None:
    """Checks a number.

    Raises:
        ValueError: it is too small.
    """
    if value < least:
        raise ValueError(f"--{flag}={value:g}; at least {least:g}")


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit status.

    Raises:
        ValueError: bad input, in one line.
    """
    at = argv.index("--") if "--" in argv else len(argv)
    flags, arguments = parser().parse_args(argv[:at]), list(argv[at + 1 :])
    check_name(flags.name)
    if flags.backend == "queued":
        return run_queued(flags, arguments)
    if flags.backend == "gke":
        return run_gke(flags, arguments)
    if flags.backend == "slurm":
        return run_slurm(flags, arguments)
    return run_machines(flags, arguments)


def run_queued(flags: argparse.Namespace, arguments: list[str]) -> int:
    """A Cloud TPU slice."""
    for field in ("project", "zone"):
        if not getattr(flags, field):
            raise ValueError(f"--{field} is empty")
    for field, least in (("max_restarts", 0), ("poll_s", 0), ("settle_s", 0)):
        at_least(field, getattr(flags, field), least)
    tpu = queued.Tpu(
        name=flags.name,
        project=flags.project,
        zone=flags.zone,
        slice=find_slice(flags.accelerator),
        capacity=flags.capacity,
        create_flags=tuple(flags.create_flag),
        ssh_flags=tuple(flags.ssh_flag),
        setup=flags.setup,
    )
    if flags.action != "run":
        if flags.dry_run:
            print("\n".join(shlex.join(c) for c in queued.actions(tpu, flags.action)))
            return 0
        return queued.act(tpu, flags.action)
    check_arguments(arguments, tpu.slice.hosts)
    if flags.dry_run:
        print(f"{_fits(tpu.slice, arguments)}\n{queued.script(tpu, arguments)}")
        return 0
    patience = queued.Patience(flags.poll_s, flags.settle_s, flags.max_restarts)
    return queued.run(tpu, arguments, patience, queued.say)


def run_gke(flags: argparse.Namespace, arguments: list[str]) -> int:
    """A TPU slice of a GKE cluster."""
    at_least("max_restarts", flags.max_restarts, 0)
    at_least("grace_s", flags.grace_s, 1)
    job = jobset.Job(
        name=flags.name,
        namespace=flags.namespace,
        slice=find_slice(flags.accelerator),
        image=flags.image,
        claim=flags.claim,
        max_restarts=flags.max_restarts,
        spot=flags.spot,
        queue=flags.queue,
        grace_s=flags.grace_s,
    )
    check_arguments(arguments, job.slice.hosts)
    command = [PYTHON, "-m", "evr1.main", *arguments]
    if flags.xpk:
        return _do(jobset.xpk_command(job, command, flags.xpk, flags.xpk_flag), flags.dry_run)
    if not flags.claim:
        raise ValueError("--claim is missing: the volume claim that all pods share")
    text = jobset.to_yaml(jobset.manifest(job, command))
    if flags.dry_run:
        print(f"{_fits(job.slice, arguments)}\n# {_node_pool(job)}\n{text}", end="")
        return 0
    return subprocess.run(["kubectl", "apply", "-f", "-"], input=text, text=True).returncode


def _fits(of: Slice, arguments: Sequence[str]) -> str:
    size = f"# {of.type}: {of.chips} chips, {of.hosts} hosts"
    if not of.plan:
        return size
    config = next(x for x in arguments if x.startswith("--config="))
    plan = shlex.join(["python", "tools/plan.py", config, f"--topology={of.plan}"])
    return f"{size}; does it fit?  {plan}"


def _node_pool(job: jobset.Job) -> str:
    """The command for a node pool that the job runs on."""
    pool = ["gcloud", "container", "node-pools", "create", job.name, "--cluster=CLUSTER"]
    pool += ["--location=LOCATION", "--node-locations=ZONE", f"--machine-type={job.slice.machine}"]
    pool += [f"--num-nodes={job.slice.hosts}"]
    if job.slice.hosts > 1:  # one machine has one shape
        pool += [f"--tpu-topology={job.slice.topology}"]
    return shlex.join(pool + (["--spot"] if job.spot else []))


def run_slurm(flags: argparse.Namespace, arguments: list[str]) -> int:
    """GPU nodes of a Slurm cluster."""
    at_least("nodes", flags.nodes, 1)
    at_least("gpus_per_node", flags.gpus_per_node, 1)
    check_arguments(arguments, flags.nodes)
    size = (f"--nodes={flags.nodes}", f"--gpus-per-node={flags.gpus_per_node}")
    name = f"--job-name={flags.name}"
    return _do(["sbatch", name, *size, *flags.sbatch_flag, SCRIPT, *arguments], flags.dry_run)


def run_machines(flags: argparse.Namespace, arguments: list[str]) -> int:
    """Any machines: by mpirun, or one command for each."""
    hosts = [h.strip() for h in flags.hosts.split(",")]
    if not all(hosts) or len(set(hosts)) < len(hosts):
        raise ValueError(f"--hosts={flags.hosts}: every machine once, with commas between them")
    if not 1 <= flags.port <= 65535:
        raise ValueError(f"--port={flags.port}: 1 to 65535")
    check_arguments(arguments, len(hosts))
    place = [f"--config.hosts.coordinator={hosts[0]}:{flags.port}"]
    place += [f"--config.hosts.count={len(hosts)}"]
    command = [PYTHON, "-m", "evr1.main", *arguments, *place]
    if flags.backend == "mpi":
        # The rank is known on the machine only; its shell puts it in.
        rank = '--config.hosts.index="$OMPI_COMM_WORLD_RANK"'
        shell = ["bash", "-c", f"exec {shlex.join(command)} {rank}"]
        spread = ["--host", ",".join(hosts), "--map-by", "ppr:1:node", "--bind-to", "none"]
        return _do(["mpirun", "-np", str(len(hosts)), *spread, *shell], flags.dry_run)
    commands = [[*command, f"--config.hosts.index={i}"] for i in range(len(hosts))]
    if flags.index is None:
        for host, one in zip(hosts, commands, strict=True):
            print(f"# on {host}\n{shlex.join(one)}")
        return 0
    if not 0 <= flags.index < len(hosts):
        raise ValueError(
            f"--index={flags.index}, but there are {len(hosts)} hosts: 0 to {len(hosts) - 1}"
        )
    return _do(commands[flags.index], flags.dry_run)


def _do(command: Sequence[str], dry_run: bool) -> int:
    if dry_run:
        print(shlex.join(command))
        return 0
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FileNotFoundError as e:
        sys.exit(f"error: {e.filename}: not installed, or not in PATH")
    except (ValueError, OSError, ImportError) as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit("interrupted; what was started goes on, and the same command follows it again")

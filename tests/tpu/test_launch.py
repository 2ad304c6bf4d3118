"""tpu/launch.py without a cloud or a cluster: what it prints, what it refuses, the manifest."""

import json
import subprocess
import sys

import jsonschema
import pytest
import yaml
from repo import ROOT

RUN = ["--config=configs/qwen_video.py", "--config.workdir=/shared/runs/one"]
QUEUED = ["queued", "--name=one", "--project=p", "--zone=z"]
GKE = ["gke", "--name=one", "--image=img:1", "--claim=disk"]
SCHEMA = json.loads((ROOT / "tests" / "tpu" / "jobset_schema.json").read_text("utf-8"))


def launch(*flags, arguments=RUN):
    command = [sys.executable, "tpu/launch.py", *flags, *(["--", *arguments] if arguments else [])]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def printed(*flags, arguments=RUN):
    done = launch(*flags, "--dry_run", arguments=arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_cloud_tpu_from_the_request_to_the_end():
    place = "--project=p --zone=z"
    ssh = (
        "gcloud compute tpus tpu-vm ssh one --worker={} " + place + " --ssh-flag=-A '--command={}'"
    )
    script = "evr1/tpu/host.sh"
    unpack = "mkdir -p evr1 && tar -xzf evr1.tar.gz -C evr1"
    got = printed(
        *(*QUEUED, "--accelerator=v5p-128", "--capacity=spot", "--setup=mount /shared"),
        *("--create_flag=--network=n", "--ssh_flag=--ssh-flag=-A"),
    )
    plan = "python tools/plan.py --config=configs/qwen_video.py --topology=v5p:4x4x4"
    assert got.splitlines()[0] == f"# v5p-128: 64 chips, 16 hosts; does it fit?  {plan}"
    lines = [line for line in got.splitlines() if not line.startswith("#")]
    assert lines == [
        f"gcloud compute tpus queued-resources create one {place} --node-id=one "
        "--accelerator-type=v5p-128 --runtime-version=v2-alpha-tpuv5 --spot --network=n",
        f"gcloud compute tpus queued-resources describe one {place} '--format=value(state.state)'",
        f"git -C {ROOT} archive --format=tar.gz --output=evr1.tar.gz HEAD",
        f"gcloud compute tpus tpu-vm scp evr1.tar.gz one:evr1.tar.gz --worker=all {place} "
        "--ssh-flag=-A",
        ssh.format("all", f"{unpack} && {script} install && mount /shared"),
        ssh.format("all", f"{script} start {' '.join(RUN)}"),
        ssh.format("0", f"{script} follow"),
        ssh.format("all", f"{script} state"),
        f"gcloud compute tpus queued-resources delete one {place} --force --quiet",
    ]


def test_one_thing_with_a_slice_that_is_there():
    got = printed(*QUEUED, "--accelerator=v5p-16", "--action=stop", arguments=())
    assert got == (
        "gcloud compute tpus tpu-vm ssh one --worker=all --project=p --zone=z "
        "'--command=evr1/tpu/host.sh stop'\n"
    )


def test_slurm():
    got = printed("slurm", "--name=one", "--nodes=4", "--sbatch_flag=--time=24:00:00")
    assert got == (
        "sbatch --job-name=one --nodes=4 --gpus-per-node=8 --time=24:00:00 tpu/slurm.sh "
        f"{' '.join(RUN)}\n"
    )


def test_open_mpi_puts_the_rank_in_on_the_machine():
    place = "--config.hosts.coordinator=a:8476 --config.hosts.count=2"
    assert printed("mpi", "--hosts=a,b") == (
        "mpirun -np 2 --host a,b --map-by ppr:1:node --bind-to none bash -c 'exec python -m "
        f"evr1.main {' '.join(RUN)} {place} "
        '--config.hosts.index="$OMPI_COMM_WORLD_RANK"\'\n'
    )


def test_a_command_for_each_machine():
    one = f"python -m evr1.main {' '.join(RUN)} --config.hosts.coordinator=a:99 "
    one += "--config.hosts.count=2 --config.hosts.index="
    flags = ("machines", "--hosts=a,b", "--port=99")
    assert printed(*flags) == f"# on a\n{one}0\n# on b\n{one}1\n"
    assert printed(*flags, "--index=1") == f"{one}1\n"


def test_xpk():
    got = printed(
        *("gke", "--name=one", "--image=img:1", "--accelerator=v6e-64", "--spot"),
        *("--xpk=c", "--xpk_flag=--storage=disk"),
    )
    assert got == (
        "xpk workload create --cluster=c --workload=one --tpu-type=v6e-64 --num-slices=1 "
        "--docker-image=img:1 --max-restarts=50 --termination-grace-period-seconds=120 --spot "
        f"--storage=disk '--command=python -m evr1.main {' '.join(RUN)}'\n"
    )


# By the pages v5e, v5p and v6e of cloud.google.com/tpu/docs: hosts and chips of each.
@pytest.mark.parametrize(
    ("accelerator", "label", "topology", "hosts", "chips"),
    [
        ("v5litepod-1", "tpu-v5-lite-podslice", "1x1", 1, 1),
        ("v5litepod-8", "tpu-v5-lite-podslice", "2x4", 1, 8),
        ("v5litepod-64", "tpu-v5-lite-podslice", "8x8", 16, 4),
        ("v5p-8", "tpu-v5p-slice", "2x2x1", 1, 4),
        ("v5p-128", "tpu-v5p-slice", "4x4x4", 16, 4),
        ("v6e-8", "tpu-v6e-slice", "2x4", 1, 8),
        ("v6e-64", "tpu-v6e-slice", "8x8", 16, 4),
        ("v6e-256", "tpu-v6e-slice", "16x16", 64, 4),
    ],
)
def test_a_jobset_of_every_kind_of_slice(accelerator, label, topology, hosts, chips):
    made = yaml.safe_load(printed(*GKE, f"--accelerator={accelerator}", "--spot", "--queue=q"))
    jsonschema.validate(made, SCHEMA)
    (replicated,) = made["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert (replicated["replicas"], job["parallelism"], job["completions"]) == (1, hosts, hosts)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": topology,
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": chips}
    assert container["command"] == ["python", "-m", "evr1.main", *RUN]
    assert made["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "q"}


def test_a_manifest_says_which_nodes_it_needs():
    _, pool, *_ = printed(*GKE, "--accelerator=v6e-64", "--spot").splitlines()
    assert pool == (
        "# gcloud container node-pools create one --cluster=CLUSTER --location=LOCATION "
        "--node-locations=ZONE --machine-type=ct6e-standard-4t --num-nodes=16 --tpu-topology=8x8 "
        "--spot"
    )


def test_no_topology_for_a_pool_of_one_machine():
    _, pool, *_ = printed(*GKE, "--accelerator=v6e-8").splitlines()
    assert pool.endswith("--machine-type=ct6e-standard-8t --num-nodes=1")


def test_the_schema_sees_a_planted_mistake():
    made = yaml.safe_load(printed(*GKE, "--accelerator=v6e-16"))
    made["spec"]["replicatedJobs"][0]["template"]["spec"]["paralellism"] = 4
    with pytest.raises(jsonschema.ValidationError, match="paralellism"):
        jsonschema.validate(made, SCHEMA)


def test_an_error_ends_the_jobset_and_a_preemption_does_not():
    made = yaml.safe_load(printed(*GKE, "--accelerator=v6e-16", "--max_restarts=3"))
    policy = made["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    rules = made["spec"]["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Count", "FailJob"]  # the first that fits
    assert all(value < 128 for value in rules[1]["onExitCodes"]["values"])


SHARED = "the absolute path of a folder that all of them share"


@pytest.mark.parametrize(
    ("flags", "arguments", "message"),
    [
        (["queued", "--zone=z", "--accelerator=v5p-8"], RUN, "required: --project"),
        (["queued", "--project=p", "--accelerator=v5p-8"], RUN, "required: --zone"),
        (["queued", "--project=", "--zone=z", "--accelerator=v5p-8"], RUN, "--project is empty"),
        ([*QUEUED, "--accelerator=v5p-7"], RUN, "one of v5p-8, v5p-16, v5p-32"),
        ([*QUEUED, "--accelerator=h100"], RUN, "one of v5litepod-1, v5litepod-4"),
        ([*QUEUED, "--accelerator=v5p-8", "--capacity=cheap"], RUN, "invalid choice: 'cheap'"),
        ([*QUEUED, "--accelerator=v5p-8", "--max_restarts=-1"], RUN, "--max_restarts=-1; at lea"),
        ([*QUEUED, "--accelerator=v5p-8", "--polls=1"], RUN, "unrecognized arguments: --polls=1"),
        ([*QUEUED, "--accelerator=v5p-8", "--name=A_b"], RUN, "--name='A_b': up to 28 of a-z"),
        ([*QUEUED, "--accelerator=v5p-16"], RUN[:1], "--config.workdir=... is missing"),
        ([*QUEUED, "--accelerator=v5p-16"], [], "--config=... is missing"),
        ([*QUEUED, "--accelerator=v5p-16"], [RUN[0], "--config.workdir=runs/x"], SHARED),
        ([*QUEUED, "--accelerator=v5p-8"], [RUN[0], "--config.workdir=gs://b/x"], "mount it"),
        ([*GKE[:-1], "--accelerator=v6e-16"], RUN, "--claim is missing"),
        (["slurm", "--nodes=0"], RUN, "--nodes=0; at least 1"),
        (["slurm", "--nodes=2.5"], RUN, "invalid int value: '2.5'"),
        (["machines", "--hosts=a,b", "--index=2"], RUN, "--index=2, but there are 2 hosts: 0 to 1"),
        (["machines", "--hosts=a,b", "--index=-1"], RUN, "--index=-1, but there are 2 hosts"),
        (["machines", "--hosts=a,,b"], RUN, "--hosts=a,,b: every machine once"),
        (["mpi", "--hosts=a,a"], RUN, "--hosts=a,a: every machine once"),
        (["mpi", "--hosts=a,b", "--port=99999"], RUN, "--port=99999: 1 to 65535"),
        (["mpi", "--hosts=a,b"], RUN, "mpirun: not installed, or not in PATH"),
        (["ray"], RUN, "invalid choice: 'ray'"),
    ],
)
def test_bad_input_is_one_line(flags, arguments, message):
    done = launch(*flags, arguments=arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_help_names_the_backends():
    done = launch("--help", arguments=())
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("queued", "gke", "slurm", "mpi", "machines"))

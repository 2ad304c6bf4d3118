#!/usr/bin/env bash
# One run on the nodes of a Slurm job; one process a node holds all of its GPUs.
#
#   sbatch --nodes=4 --gpus-per-node=8 --time=24:00:00 tpu/slurm.sh \
#       --config=configs/qwen_video.py --config.workdir=/shared/runs/one ...
#
# sbatch's own flags come before the script, evr1's behind it. Five minutes before its time is up
# the run is asked to save and leave, and the job goes into the queue again; so it does after a
# preemption or a lost node. An error (status below 128) and `scancel` are the end.
#SBATCH --job-name=evr1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR1@300
set -uo pipefail
: "${SLURM_JOB_ID:?error: start this script with sbatch}"
cd "${SLURM_SUBMIT_DIR:-.}" || exit 1
max_restarts=${EVR1_MAX_RESTARTS:-50}

time_is_up=0
# shellcheck disable=SC2329  # called by the trap
pass_on() { # to the processes on the nodes; scancel does not signal this script
  time_is_up=1
  scancel --signal=TERM "$SLURM_JOB_ID"
}
trap pass_on USR1

# --label: the task that a line comes from. --cpu-bind=none: the one process needs every core.
srun --label --kill-on-bad-exit=1 --cpu-bind=none --ntasks-per-node=1 \
  "${EVR1_PYTHON:-python}" -m evr1.main "$@" &
child=$!
status=0
while kill -0 "$child" 2>/dev/null; do # a signal interrupts `wait`
  status=0
  wait "$child" || status=$?
done

if ((status >= 128 || (time_is_up && status != 0))); then
  if ((${SLURM_RESTART_COUNT:-0} < max_restarts)); then
    echo "ended from outside (status $status): the job goes into the queue again"
    exec scontrol requeue "$SLURM_JOB_ID"
  fi
  echo "error: started again $max_restarts times; EVR1_MAX_RESTARTS allows more" >&2
fi
exit "$status"

#!/usr/bin/env bash
# What happens on every host of a Cloud TPU slice; tpu/launch.py calls it over ssh.
#
#   host.sh install          Python and evr1's packages into ~/evr1-venv
#   host.sh start ARGS...    starts `python -m evr1.main ARGS...`, which outlives the connection
#   host.sh follow           shows its log until it ends; exits with its status
#   host.sh state            one line: evr1-state HOST none|running|gone|exit STATUS
#   host.sh stop             asks it to save and leave (SIGTERM); kills it after ten minutes
#
# Log, process id and exit status of the run lie in ~/evr1-run, on the host's own disk.
set -euo pipefail
self=$(realpath "$0")
cd "$(dirname "$self")/.."
venv=${EVR1_VENV:-$HOME/evr1-venv}
run=${EVR1_RUN:-$HOME/evr1-run}
mkdir -p "$run"

is_running() { [[ -s $run/pid ]] && kill -0 "$(cat "$run/pid")" 2>/dev/null; }

install() {
  export PATH=$HOME/.local/bin:$PATH
  command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
  uv venv --quiet --allow-existing --python 3.12 "$venv" # the image's own Python is older
  uv pip install --quiet --python "$venv/bin/python" --constraint constraints.txt -e '.[tpu]'
}

start() {
  if is_running; then
    echo "$(hostname): already running"
    return
  fi
  rm -f "$run/status" "$run/pid"
  nohup "$self" supervise "$@" >>"$run/log" 2>&1 </dev/null &
  for _ in {1..50}; do # the next question may come at once
    [[ -s $run/pid || -s $run/status ]] && return
    sleep 0.1
  done
}

# The parent of the run: keeps its exit status. It outlives SIGTERM, which a machine that is about
# to be taken sends to every process, so that the run itself decides when to leave.
supervise() {
  trap : TERM
  JAX_PLATFORMS=${JAX_PLATFORMS:-tpu,cpu} PYTHONUNBUFFERED=1 \
    "$venv/bin/python" -m evr1.main "$@" &
  local child=$! status=0
  echo "$child" >"$run/pid"
  while kill -0 "$child" 2>/dev/null; do
    status=0
    wait "$child" || status=$?
  done
  echo "$status" >"$run/status.new"
  mv "$run/status.new" "$run/status"
}

follow() {
  local from=+1
  [[ -e $run/followed ]] && from=20 # the connection broke: not everything again
  touch "$run/followed"
  tail -n "$from" --pid="$(cat "$run/pid")" -F "$run/log" 2>/dev/null
  for _ in {1..50}; do
    [[ -s $run/status ]] && exit "$(cat "$run/status")"
    sleep 0.1
  done
  exit 1
}

state() {
  local what=none
  if [[ -s $run/status ]]; then
    what="exit $(cat "$run/status")"
  elif is_running; then
    what=running
  elif [[ -s $run/pid ]]; then
    what=gone # the machine was restarted beneath it
  fi
  echo "evr1-state $(hostname) $what"
}

stop() {
  if is_running; then
    kill -TERM "$(cat "$run/pid")"
    for _ in {1..600}; do
      is_running || break
      sleep 1
    done
    is_running && kill -KILL "$(cat "$run/pid")"
    sleep 1 # until its status is written
  fi
  state
}

case ${1:-} in
  install | follow | state | stop) "$1" ;;
  start | supervise) "$@" ;;
  *)
    echo "error: $self: install, start, follow, state or stop, and not '${1:-}'" >&2
    exit 1
    ;;
esac

#!/usr/bin/env bash
# 1. --nodes and --gpus-per-node   2. the three lines of settings below   3. --time; at its end the sweep is queued again
# Check: bash -n cluster/slurm.sh   Start: sbatch cluster/slurm.sh   End: scancel JOBID
#SBATCH --job-name=mmsearch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail

venv="$HOME/mmsearch/.venv"            # where mmsearch is installed; every node sees it
run="$HOME/runs/mine"                  # the run's folder; every node sees it
sweep=(--dataset "$HOME/data/mine.yaml" --max-epochs 30)

# shellcheck disable=SC1091
source "$venv/bin/activate"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="$(getent ahostsv4 "${nodes[0]}" | awk 'NR == 1 {print $1}')"
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a machine
export RAY_AUTH_MODE=token RAY_TMPDIR="${SLURM_TMPDIR:-/tmp}"
RAY_AUTH_TOKEN="$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
export RAY_AUTH_TOKEN

# One Ray node a machine, in the foreground of its step, so that it ends with the job.
start() { srun --exact --nodes=1 --ntasks=1 --nodelist="$1" ray start "${@:2}" --num-cpus="$SLURM_CPUS_PER_TASK" --block & }
start "${nodes[0]}" --head --node-ip-address="$head" --port="$port" --include-dashboard=false
for _ in $(seq 60); do
  if ray health-check --address="$head:$port" >/dev/null 2>&1; then break; fi
  sleep 2
done
for node in "${nodes[@]:1}"; do start "$node" --address="$head:$port"; done

# Five minutes before the time is up (or where the job is preempted) the sweep ends as with Ctrl-C and is queued again.
again() {
  kill -INT "$driver" || true
  wait "$driver" || true
  scontrol requeue "$SLURM_JOB_ID"
}
trap again USR1 TERM

python -m mmsearch.sweep "${sweep[@]}" --out "$run" --resume --address "$head:$port" --plain &
driver=$!
wait "$driver"

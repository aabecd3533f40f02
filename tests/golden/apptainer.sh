#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=4
#SBATCH --job-name=run
#SBATCH --mincpus=32
#SBATCH --nodes=2
#SBATCH --open-mode=append
#SBATCH --output=/HERE/run/logs/slurm/%j_0_log.out
#SBATCH --partition=batch
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
cd /HERE/run/code/0001 || exit 1
export PYTHONPATH=/HERE/run/code/0001
export OMP_NUM_THREADS=1
export PYTHONUNBUFFERED=1
# The ranks answer what ends an attempt; bash waits for them, and passes SIGTERM on to `begin` alone.
trap 'kill -TERM ${RENDEZVOUS_PID:-} 2>/dev/null' TERM
trap : USR1 USR2 CONT
srun() { command srun "$@" & local ranks=$! code
  while wait $ranks; code=$?; kill -0 $ranks 2>/dev/null; do :; done; return $code; }
ended() { code=$?; [ -n "${RENDEZVOUS[1]:-}" ] && exec {RENDEZVOUS[1]}>&-
  PYTHON -m launcher.jobs.batch ended /HERE/run $code; exit $?; }
trap ended EXIT
coproc RENDEZVOUS { exec PYTHON -m launcher.jobs.batch begin /HERE/run; }
read -r MASTER_ADDR MASTER_PORT <&"${RENDEZVOUS[0]}" || exit 1
export MASTER_ADDR MASTER_PORT

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /HERE/run/logs/slurm/%j_%t_log.out --kill-on-bad-exit=1 --wait=0 --ntasks-per-node=4 --cpus-per-task=8 --gpu-bind=none --cpu-bind=none apptainer exec --nv --bind=/shared:/shared '--bind=/my data:/data' /shared/images/lienzo.sif python3 -m launcher.jobs.rank /HERE/run

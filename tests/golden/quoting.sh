#!/bin/bash

# Parameters
#SBATCH --account='art & science'
#SBATCH --cpus-per-task=1
#SBATCH --job-name='it'"'"'s $5'
#SBATCH --mem=48GB
#SBATCH --mincpus=8
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output='/HERE/my runs/it'"'"'s $5/logs/slurm/%j_0_log.out'
#SBATCH --partition=cpu
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=1440

# setup
cd '/HERE/my runs/it'"'"'s $5/code/0001' || exit 1
export PYTHONPATH='/HERE/my runs/it'"'"'s $5/code/0001'
export OMP_NUM_THREADS=1
export PYTHONUNBUFFERED=1
export GREETING='it'"'"'s $HOME and "more"'
export EMPTY=''
export EQUATION=a=b
echo "setup runs as it is: $SLURM_JOB_ID"
# The ranks answer what ends an attempt; bash waits for them, and passes SIGTERM on to `begin` alone.
trap 'kill -TERM ${RENDEZVOUS_PID:-} 2>/dev/null' TERM
trap : USR1 USR2 CONT
srun() { command srun "$@" & local ranks=$! code
  while wait $ranks; code=$?; kill -0 $ranks 2>/dev/null; do :; done; return $code; }
ended() { code=$?; [ -n "${RENDEZVOUS[1]:-}" ] && exec {RENDEZVOUS[1]}>&-
  PYTHON -m launcher.jobs.batch ended '/HERE/my runs/it'"'"'s $5' $code; exit $?; }
trap ended EXIT
coproc RENDEZVOUS { exec PYTHON -m launcher.jobs.batch begin '/HERE/my runs/it'"'"'s $5'; }
read -r MASTER_ADDR MASTER_PORT <&"${RENDEZVOUS[0]}" || exit 1
export MASTER_ADDR MASTER_PORT

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/HERE/my runs/it'"'"'s $5/logs/slurm/%j_%t_log.out' --kill-on-bad-exit=1 --wait=0 --ntasks-per-node=8 '--comment=two words' PYTHON -m launcher.jobs.rank '/HERE/my runs/it'"'"'s $5'

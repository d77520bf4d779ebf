#!/usr/bin/env bash
# Search trees on many nodes, one shard per node: each job serves the policy on its own GPUs and searches its part.
#   sbatch --array=0-15 configs/server/slurm_array.sh CHECKPOINT problems.jsonl runs/big/trees
# When all are done, later stages read runs/big/trees as one run. Submit a killed job again unchanged: it continues.
#SBATCH --job-name=vlprm-trees
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --signal=INT@120
set -euo pipefail
checkpoint=$1 problems=$2 run=$3
vllm serve "$checkpoint" --served-model-name policy --generation-config vllm --data-parallel-size 8 --port 8000 &
server=$!
trap 'kill $server' EXIT
until curl --silent --fail http://localhost:8000/v1/models > /dev/null; do
  kill -0 $server
  sleep 5
done
python -m data_synth.trees --config configs/server/trees.yaml --policy "$checkpoint" --problem_file "$problems" \
  --run "$run" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --policy.server.concurrency 512 --in_flight 1024

#!/bin/bash
# Several machines under Slurm: one task per machine, which starts one process per GPU. The run's folder lies on a file system
# that all see. Further flags go to train.prm.
#   sbatch --nodes 2 configs/accelerate/multi_node.sh configs/train/vl_prm.yaml --run runs/vl_prm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
set -e
export HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -1)
srun bash -c 'accelerate launch --config_file configs/accelerate/fsdp2.yaml \
  --num_machines $SLURM_NNODES --num_processes $((8 * SLURM_NNODES)) --machine_rank $SLURM_NODEID \
  --main_process_ip $HEAD --main_process_port 29500 -m train.prm --config "$@"' bash "$@"

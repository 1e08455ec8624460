"""Slurm: ``sbatch job.sbatch`` from the folder of the files, which all nodes must see."""

from autopar.launchers.knobs import comments
from autopar.launchers.plan import Emission, Plan
from autopar.launchers.wrappers.node import SCRIPT, job_name, node_script, nodes_of, with_files

JOB = "job.sbatch"


def wrap(emission: Emission, plan: Plan) -> Emission:
    """The files, ``run.sh``, and the job that starts it once on each node, in rank order."""
    nodes = nodes_of(plan)
    title = comments([f"{plan.strategy.world_size} GPUs: {emission.targets}."])
    job = f"""#!/bin/bash
#SBATCH --job-name={job_name(plan)}
#SBATCH --nodes={nodes.n_nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={nodes.gpus_per_node}
#SBATCH --distribution=block
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
{title[0]}
# Add --account and --partition as your cluster wants them.
set -euo pipefail

cd "${{SLURM_SUBMIT_DIR:-.}}"
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
export MASTER_PORT=${{MASTER_PORT:-29500}}
srun --kill-on-bad-exit=1 bash -c 'NODE_RANK=$SLURM_NODEID exec bash {SCRIPT}'
"""
    return with_files(emission, {SCRIPT: node_script(emission, plan), JOB: job})

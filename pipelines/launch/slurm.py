"""Writes an sbatch script that runs a curation on a Ray cluster of its own, within one Slurm job.

`ray symmetric-run` (Ray 2.49) runs on every node: the first starts Ray's head and then the driver, the others join it.
When another node dies the job stays (`--no-kill`), and the driver runs its tasks again. When the first one dies, Slurm
puts the job back in the queue (`--requeue`), and the same command resumes from what is committed.
"""

from __future__ import annotations

import shlex

from pipelines.launch.job import Job


def script(job: Job) -> str:
    """The text of the script. The file and the run directory are on a disk that all nodes share."""
    gpus = f"#SBATCH --gpus-per-node={job.gpus}\n" if job.gpus else ""
    log = shlex.quote(f"{job.run}.slurm-%j.log") if "://" not in job.run else "gristmill-%j.log"
    start = f"--num-cpus={job.cpus}" + (f" --num-gpus={job.gpus}" if job.gpus else "")
    return f"""#!/bin/bash
#SBATCH --job-name=gristmill-{job.name}
#SBATCH --nodes={job.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={job.cpus}
#SBATCH --mem={job.memory_gb}G
{gpus}#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --output={log}
# Submit it with: sbatch THIS_FILE. Add your site's lines (--partition, --account, --time).
# It may be submitted again after any end: what is committed is not done again.
set -euo pipefail

# The environment of the nodes: activate the one that gristmill is installed in
# source /shared/venv/bin/activate

if [ "${{SLURM_RESTART_COUNT:-0}}" -gt {job.restarts} ]; then
    echo "started again $SLURM_RESTART_COUNT times: the job ends" >&2
    exit 1
fi
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{{print $1}}')
port=$((20000 + SLURM_JOB_ID % 20000))   # two jobs on one machine need two
export RAY_TMPDIR="${{TMPDIR:-/tmp}}/gm-$SLURM_JOB_ID"

srun --kill-on-bad-exit=0 ray symmetric-run --address "$address:$port" --min-nodes 1 {start} -- \\
    {job.shell_command(job.file, "--address", "auto")}
"""

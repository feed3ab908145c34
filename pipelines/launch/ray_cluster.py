"""Writes a cluster.yaml for `ray up` on AWS, and a script that starts the driver again when its machine dies."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from pipelines.launch.job import Job

REMOTE = "/home/ubuntu/pipeline.yaml"


def cluster(job: Job, region: str, instance: str, install: str) -> str:
    """The file for `ray up`: a small head on demand, workers as spot instances that the autoscaler starts.

    install   the shell command that installs gristmill on a node
    """
    worker = {"InstanceType": instance, "InstanceMarketOptions": {"MarketType": "spot"}}
    resources = {"CPU": job.cpus} | ({"GPU": job.gpus} if job.gpus else {})
    value: dict[str, Any] = {
        "cluster_name": f"gristmill-{job.name}",
        "max_workers": job.nodes,
        "provider": {"type": "aws", "region": region},
        "auth": {"ssh_user": "ubuntu"},
        "head_node_type": "head",
        "available_node_types": {
            # no tasks: a task that takes all memory must not take the driver with it
            "head": {"resources": {"CPU": 0}, "node_config": {"InstanceType": "m5.large"}},
            "workers": {
                "resources": resources,
                "min_workers": 0,
                "max_workers": job.nodes,
                "node_config": worker,
            },
        },
        "file_mounts": {REMOTE: job.file},
        "setup_commands": [install],
    }
    return yaml.safe_dump(value, sort_keys=False)


def run_script(job: Job, config: str) -> str:
    """The script that is run here. `config`: the file for `ray up`. Exit codes of the command: 0 done, 2 a wrong
    configuration, 3 done without files that could not be read; any other and it is started again."""
    command = job.shell_command(REMOTE, "--address", "auto")
    return f"""#!/bin/bash
# Starts the cluster and the driver; starts both again when the driver's machine dies. What is committed is not done
# again. When all is done: ray down -y {config}
set -uo pipefail
for attempt in $(seq 0 {job.restarts}); do
    ray up -y {config}
    # `ray exec` ends with 1 whatever the command ended with: the command says it itself
    said=$(ray exec {config} {shlex.quote(command + "; echo gristmill ended with $?")} | tee /dev/stderr)
    code=$(sed -n 's/^gristmill ended with \\([0-9]*\\).*/\\1/p' <<< "$said" | tail -n 1)
    case "$code" in 0|2|3) exit "$code" ;; esac
    echo "the driver ended with code ${{code:-unknown}}; starting it again" >&2
    sleep "${{GRISTMILL_PAUSE:-30}}"
done
exit 1
"""

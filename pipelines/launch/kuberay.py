"""Writes a RayJob of KubeRay (ray.io/v1) with the pipeline file in a ConfigMap beside it.

A RayJob makes a cluster, runs the driver on it and removes it. `backoffLimit` is how often it does so again when the
driver or its machine dies: each time on a new cluster, with the same command, which resumes from the run's storage.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from curation.core.errors import UserError
from pipelines.launch.job import Job

MOUNT = "/etc/gristmill"


def manifest(job: Job, image: str, ray_version: str) -> str:
    """Both objects, as YAML for `kubectl apply -f`. The image has gristmill and Ray of that version."""
    # 47 characters: KubeRay adds to the name
    name = re.sub(r"[^a-z0-9-]+", "-", f"gristmill-{job.name}".lower()).strip("-")[:47].rstrip("-")
    text = Path(job.file).read_text("utf-8")
    if len(text.encode()) > 1 << 19:  # a ConfigMap holds 1 MiB
        raise UserError(f"{job.file} is larger than 512 KiB, too large for a ConfigMap\n  bake it into the image")
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"pipeline.yaml": text}}
    rayjob: dict[str, Any] = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            # 3: done without files that could not be read. KubeRay would take it for a failure and start again
            "entrypoint": job.shell_command(f"{MOUNT}/pipeline.yaml", "--address", "auto") + " || [ $? -eq 3 ]",
            "backoffLimit": job.restarts,
            "shutdownAfterJobFinishes": True,
            "submissionMode": "K8sJobMode",
            "submitterConfig": {"backoffLimit": 0},  # the driver is started again with a cluster, not on a dying one
            "rayClusterSpec": {
                "rayVersion": ray_version,
                "enableInTreeAutoscaling": True,
                "headGroupSpec": {
                    # no tasks: a task that takes all memory must not take the driver with it
                    "rayStartParams": {"num-cpus": "0"},
                    "template": _pod("ray-head", image, name, 2, 8, 0),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": job.nodes,
                        "minReplicas": 0,
                        "maxReplicas": job.nodes,
                        "rayStartParams": {},
                        "template": _pod("ray-worker", image, name, job.cpus, job.memory_gb, job.gpus),
                    }
                ],
            },
        },
    }
    return f"{yaml.safe_dump(config, sort_keys=False)}---\n{yaml.safe_dump(rayjob, sort_keys=False)}"


def _pod(container: str, image: str, config: str, cpus: int, memory_gb: int, gpus: int) -> dict[str, Any]:
    amounts: dict[str, Any] = {"cpu": str(cpus), "memory": f"{memory_gb}G"}
    amounts |= {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {
        "spec": {
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "resources": {"requests": amounts, "limits": amounts},
                    "volumeMounts": [{"name": "pipeline", "mountPath": MOUNT}],
                }
            ],
            "volumes": [{"name": "pipeline", "configMap": {"name": config}}],
        }
    }

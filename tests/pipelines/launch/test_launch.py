"""What `gristmill launch` writes: run against stubs of Slurm and Ray, and checked against published schemas.

Covers: pipelines/launch/job.py, pipelines/launch/slurm.py, pipelines/launch/kuberay.py, pipelines/launch/ray_cluster.py
Covers: pipelines/cli/commands/launch.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from curation.core.errors import UserError
from pipelines.cli import main
from pipelines.cli.app import app

PIPELINE = """
name: My_Crawl.2
sources: [{name: web, read: text, root: "ROOT", path: "*.jsonl"}]
steps:
  - language: {}
    keep: {english: "language.code = 'en'"}
    resources: {cpus: 2, memory: 8GB}
"""

assert main  # it adds the commands to `app`

QUOTED = "steps.language.keep.english=language.code = 'it'"

# Options of sbatch's manual page (Slurm 25.05) that take a value, and that take none
SBATCH = {"job-name", "nodes", "ntasks-per-node", "cpus-per-task", "mem", "gpus-per-node", "open-mode", "output"}
SBATCH_FLAGS = {"requeue", "no-kill"}

# The fields of RayJobSpec, RayClusterSpec and WorkerGroupSpec that are used here (KubeRay, ray-operator/apis/ray/v1)
RAYJOB = {
    "entrypoint",
    "backoffLimit",
    "shutdownAfterJobFinishes",
    "submissionMode",
    "submitterConfig",
    "rayClusterSpec",
}
RAYCLUSTER = {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def _launch(folder: Path, kind: str, *options: str, root: str = "s3://bucket/in") -> Path:
    """Writes the files into `folder`/out."""
    file = folder / "web.yaml"
    file.write_text(PIPELINE.replace("ROOT", root))
    out = folder / "out"
    done = CliRunner().invoke(app, ["launch", kind, str(file), "--out", str(out), "--json", *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    assert [Path(p).parent for p in json.loads(done.output)["files"]] == [out] * len(list(out.iterdir()))
    return out


def _stub(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def stubs(tmp_path: Path) -> dict[str, str]:
    """An environment whose commands note how they are called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    _stub(folder, "scontrol", 'printf "n1\\nn2\\n"')
    _stub(folder, "hostname", "echo 10.0.0.1 10.0.0.2")
    _stub(folder, "srun", 'while [[ "$1" == --* ]]; do shift; done; exec "$@"')
    _stub(folder, "ray", f'printf "%s\\n" "$@" >> {tmp_path}/ray; echo >> {tmp_path}/ray')
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "40007",
        "SLURM_JOB_NODELIST": "n[1-2]",
    }


def _calls(file: Path) -> list[list[str]]:
    return [call.split("\n") for call in file.read_text().strip("\n").split("\n\n")]


def test_slurm(tmp_path: Path, stubs: dict[str, str]) -> None:
    """The script runs as sbatch would run it: its options exist, each node starts Ray, the first one the driver."""
    run = tmp_path / "runs of mine"
    out = _launch(
        tmp_path, "slurm", "--run", str(run), "--nodes", "2", "--gpus", "1", "--set", "seed=3", root="/shared/in"
    )
    (script,) = out.iterdir()
    options = [
        line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if line.startswith("#SBATCH")
    ]
    given = dict(o.split("=", 1) for o in options if "=" in o)
    assert given.keys() == SBATCH and {o for o in options if "=" not in o} == SBATCH_FLAGS
    assert (given["nodes"], given["gpus-per-node"], given["mem"]) == ("2", "1", "64G")
    subprocess.run(["bash", str(script)], env=stubs, check=True)
    (call,) = _calls(tmp_path / "ray")
    assert call[:5] == ["symmetric-run", "--address", "10.0.0.1:20007", "--min-nodes", "1"]
    driver = call[call.index("--") + 1 :]
    assert driver == ["gristmill", "curate", str(tmp_path / "web.yaml"), "--run", str(run), "--set", "seed=3",
                      "--address", "auto"]  # fmt: skip
    again = subprocess.run(["bash", str(script)], env=stubs | {"SLURM_RESTART_COUNT": "11"}, check=False)
    assert again.returncode == 1 and len(_calls(tmp_path / "ray")) == 1, "started again once too often"


def test_kuberay(tmp_path: Path) -> None:
    out = _launch(tmp_path, "kuberay", "--run", "s3://bucket/run", "--image", "registry/g:1", "--gpus", "1")
    (file,) = out.iterdir()
    config, job = yaml.safe_load_all(file.read_text())
    assert config["data"]["pipeline.yaml"] == (tmp_path / "web.yaml").read_text()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec.keys() == RAYJOB and cluster.keys() == RAYCLUSTER and cluster["workerGroupSpecs"][0].keys() == GROUP
    assert spec["backoffLimit"] == 10
    name = job["metadata"]["name"]
    assert name == config["metadata"]["name"] == "gristmill-my-crawl-2"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["volumes"][0]["configMap"]["name"] == name
        (container,) = pod["containers"]
        assert spec["entrypoint"].split()[2].startswith(container["volumeMounts"][0]["mountPath"])
    assert container["resources"]["limits"] == {"cpu": "16", "memory": "64G", "nvidia.com/gpu": "1"}
    for code, ends in ((0, 0), (3, 0), (1, 1)):  # 3: done, with files that could not be read
        entry = spec["entrypoint"].replace("gristmill", f"(exit {code}) #", 1).replace("||", "\n||")
        text = f"(exit {code}) || {entry.split('|| ')[1]}"
        assert subprocess.run(["sh", "-c", text], check=False).returncode == ends


def test_ray_cluster(tmp_path: Path, stubs: dict[str, str]) -> None:
    """The file fits Ray's own schema; the script starts the driver again when it died, and not when it is done."""
    ray = pytest.importorskip("ray")
    import jsonschema

    out = _launch(tmp_path, "ray-cluster", "--run", "s3://bucket/run", "--restarts", "3", "--set", QUOTED)
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    (config,) = out.glob("*.cluster.yaml")
    value: Any = yaml.safe_load(config.read_text())
    jsonschema.validate(value, schema)
    assert value["file_mounts"] == {"/home/ubuntu/pipeline.yaml": str(tmp_path / "web.yaml")}
    for last, ends, calls in (("0", 0, 2), ("3", 3, 2), ("2", 2, 2), ("1", 1, 4)):
        (tmp_path / "tries").write_text("")
        _stub(
            tmp_path / "bin", "ray",
            f'[ "$1" = exec ] || exit 0\necho "$3" >> {tmp_path}/tries\n'
            f"[ $(wc -l < {tmp_path}/tries) -gt 1 ] && echo 'gristmill ended with {last}' || exit 255",
        )  # fmt: skip
        (script,) = out.glob("*.sh")
        done = subprocess.run(
            ["bash", str(script)], env=stubs | {"GRISTMILL_PAUSE": "0"}, cwd=out, check=False, capture_output=True
        )
        tried = (tmp_path / "tries").read_text().splitlines()
        assert (done.returncode, len(tried)) == (ends, calls), done.stderr
    _stub(tmp_path / "bin", "gristmill", f'printf "%s\\n" "$@" > {tmp_path}/arguments; exit 3')
    said = subprocess.run(["bash", "-c", tried[0]], env=stubs, check=True, capture_output=True, text=True)
    assert said.stdout == "gristmill ended with 3\n" and QUOTED in (tmp_path / "arguments").read_text().splitlines()


@pytest.mark.parametrize(
    ("kind", "options", "root", "message"),
    [
        ("pbs", (), "s3://b/in", "unknown kind 'pbs': expected slurm, kuberay or ray-cluster"),
        ("kuberay", (), "s3://b/in", "kuberay needs --image"),
        ("ray-cluster", (), "/data/in", r"the root /data/in of the source web is on it\n  copy it to an object store"),
        ("slurm", ("--cpus", "1"), "/in", r"web\.yaml:5: the step language declares .*cpus: 2, memory: 8GB.*1 CPUs"),
        ("slurm", ("--nodes", "0"), "/in", "--nodes is 0: expected 1 or more"),
    ],
)
def test_what_could_not_work_is_refused(
    tmp_path: Path, kind: str, options: tuple[str, ...], root: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _launch(tmp_path, kind, "--run", "s3://bucket/run", *options, root=root)
    assert not (tmp_path / "out").exists()


def test_a_script_that_somebody_changed_is_not_overwritten(tmp_path: Path) -> None:
    out = _launch(tmp_path, "slurm", "--run", "runs/a", root="/shared/in")
    (script,) = out.iterdir()
    _launch(tmp_path, "slurm", "--run", "runs/a", root="/shared/in")  # the same again
    changed = script.read_text().replace("set -euo pipefail", "#SBATCH --partition=big\nset -euo pipefail")
    script.write_text(changed)
    with pytest.raises(UserError, match="exists and was changed"):
        _launch(tmp_path, "slurm", "--run", "runs/a", root="/shared/in")
    assert script.read_text() == changed
    _launch(tmp_path, "slurm", "--run", "runs/a", "--force", root="/shared/in")
    assert script.read_text() != changed

"""The command launch: writes files that bring a curation onto a cluster. Nothing is sent."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from pipelines.cli.app import AsJson, File, Sets, app, make_console


@app.command()
def launch(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="slurm, kuberay or ray-cluster.")],
    file: File,
    run: Annotated[str, typer.Option(metavar="DIR", help="Output directory, which all machines reach.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Where to write the files.")] = ".",
    nodes: Annotated[int, typer.Option(help="Number of nodes, at most.")] = 4,
    cpus: Annotated[int, typer.Option(help="CPUs of a node.")] = 16,
    memory_gb: Annotated[int, typer.Option(help="Memory of a node in GB.")] = 64,
    gpus: Annotated[int, typer.Option(help="GPUs of a node.")] = 0,
    restarts: Annotated[int, typer.Option(help="How often a driver that died is started again.")] = 10,
    image: Annotated[str | None, typer.Option(help="kuberay: container image with gristmill.")] = None,
    region: Annotated[str, typer.Option(help="ray-cluster: AWS region.")] = "us-east-1",
    instance: Annotated[str, typer.Option(help="ray-cluster: AWS instance type of the workers.")] = "c7i.4xlarge",
    install: Annotated[
        str, typer.Option(help="ray-cluster: command that installs gristmill on a node.")
    ] = "pip install 'gristmill[s3]'",
    force: Annotated[bool, typer.Option(help="Overwrite existing files.")] = False,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Write an sbatch script, a RayJob or a cluster.yaml that runs a pipeline and restarts its driver."""
    from curation.config.load_pipeline import load_pipeline
    from curation.core.atomic_files import replacing
    from curation.core.errors import UserError
    from curation.storage import is_remote
    from pipelines.launch import kuberay, ray_cluster, slurm
    from pipelines.launch.job import Job, check_reach, check_sizes, needs

    if kind not in ("slurm", "kuberay", "ray-cluster"):
        raise UserError(f"unknown kind {kind!r}: expected slurm, kuberay or ray-cluster")
    sizes = [("--nodes", nodes, 1), ("--cpus", cpus, 1), ("--memory-gb", memory_gb, 1), ("--gpus", gpus, 0)]
    check_sizes([*sizes, ("--restarts", restarts, 0)])
    pipeline = load_pipeline(file, sets=sets or ())
    where = run if is_remote(run) else os.path.abspath(run)
    job = Job(pipeline.name, os.path.abspath(file), where, tuple(sets or ()), nodes, cpus, memory_gb, gpus, restarts)
    check_reach(pipeline, job, shared_disk=kind == "slurm")
    needs(pipeline, job)
    base = f"gristmill-{job.name}"
    if kind == "slurm":
        files, then = {f"{base}.sbatch": slurm.script(job)}, f"sbatch {base}.sbatch"
    elif kind == "kuberay":
        if image is None:
            raise UserError("kuberay needs --image: a container image with gristmill, which all pods run")
        from importlib.metadata import version

        files = {f"{base}.rayjob.yaml": kuberay.manifest(job, image, version("ray"))}
        then = f"kubectl apply -f {base}.rayjob.yaml"
    else:
        files = {
            f"{base}.cluster.yaml": ray_cluster.cluster(job, region, instance, install),
            f"{base}.sh": ray_cluster.run_script(job, f"{base}.cluster.yaml"),
        }
        then = f"bash {base}.sh"
    os.makedirs(out, exist_ok=True)
    for name, text in files.items():  # with the lines of the site, which the script asks to add
        path = os.path.join(out, name)
        if os.path.exists(path) and not force and _read(path) != text:
            raise UserError(f"{path} exists and was changed\n  name another folder with --out, or give --force")
    for name, text in files.items():
        with replacing(os.path.join(out, name)) as temporary, open(temporary, "w", encoding="utf-8") as f:
            f.write(text)
    written = [os.path.join(out, name) for name in files]
    if as_json:
        print(json.dumps({"files": written, "command": then}))
    else:
        make_console().print(f"wrote {', '.join(written)}\nnothing was sent; in {out}: {then}", highlight=False)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()

"""Machines of different CPUs under one run: at a declared level both work, and the bytes are equal.

Without a level the odd one is left out and named: test_cluster.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curation.core import cpu_level
from curation.engine.execution.event_log import FILE
from tests.conftest import ROOT
from tests.curation.engine import tiny
from tests.curation.engine.runtime.test_cluster import cluster

__all__ = ["cluster"]

# Its signal is what numpy and numba would use; it notes which node it runs on
STEP = """
from dataclasses import dataclass
import time
import pyarrow as pa
from curation.document import with_column
from curation.step import MapStep

@dataclass
class Used(MapStep):
    notes: str = ""
    nodes: int = 0
    name: str = "used"

    @property
    def signals(self):
        return pa.schema([("cpu", pa.string())])

    def __call__(self, batch):
        import sys
        import numba
        from numpy._core._multiarray_umath import __cpu_features__ as features
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            with open(f"{self.notes}/nodes", "a") as f:
                f.write(ray.get_runtime_context().get_node_id() + "\\n")
            for _ in range(600):  # until the other nodes have begun, or the first ones do all
                with open(f"{self.notes}/nodes") as f:
                    if len(set(f.read().split())) >= self.nodes:
                        break
                time.sleep(0.1)
        used = f"{[n for n in features if n.startswith('X86') and features[n]]} {numba.config.CPU_NAME}"
        values = pa.StructArray.from_arrays([pa.array([used] * batch.num_rows)], fields=list(self.signals))
        return with_column(batch, self.name, values)
"""


def _curate(file: Path, to: Path, *options: str) -> str:
    """What the command says; it starts itself again with what the level takes."""
    command = [sys.executable, "-m", "pipelines.cli", "curate", str(file), "--run", str(to), *options]
    env = {k: v for k, v in os.environ.items() if k not in cpu_level.variables("x86-64-v2")}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_machines_of_different_features_work_at_a_common_level(cluster: Any, tmp_path: Path) -> None:
    """A node whose numpy uses fewer features and whose numba compiles for another CPU, beside two like the driver's."""
    tiny.write_input(tmp_path / "in", files=9, documents=8)
    file = tiny.write_pipeline(tmp_path)
    (tmp_path / "used.py").write_text(STEP)
    text = file.read_text().replace(
        "  - exact_dedup", f"  - {tmp_path}/used.py:Used: {{notes: {tmp_path}, nodes: 3}}\n  - exact_dedup"
    )
    file.write_text(text.replace("engine: {", "engine: {cpu_level: x86-64-v2, "))
    other = {"NPY_DISABLE_CPU_FEATURES": "X86_V3", "NUMBA_CPU_NAME": "nehalem"}
    before = {name: os.environ.pop(name, None) for name in other}
    os.environ.update(other)
    try:
        odd = cluster.add_node(num_cpus=1)
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
    try:
        said = _curate(file, tmp_path / "run", "--address", cluster.address)
    finally:
        cluster.remove_node(odd)
    assert "left out" not in said
    nodes = set((tmp_path / "nodes").read_text().split())
    assert odd.node_id in nodes and len(nodes) > 1
    assert (tmp_path / "run" / FILE).exists()
    _curate(file, tmp_path / "inline", "--executor", "inline")
    assert tiny.tree(tmp_path / "run") == tiny.tree(tmp_path / "inline")
    with pytest.raises(cpu_level.NotPinned, match="x86-64-v2"):
        tiny.run(file, tmp_path / "here")

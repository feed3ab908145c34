"""Resources of a step: phases of their own, tasks of that size on Ray, models loaded once an actor.

Covers: curation/config/resources.py
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curation.config.load_pipeline import load_pipeline, load_stored_pipeline
from curation.config.resources import Resources
from curation.config.stored_pipeline import read_stored_pipeline
from curation.core.errors import UserError
from curation.engine.execution.executors import Ray
from curation.engine.planning.plan import make_plan
from curation.engine.runtime.run import curate
from curation.storage import Storage
from tests.curation.engine import tiny
from tests.ray_cluster import start_cluster

# Counts, in files of a folder, who loaded it and how many of it ran when a batch began
MODEL = '''
from dataclasses import dataclass
import os, signal, time, uuid
import pyarrow as pa
from curation.document import with_column
from curation.step import MapStep

@dataclass
class Model(MapStep):
    """Gives the length of a text; kills its process once, on the text that `dies` names."""
    notes: str = ""
    dies: str = ""
    name: str = "model"

    @property
    def signals(self):
        return pa.schema([("length", pa.int64())])

    def open(self):
        with open(f"{self.notes}/loaded", "a") as f:
            f.write(f"{os.getpid()}\\n")

    def __call__(self, batch):
        mine = f"{self.notes}/running-{uuid.uuid4().hex}"
        open(mine, "w").close()
        with open(f"{self.notes}/seen", "a") as f:
            running = sum(name.startswith("running-") for name in os.listdir(self.notes))
            f.write(f"{running} {os.environ.get('CUDA_VISIBLE_DEVICES', '')} {os.getpid()}\\n")
        texts = batch.column("text").to_pylist()
        time.sleep(0.05)
        os.remove(mine)
        if self.dies and any(t.startswith(self.dies) for t in texts):
            try:
                os.close(os.open(f"{self.notes}/died", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        values = pa.StructArray.from_arrays([pa.array([len(t) for t in texts], pa.int64())], fields=list(self.signals))
        return with_column(batch, self.name, values)
'''

PIPELINE = """
name: tiny
sources:
  - {{name: web, read: text, root: {folder}/in, path: "*.jsonl", id: id}}
steps:
  - {folder}/steps.py:Words: {{}}
    keep: {{long: "words.count >= 7"}}
  - {folder}/model.py:Model: {{notes: {notes}, dies: "{dies}"}}
    keep: {{length: "model.length <= 150"}}
{resources}
  - {folder}/steps.py:Words: {{name: again}}
    keep: {{even: "again.count % 2 = 0"}}
  - exact_dedup: {{}}
tokenizer: {{train: {{kind: bpe, vocab: 300}}}}
validation: 0.2
engine: {{task_bytes: 2048, batch_rows: 16}}
"""


def _pipeline(folder: Path, name: str, resources: str, dies: str = "") -> tuple[Path, Path]:
    """The file, and the folder of the step's notes."""
    tiny.write_pipeline(folder)
    (folder / "model.py").write_text(MODEL)
    notes = folder / f"notes-{name}"
    notes.mkdir()
    line = f"    resources: {resources}" if resources else ""
    file = folder / f"{name}.yaml"
    file.write_text(PIPELINE.format(folder=folder, notes=notes, dies=dies, resources=line))
    return file, notes


def _lines(file: Path) -> list[list[str]]:
    return [line.split() for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[Any]:
    """A machine that declares more CPUs than this one and two GPUs that it does not have."""
    pytest.importorskip("ray")
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder = tempfile.mkdtemp(prefix="gm-")
    made, _ = start_cluster({"num_cpus": 4, "num_gpus": 2})
    try:
        yield made
    finally:
        made.shutdown()
        os.environ.pop("RAY_TMPDIR")
        if before is not None:
            os.environ["RAY_TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def test_a_model_on_gpus_is_loaded_once_an_actor_and_never_runs_more_often_than_there_are_gpus(
    two_gpus: Any, tmp_path: Path
) -> None:
    """CPU step, step of one GPU, CPU step. In the second run an actor is killed under a task."""
    tiny.write_input(tmp_path / "in", files=5)
    plain, _ = _pipeline(tmp_path, "plain", "")
    expected = tiny.run(plain, tmp_path / "run-plain")
    file, notes = _pipeline(tmp_path, "gpus", "{gpus: 1}")
    result = tiny.run(file, tmp_path / "run", executor="ray", address=two_gpus.address)
    assert (result.status, result.counts) == ("done", expected.counts)
    assert tiny.tree(tmp_path / "run") == tiny.tree(tmp_path / "run-plain")
    seen, loaded = _lines(notes / "seen"), [pid for (pid,) in _lines(notes / "loaded")]
    assert max(int(running) for running, _, _ in seen) <= 2
    assert {gpu for _, gpu, _ in seen} <= {"0", "1"}
    assert len(loaded) == len(set(loaded)) <= 2 < 5 <= len(seen), "a model was loaded twice in an actor, or for a task"

    killed, notes = _pipeline(tmp_path, "killed", "{gpus: 1}", dies="the same text")
    assert tiny.run(killed, tmp_path / "killed", executor="ray", address=two_gpus.address).counts == expected.counts
    assert tiny.tree(tmp_path / "killed") == tiny.tree(tmp_path / "run-plain")
    assert (notes / "died").exists()
    failed = [e for e in tiny.events(tmp_path / "killed") if e["event"] == "failed"]
    assert [e["phase"] for e in failed] == ["1: model"] and "ActorDiedError" in failed[0]["reason"]
    loaded = [pid for (pid,) in _lines(notes / "loaded")]
    assert len(loaded) == len(set(loaded)) <= 3
    assert max(int(running) for running, _, _ in _lines(notes / "seen")) <= 2


def test_who_waits_for_a_call_gets_that_call_and_no_other(two_gpus: Any) -> None:
    """As the search for a fatal record does while tasks of its phase run."""
    executor = Ray(two_gpus.address)
    try:
        assert executor.require(Resources(gpus=1)) is None
        submit = lambda spec: executor.submit(_echo, executor.share("shared"), spec, None, 1 << 20)  # noqa: E731
        task, probe = submit(["task", 0.0]), submit(["probe", 0.5])
        given: list[Any] = []
        while not given:
            given = executor.wait([probe], 5.0)
        assert [(handle, outcome.value) for handle, outcome in given] == [(probe, {"spec": ["probe", 0.5]})]
        given = executor.wait([task], 5.0)
        assert [(handle, outcome.value) for handle, outcome in given] == [(task, {"spec": ["task", 0.0]})]
    finally:
        executor.close()


def _echo(shared: Any, spec: Any) -> dict[str, Any]:
    time.sleep(spec[1])
    return {"spec": spec}


def test_what_a_global_step_declares_holds_for_all_of_it(tmp_path: Path) -> None:
    """What it computes of each text beforehand, and what it finds out in the phase that joins it."""
    tiny.write_input(tmp_path / "in")
    file, _ = _pipeline(tmp_path, "global", "{gpus: 1}")
    file.write_text(
        file.read_text()
        .replace(f"  - {tmp_path}/steps.py:Words: {{name: again}}", "  - exact_dedup: {name: first}")
        .replace('    keep: {even: "again.count % 2 = 0"}\n', "")
        .replace("  - exact_dedup: {}", "  - line_dedup: {}\n    resources: {memory: 4GB}")
    )
    segments = make_plan(tiny.load(file)).segments
    assert [(s.name, str(s.resources)) for s in segments] == [
        ("read, words", "cpus: 1"),
        ("model", "cpus: 1, gpus: 1"),
        ("first-hash", "cpus: 1"),
        ("first", "cpus: 1"),
        ("line_dedup", "cpus: 1, memory: 4GB"),
    ]


def test_phases_end_where_resources_differ_and_the_bytes_do_not(tmp_path: Path) -> None:
    tiny.write_input(tmp_path / "in")
    names, trees = [], []
    for name, resources in (("plain", ""), ("cpus", "{cpus: 2, memory: 4GB, gpus: 0.5}"), ("ordinary", "{cpus: 1}")):
        file, _ = _pipeline(tmp_path, name, resources)
        segments = make_plan(tiny.load(file)).segments
        names.append([(s.name, str(s.resources)) for s in segments])
        if name != "ordinary":
            tiny.run(file, tmp_path / f"run-{name}")
            trees.append(tiny.tree(tmp_path / f"run-{name}"))
    assert names[1] == [
        ("read, words", "cpus: 1"),
        ("model", "cpus: 2, memory: 4GB, gpus: 0.5"),
        ("again", "cpus: 1"),
        ("exact_dedup", "cpus: 1"),
    ]
    assert names[0] == names[2] == [("read, words, model, again", "cpus: 1"), ("exact_dedup", "cpus: 1")]
    assert trees[0] == trees[1]
    # other numbers change no phase, and a run directory knows them
    more = load_pipeline(str(tmp_path / "cpus.yaml"), sets=["steps.Model.resources.gpus=1"])
    again = curate(more, str(tmp_path / "run-cpus"), executor="inline")
    assert (again.status, again.executed, tiny.tree(tmp_path / "run-cpus")) == ("done", 0, trees[1])
    stored = read_stored_pipeline(Storage(str(tmp_path / "run-cpus")), values=True)
    assert (
        str(load_stored_pipeline(str(tmp_path / "cpus.yaml"), stored).steps[1].resources)
        == "cpus: 2, memory: 4GB, gpus: 1"
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{gpu: 1}", r"unknown key 'gpu'\n  did you mean gpus"),
        ("{cpus: 0}", r"resources\.cpus: is 0\n  expected more than 0"),
        ("{memory: lots}", r"resources\.memory: is not a size of 1 MiB or more\n  expected bytes, or .*such as 4GB"),
        ("{gpus: 1.5}", r"resources\.gpus: is a part of several GPUs\n  expected a whole number"),
    ],
)
def test_resources_are_checked(tmp_path: Path, written: str, message: str) -> None:
    file, _ = _pipeline(tmp_path, "wrong", written)
    with pytest.raises(UserError, match=message):
        tiny.load(file)


def test_text_is_not_stored_unscrubbed_for_a_step_of_other_resources(tmp_path: Path) -> None:
    file, _ = _pipeline(tmp_path, "raw", "{gpus: 1}")
    text = file.read_text()
    file.write_text(text.replace("  - exact_dedup: {}", "  - pii: {entities: [EMAIL_ADDRESS]}\n  - exact_dedup: {}"))
    with pytest.raises(UserError, match=r"model has `resources`.*before pii has scrubbed it\n  remove them, put pii"):
        tiny.load(file)
    file.write_text(file.read_text() + "store_raw: true\n")
    tiny.load(file)


def test_sizes_and_how_many_tasks_fit() -> None:
    half = Resources(cpus=2, memory="4GB", gpus=0.5)  # type: ignore[arg-type]
    assert half.memory_bytes == 4_000_000_000
    assert [half.tasks_on(16, 0, 1), half.tasks_on(16, 9e9, 8), half.tasks_on(3, 64e9, 8), half.tasks_on(16, 0, 0)] == [
        2, 2, 1, 0,
    ]  # fmt: skip
    assert Resources(cpus=0.1).tasks_on(0.3, 0, 0) == 3


def test_what_this_machine_does_not_have_is_refused_before_the_first_task(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"declares `resources: \{cpus: 1, gpus: 64\}`, and this machine gives Ray 1 C"):
        Ray(workers=1, needs=[Resources(), Resources(gpus=64)])

"""A pipeline small enough to be run hundreds of times, with one of everything the engine does: two map tasks, a rule
with a quantile, a global step, a trained tokenizer, shards. And what tests ask of a run directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

from curation.config.load_pipeline import load_pipeline
from curation.config.pipeline import Pipeline
from curation.engine.manifests import phase_records
from curation.engine.runtime.run import RunResult, curate
from curation.storage import Storage

STEP = '''
from dataclasses import dataclass
import os, signal, time
import pyarrow as pa
from curation.document import with_column
from curation.step import MapStep

@dataclass(frozen=True)
class Words(MapStep):
    """Counts words; on a text with the word `raises` it raises, on one with `dies` its process is killed."""
    name: str = "words"
    pause: float = 0.0  # seconds a batch, so that tasks are under way when something is killed

    @property
    def signals(self):
        return pa.schema([("count", pa.int64())])

    def __call__(self, batch):
        counts = []
        time.sleep(self.pause)
        for text in batch.column("text").to_pylist():
            words = text.split()
            if "raises" in words:
                raise ValueError("a word it cannot bear")
            if "dies" in words:
                os.kill(os.getpid(), signal.SIGKILL)
            counts.append(len(words))
        values = pa.StructArray.from_arrays([pa.array(counts, pa.int64())], fields=list(self.signals))
        return with_column(batch, self.name, values)
'''

PIPELINE = """
name: tiny
sources:
  - {{name: web, read: text, root: "{root}", path: "*.jsonl", id: id}}
steps:
  - {step}/steps.py:Words: {{pause: {pause}}}
    keep: {{long: "words.count >= quantile(words.count, 0.2)"}}
  - exact_dedup: {{}}
tokenizer: {{train: {{kind: bpe, vocab: 300}}}}
shards: {{tokens_per_shard: 2000}}
validation: 0.2
engine: {{task_bytes: 2048, batch_rows: 8}}
"""

WORDS = ("mill", "stone", "grain", "wheel", "water", "flour", "sack", "miller", "rye", "wheat", "oat", "bran")


def write_input(folder: Path, files: int = 2, documents: int = 24, bad: dict[str, str] | None = None) -> None:
    """JSON Lines files of some 3.6 KB, a task each. `bad`: word to put into the document with this id."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(5)
    for number in range(files):
        lines = []
        for i in range(documents):
            name = f"{'abcdefghijklmnopqrstuvwxyz'[number]}{i}"
            text = " ".join(rng.choice(WORDS) for _ in range(5 + rng.randrange(25)))
            if i % 6 == 0:
                text = "the same text in many places" + " again" * 12
            if bad and name in bad:
                text += " " + bad[name]
            lines.append(json.dumps({"id": name, "text": text, "url": f"https://x.org/{name}"}) + "\n")
        (folder / f"{'abcdefghijklmnopqrstuvwxyz'[number]}.jsonl").write_text("".join(lines))


def write_pipeline(folder: Path, root: str | None = None, pause: float = 0.0) -> Path:
    """The pipeline file and its step, reading `folder`/in or another root."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "steps.py").write_text(STEP)
    file = folder / "tiny.yaml"
    file.write_text(PIPELINE.format(root=root or folder / "in", step=folder, pause=pause))
    return file


def load(file: Path) -> Pipeline:
    return load_pipeline(str(file))


def run(file: Path, run_dir: Path | str, **options: Any) -> RunResult:
    return curate(load(file), str(run_dir), **({"executor": "inline"} | options))


def tree(run_dir: Path) -> str:
    """SHA-256 over names and bytes of the result tree."""
    base = run_dir / "result"
    total = hashlib.sha256()
    for path in sorted(p for p in base.rglob("*") if p.is_file()):
        data = path.read_bytes()
        total.update(f"{path.relative_to(base)} {len(data)} {hashlib.sha256(data).hexdigest()}\n".encode())
    return total.hexdigest()


def committed(run_dir: Path) -> set[tuple[str, str]]:
    """(phase fingerprint, task) of every task with a whole manifest, of open and finished phases."""
    found = set()
    store = Storage(str(run_dir))
    for path in phase_records.paths(store):
        found |= {(Path(path).stem, task) for task in phase_records.read(store, path).tasks}
    for file in (run_dir / "cache" / "tasks").glob("*/*.json"):
        found.add((file.parent.name, file.stem))
    return found


def phases(run_dir: Path) -> list[phase_records.PhaseRecord]:
    """The finished phases of a run."""
    store = Storage(str(run_dir))
    return [phase_records.read(store, path) for path in phase_records.paths(store)]


def events(run_dir: Path) -> list[dict[str, Any]]:
    """The driver's log. A line that a killed driver left half written is skipped."""
    log = run_dir / "log" / "events.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    out = []
    for line in lines:
        try:
            out.append(json.loads(line))
        except ValueError:
            continue
    return out


def restarted(run_dir: Path) -> list[tuple[str, str]]:
    """Tasks that were started again after they were done: there must be none."""
    done: set[tuple[str, str]] = set()
    again = []
    for e in events(run_dir):
        key = (e["phase"], e.get("task", ""))
        if e["event"] == "start" and key in done:
            again.append(key)
        elif e["event"] == "done":
            done.add(key)
    return again


def copy_as_killed(run_dir: Path, to: Path) -> None:
    """The directory as a kill at this moment would leave it: what is still written to is copied, the rest linked."""
    for folder, _, names in os.walk(run_dir):
        target = to / Path(folder).relative_to(run_dir)
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            source = Path(folder) / name
            if name.endswith((".tmp", ".jsonl", ".lock")):
                (target / name).write_bytes(source.read_bytes())
            else:
                os.link(source, target / name)

"""A small real run that the tests of the command line and of the report look at."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)> @nav@ @body@ </pre></style> javascript:alert(3)"

OWN_STEP = """
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curation.document import with_column
from curation.step import MapStep


@dataclass
class Length(MapStep):
    name: str = "length"

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([("chars", pa.int64()), ("share", pa.float64()), ("kind", pa.string())])

    def rules(self) -> Mapping[str, str]:
        return {"short": f"{self.name}.chars >= 20"}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        chars = pc.utf8_length(batch.column("text")).cast(pa.int64())
        share = pc.divide(chars.cast(pa.float64()), 7.0)
        kind = pa.array(["<b>long</b>" if n > 60 else "short" for n in chars.to_pylist()], pa.string())
        struct = pa.StructArray.from_arrays([chars, share, kind], fields=list(self.signals))
        return with_column(batch, self.name, struct)
"""

PIPELINE = """
name: small
sources:
  - {name: web, read: text, path: "*.jsonl"}
  - {name: nasty, read: text, path: nasty.txt}
steps:
  - own.py:Length: {}
  - exact_dedup: {}
tokenizer: {train: {vocab: 300}}
validation: 0.2
"""


def write_inputs(folder: Path) -> Path:
    """42 documents: a nasty one, a nasty short one, 30 different ones and 10 copies of one."""
    (folder / "own.py").write_text(OWN_STEP)
    (folder / "nasty.txt").write_text(NASTY)
    texts = ["<script>x</script>", *(f"Document number {i} says something of its own. " * 2 for i in range(30))]
    texts += ["The same text, as often as it is crawled, is one document."] * 10
    lines = [{"text": t, "url": f"http://example.com/{i}?q=<b>&amp;"} for i, t in enumerate(texts)]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "small.yaml").write_text(textwrap.dedent(PIPELINE))
    return folder


@pytest.fixture
def gristmill(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    from pipelines.cli import main

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gristmill", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main()
        out = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), out.out, out.err

    return call


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of `write_inputs`, in the folder of its inputs."""
    from curation.config.load_pipeline import load_pipeline
    from curation.engine.runtime.run import curate

    folder = write_inputs(tmp_path_factory.mktemp("small"))
    pipeline = load_pipeline(str(folder / "small.yaml"))
    assert curate(pipeline, str(folder / "run"), executor="inline").exit_code == 0
    return folder / "run"


@pytest.fixture(scope="session")
def tiny(small_run: Path) -> Path:
    """The small run with a training below it, as its files say."""
    folder = small_run / "train" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    score = {"perplexity": 9.0, "bits_per_byte": 1.2, "tokens": 5, "sequences": 1}
    entries: list[dict[str, Any]] = []
    for i in range(3):
        entries.append(
            {"kind": "validation", "step": i, "loss": 3.0 - i, "domains": {"web": {"loss": 3.0 - i, **score}}}
        )
        step = {"kind": "train", "step": i + 1, "loss": 3.5 - i, "tokens": 64 * (i + 1), "lr": 0.1, "grad_norm": 1}
        entries.append(step | {"domains": {"web": 3.5 - i}})
    blamed = {"doc_id": "ab" * 16, "domain": "web", "url": "http://bad/<b>", "source": None, "tokens": 9, "loss": 7.5}
    blamed |= {"gradient": 80.0, "z_loss": 31.0, "z_gradient": 44.0}
    entries.append({"kind": "event", "event": "rollback", "step": 1, "confirmed": 3, "blamed": [blamed]})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries) + '{"kind": "tra')
    speed = {"step": 1, "seconds": 2.0, "tokens_per_s": 32.0, "mfu": 0.5, "mfu_full": 0.6, "of_plan": 1.25}
    (folder / "speed.jsonl").write_text(json.dumps({**speed, "memory": 3 * 10**9, "memory_of_plan": 0.75}) + "\n")
    (folder / "train.yaml").write_text("steps: 4\nbatch: {global_size: 2}\ndata: {seq_len: 32}\noptimizer: {lr: 0.1}\n")
    (folder / "sample.txt").write_text("<i>once</i> upon a time")
    (folder / "incidents").mkdir(exist_ok=True)
    incident = {
        "number": 1,
        "good": 1,
        "confirmed": 3,
        "sequence": 2,
        "suspects": 5,
        "witnesses": 20,
        "blamed": [blamed],
    }
    incident |= {"masked": [blamed["doc_id"]], "anomalies": [{"step": 2}, {"step": 3}]}
    (folder / "incidents" / "0001.json").write_text(json.dumps(incident))
    return small_run

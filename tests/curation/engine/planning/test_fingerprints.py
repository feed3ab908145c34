"""Fingerprints of code: a step runs again when code that it uses has changed, and when no other code has.

Each command is a process of its own, as a user has it: what a process has imported, it keeps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from curation.config.load_pipeline import load_pipeline
from curation.core.errors import UserError
from curation.engine.planning import fingerprints
from tests.conftest import ROOT
from tests.curation.engine import runs

STEP = """
from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from curation.document import with_column
from curation.step import MapStep


@dataclass
class Bad(MapStep):
    name: str = "bad"

    @property
    def signals(self):
        return pa.schema([("words", pa.int64())])

    def rules(self):
        return {"bad": "bad.words = 0"}

    def __call__(self, batch):
        from mysteps import lists

        counts = [sum(word in lists.BAD for word in str(text).split()) for text in batch.column("text")]
        return with_column(batch, self.name, pa.StructArray.from_arrays([pa.array(counts)], ["words"]))
"""
PROGRAM = """
import json, sys
from curation.config.load_pipeline import load_pipeline
from curation.engine.runtime import run
result = run.curate(load_pipeline(sys.argv[1]), sys.argv[2], executor="inline")
print(json.dumps([result.status, result.executed, result.counts["kept"], result.computed]))
"""


def prepare(folder: Path) -> None:
    rows = [{"text": f"The brook turns mill {i}" + (" badly" if i % 4 else "")} for i in range(40)]
    runs.write_jsonl(folder / "texts" / "a.jsonl", rows)
    (folder / "mysteps").mkdir()
    (folder / "mysteps" / "__init__.py").write_text("")
    (folder / "mysteps" / "lists.py").write_text("BAD = {'awful'}\n")
    (folder / "mysteps" / "step.py").write_text(STEP)
    tree = runs.text_pipeline(folder, steps=[{"language": {}}, {"mysteps.step:Bad": {}}])
    (folder / "pipeline.yaml").write_text(json.dumps(tree))


def curate(folder: Path, run: str = "run", *path: Path) -> tuple[str, int, int, dict[str, int]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, folder, ROOT]))}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "pipeline.yaml"), str(folder / run)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    status, executed, kept, computed = json.loads(ended.stdout.splitlines()[-1])
    return status, executed, kept, computed


def test_a_list_that_a_step_imports_is_part_of_the_step(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert curate(tmp_path)[2] == 40
    assert curate(tmp_path)[:2] == ("unchanged", 0)
    (tmp_path / "mysteps" / "lists.py").write_text("BAD = {'badly'}\n")
    assert curate(tmp_path)[2:] == (10, {"bad": 40})  # the other step's signals are used again
    assert curate(tmp_path, "fresh")[2] == 10
    assert runs.tree_bytes(tmp_path / "run") == runs.tree_bytes(tmp_path / "fresh")
    (tmp_path / "mysteps" / "lists.py").write_text("# only words\nBAD = {'badly'}\n")
    assert curate(tmp_path)[:2] == ("unchanged", 0)


def another(folder: Path, name: str) -> Path:
    """A folder with the metadata of another version of a distribution."""
    info = folder / f"other-{name}" / f"{name}-99.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.1\n")
    return info.parent


def test_only_another_version_of_what_a_step_uses_runs_it_again(tmp_path: Path) -> None:
    prepare(tmp_path)
    curate(tmp_path)
    idle = [another(tmp_path, name) for name in ("fastwarc", "spacy", "kenlm", "ray", "datatrove", "numba")]
    assert curate(tmp_path, "run", *idle)[:2] == ("unchanged", 0)
    assert curate(tmp_path, "run", another(tmp_path, "fasttext"))[3] == {"language": 40}  # not `bad`
    status, executed, _, computed = curate(tmp_path, "run", another(tmp_path, "pyarrow"))
    assert (status, computed) == ("done", {"bad": 40, "language": 40})
    assert executed > 1
    versions = json.loads((tmp_path / "run" / "run.json").read_text())["versions"]
    assert versions["pyarrow"] == "99.1"
    assert "fasttext" in versions and "kenlm" not in versions


def test_a_file_changed_under_a_process_that_has_imported_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    load_pipeline(str(tmp_path / "pipeline.yaml"))
    load_pipeline(str(tmp_path / "pipeline.yaml"))
    (tmp_path / "mysteps" / "lists.py").write_text("BAD = {'badly', 'awful'}\n")
    try:
        with pytest.raises(UserError, match=r"mysteps/lists\.py was changed after this process imported it"):
            load_pipeline(str(tmp_path / "pipeline.yaml"))
    finally:
        for name in [m for m in sys.modules if m.partition(".")[0] == "mysteps"]:
            del sys.modules[name]


def test_prose_does_not_count_and_code_does(tmp_path: Path) -> None:
    file = tmp_path / "step.py"
    file.write_text('"""A docstring."""\n\ndef f(x):\n    """Another."""\n    return x + 1\n')
    first = fingerprints.module_fingerprint(str(file))
    file.write_text('"""Other words."""\n\ndef f(x):\n    # a comment\n    return x + 1  # one more\n')
    assert fingerprints.module_fingerprint(str(file)) == first
    file.write_text("def f(x):\n    return x + 2\n")
    assert fingerprints.module_fingerprint(str(file)) != first


def test_modules_that_are_imported_count(tmp_path: Path) -> None:
    file = tmp_path / "step.py"
    file.write_text("x = 1\n")
    alone = fingerprints.module_fingerprint(str(file))
    file.write_text("from curation import seeded_hash\n\nx = 1\n")
    assert fingerprints.module_file("curation.seeded_hash") in fingerprints.module_code(str(file)).files
    assert fingerprints.module_fingerprint(str(file)) != alone


def test_a_block_of_datatrove_counts_by_its_code_and_what_that_imports() -> None:
    from curation.datatrove_adapter import Datatrove

    (block,) = Datatrove(block="GopherQualityFilter").plugins()
    found = fingerprints.code_of(block)
    assert any(f.endswith("datatrove/utils/word_tokenizers.py") for f in found.files)
    assert "spacy" in found.distributions


def test_a_module_is_found_without_importing_it() -> None:
    assert fingerprints.module_file("curation.engine.runtime.run").endswith("curation/engine/runtime/run.py")

"""What the command line says where the code of a step fails: exit codes, files, the place in the code.

Covers: pipelines/monitor/run_result.py
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.pipelines.conftest import write_inputs


def break_step(folder: Path, line: str) -> None:
    own = folder / "own.py"
    own.write_text(own.read_text().replace("        chars = ", f"        {line}\n        chars = ", 1))


def test_records_left_out_are_exit_code_3_and_named(gristmill, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    before = (tmp_path / "own.py").read_text()
    break_step(tmp_path, 'assert not any("number 7 " in t for t in batch.column("text").to_pylist())')
    arguments = ("curate", tmp_path / "small.yaml", "--run", tmp_path / "run", "--executor", "inline")
    code, out, _ = gristmill(*arguments)
    assert code == 3
    assert "left out: 1 records of a.jsonl: step length fails" in out and "own.py:" in out
    assert "poison.jsonl names these records" in out
    code, out, _ = gristmill(*arguments, "--json")
    answer = json.loads(out)
    assert (code, answer["exit_code"], answer["status"]) == (3, 3, "unchanged")
    assert [(i["file"], i["records"]) for i in answer["left_out"]] == [("a.jsonl", 1)]
    (tmp_path / "own.py").write_text(before)
    assert gristmill(*arguments)[0] == 0


def test_a_step_that_always_fails_ends_with_its_traceback(gristmill, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    break_step(tmp_path, "1 / 0")
    code, out, error = gristmill("curate", tmp_path / "small.yaml", "--run", tmp_path / "run", "--executor", "inline")
    assert code == 1
    assert "always with ZeroDivisionError at" in error and "own.py:" in error and "1 / 0" in error
    assert "step length fails on 41 of 41 records of source 'web'" in error
    assert len((out + error).splitlines()) < 40

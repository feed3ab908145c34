"""`gristmill doctor` finds what is wrong, says what to do and leaves no files."""

from __future__ import annotations

import json
import os
import sys

import pytest

from pipelines.monitor import doctor


def test_a_machine_that_is_fit(tmp_path):
    findings = doctor.examine(str(tmp_path / "runs"))
    assert {f.what for f in findings} >= {"Python", "packages", "extras", "memory", "storage", "model", "Ray"}
    assert not [f for f in findings if f.state == "bad"]
    assert os.listdir(tmp_path) == []
    assert all(f.advice for f in findings if f.state != "good")


def test_storage_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    found = [f for f in doctor.examine(str(tmp_path / "file" / "runs")) if f.what == "storage"]
    assert [f.state for f in found] == ["bad"]
    assert "choose a directory" in found[0].advice


@pytest.mark.parametrize(
    ("hidden", "state", "said", "advice"),
    [
        (["kenlm"], "bad", "missing: kenlm", "pip install kenlm"),
        (["torch"], "warn", "missing: torch; this machine can curate but not train", "pip install torch"),
        (["duckdb", "ray"], "warn", "missing: duckdb, ray; this machine can train but not curate",
         'pip install duckdb "ray[default]"'),
        (["duckdb", "torch"], "bad", "missing: duckdb, torch", "pip install duckdb torch"),
    ],
)  # fmt: skip
def test_a_package_that_is_missing(tmp_path, monkeypatch, hidden, state, said, advice):
    for module in hidden:
        monkeypatch.setitem(sys.modules, module, None)
    found = [f for f in doctor.examine(str(tmp_path)) if f.what == "packages"][1:]
    assert [(f.state, f.said, f.advice) for f in found] == [(state, said, advice)]


def test_extras(tmp_path, monkeypatch, gristmill):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    code, out, _ = gristmill("doctor", "--storage", tmp_path)
    said = " ".join(out.split())
    assert code == 0 and "extras: installed: demo," in said
    assert 'mix without lightgbm (pip install "gristmill[mix]")' in said


@pytest.mark.parametrize("present", [True, False])
def test_models(tmp_path, monkeypatch, present):
    monkeypatch.setenv("GRISTMILL_MODELS", str(tmp_path))
    if present:
        (tmp_path / "lid.176.ftz").write_bytes(b"not it")
    found = [f for f in doctor.examine(str(tmp_path)) if "lid.176" in f.said and "lid.176.bin" not in f.said]
    assert len(found) == 1 and found[0].state in ("warn", "bad")
    assert "gristmill models pull lid.176" in found[0].advice


def test_json(tmp_path, gristmill):
    code, out, _ = gristmill("doctor", "--storage", tmp_path, "--json")
    assert code == 0 and {row["state"] for row in json.loads(out)} <= {"good", "warn"}

"""The doctor: finds what is amiss, says what to do, leaves nothing behind."""

from __future__ import annotations

import importlib.metadata
import json
import os

import pytest

from pipelines.monitor import doctor


def test_a_machine_that_is_fit(tmp_path):
    findings = doctor.examine(str(tmp_path / "runs"))
    assert {f.what for f in findings} >= {"Python", "packages", "memory", "storage", "model", "Ray"}
    assert not [f for f in findings if f.state == "bad"]
    assert os.listdir(tmp_path) == []
    assert all(f.advice for f in findings if f.state != "good")


def test_storage_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    found = [f for f in doctor.examine(str(tmp_path / "file" / "runs")) if f.what == "storage"]
    assert [f.state for f in found] == ["bad"]
    assert "choose a directory" in found[0].advice


def test_a_package_that_is_missing(tmp_path, monkeypatch, gristmill):
    real = importlib.metadata.version

    def version(name):
        if name == "kenlm":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    code, out, _ = gristmill("doctor", "--storage", tmp_path)
    assert code == 1 and "missing: kenlm" in out and "pip install -c constraints.txt kenlm" in out


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

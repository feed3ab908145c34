"""pipeline.yaml of a run directory: what was written is what is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.config.stored_pipeline import read_stored_pipeline, write_stored_pipeline
from curation.storage import Storage


def test_values_come_back_whatever_they_look_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME_OF_TEXT", "/elsewhere")
    resolved = {
        "name": "no",
        "seed": 17,
        "sources": [{"name": "on", "root": "${HOME_OF_TEXT}", "path": "2024-01-01/*.gz", "id": "1e5"}],
        "steps": [{"step": "language", "options": {"model": None}, "rules": {"ü": "language.code = 'no' -- 12:30"}}],
        "mix": {"weights": {"no": 0.5, "web": 1.0}, "budget": 10**12},
        "tokenizer": None,
    }
    write_stored_pipeline(Storage(str(tmp_path)), resolved)
    assert read_stored_pipeline(Storage(str(tmp_path))) == resolved


def test_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_stored_pipeline(Storage(str(tmp_path)))

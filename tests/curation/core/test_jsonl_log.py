"""A log is read up to its last complete line, and an append removes what a crash cut off."""

from __future__ import annotations

from pathlib import Path

from curation.core import jsonl_log


def test_entries_come_back(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert list(jsonl_log.read(path)) == []
    entries = [{"step": 1, "loss": 2.5}, {"name": "naïve\nline\u2028end"}]
    for entry in entries:
        jsonl_log.append(path, entry)
    assert list(jsonl_log.read(path)) == entries
    assert path.read_bytes().count(b"\n") == 2


def test_a_torn_last_line_is_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for torn in (b'{"step": 2, "lo', b'{"step": 2}', b"\xc3"):
        path.write_bytes(b'{"step": 1}\n' + torn)
        assert list(jsonl_log.read(path)) == [{"step": 1}]
        jsonl_log.append(path, {"step": 3})
        assert path.read_bytes() == b'{"step": 1}\n{"step": 3}\n'
    path.write_bytes(b'{"st')
    jsonl_log.append(path, {"step": 1})
    assert path.read_bytes() == b'{"step": 1}\n'

"""A source that is replaced, cut or removed while it is read is noticed within the run, and nothing of it is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from curation.engine.execution.executors import RunFailed
from curation.engine.tasks.source_changes import check_unchanged
from curation.step import InputSplit
from tests.curation.engine import tiny

# A reader that does something to the file once it has read the first batch of it
STEP = (
    tiny.STEP
    + """

from curation.sources.text.text import TextReader


@dataclass
class Disturbed(TextReader):
    how: str = ""

    def read(self, piece, root, *, collection, domain, rows):
        path = os.path.join(root, piece.path)
        for number, batch in enumerate(super().read(piece, root, collection=collection, domain=domain, rows=rows)):
            yield batch
            if number == 0 and piece.path == "b.jsonl":
                if self.how == "replaced":
                    with open(path + ".new", "wb") as f:
                        f.write(open(path, "rb").read())
                    os.replace(path + ".new", path)
                elif self.how == "appended":
                    with open(path, "ab") as f:
                        f.write(b'{"id": "late", "text": "written while it was read"}\\n')
                elif self.how == "removed":
                    os.unlink(path)
"""
)


@pytest.mark.parametrize("how", ["replaced", "appended", "removed"])
def test_a_file_that_changes_while_it_is_read_stops_the_run_and_the_next_one_reads_it_anew(
    tmp_path: Path, how: str
) -> None:
    tiny.write_input(tmp_path / "in", files=3)
    file = tiny.write_pipeline(tmp_path)
    (tmp_path / "steps.py").write_text(STEP)
    quiet = file.read_text()
    file.write_text(quiet.replace("read: text,", f"read: {tmp_path}/steps.py:Disturbed, how: {how},"))
    before = (tmp_path / "in" / "b.jsonl").read_bytes()
    with pytest.raises(RunFailed, match=r"b\.jsonl was replaced while the run read it: listed with [\d,]+ bytes"):
        tiny.run(file, tmp_path / "run")
    assert not (tmp_path / "run" / "result").exists()
    if how == "removed":
        (tmp_path / "in" / "b.jsonl").write_bytes(before)
    os.utime(tmp_path / "in" / "b.jsonl", ns=(1, 1))
    file.write_text(quiet.replace("read: text,", f"read: {tmp_path}/steps.py:Disturbed,"))
    result = tiny.run(file, tmp_path / "run")
    assert result.status == "done" and result.counts["read"]["records"] == 72 + (how == "appended")
    tiny.run(file, tmp_path / "fresh")
    assert tiny.tree(tmp_path / "run") == tiny.tree(tmp_path / "fresh")


def test_a_file_that_stays_costs_one_stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_input(tmp_path / "in", files=3)
    asked: list[str] = []

    def counted(root: str, split: InputSplit) -> None:
        asked.append(split.path)
        check_unchanged(root, split)

    monkeypatch.setattr("curation.engine.tasks.input_rows.check_unchanged", counted)
    tiny.run(tiny.write_pipeline(tmp_path), tmp_path / "run")
    assert sorted(asked) == ["a.jsonl", "b.jsonl", "c.jsonl"]

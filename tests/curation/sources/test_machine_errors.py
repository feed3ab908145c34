"""Errors of disks and networks are no damage of a file: the task fails and is tried again, and nothing is left out."""

from __future__ import annotations

import errno
import gzip
import zipfile
from pathlib import Path
from typing import IO, Any

import pytest

from curation import storage
from curation.sources.books.epub import EpubReader
from curation.sources.code.code import CodeReader
from curation.sources.latex.latex import LatexReader
from curation.sources.machine_errors import raise_machine_error
from curation.step import InputSplit
from tests.curation.sources.books.test_epub import FILES as BOOK
from tests.curation.sources.books.test_epub import archive
from tests.curation.sources.latex.test_latex import FILES as PAPER
from tests.curation.sources.latex.test_latex import tar

CODE = {"tool/LICENSE": b"MIT License", "tool/main.py": b"print(1)\n", "tool/lib.py": b"x = 1\n"}


class Failing:
    """A file whose disk fails at the n-th read."""

    def __init__(self, file: IO[bytes], reads: int, error: OSError) -> None:
        self._file, self._left, self._error = file, reads, error

    def read(self, *size: int) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._file.read(*size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), TimeoutError(), ConnectionError("reset")])
@pytest.mark.parametrize("form", ["epub", "latex", "zip of code"])
def test_a_read_that_fails_is_no_damage_wherever_it_fails(
    form: str, error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader: Any = {"epub": EpubReader, "latex": LatexReader, "zip of code": CodeReader}[form]()
    data = {"epub": archive(BOOK), "latex": tar(PAPER), "zip of code": archive(CODE)}[form]
    (tmp_path / "a").write_bytes(data)
    opened, part = storage.open_input, InputSplit("a", len(data), "")

    def read() -> list[Any]:
        return list(reader.read(part, str(tmp_path), collection="c", domain="d", rows=8))

    whole = read()
    for reads in range(1_000):
        monkeypatch.setattr(storage, "open_input", lambda *a, n=reads, **k: Failing(opened(*a, **k), n, error))
        try:
            assert read() == whole
            break
        except OSError as raised:
            assert raised is error
    assert reads > 5


def test_damage_has_no_number_or_that_of_a_place_which_is_none() -> None:
    for damage in (OSError("not a gzip"), gzip.BadGzipFile("x"), OSError(errno.EINVAL, "seek"), zipfile.BadZipFile()):
        raise_machine_error(damage)
    try:
        try:
            raise OSError(errno.EIO, "disk")
        except OSError:
            raise zipfile.BadZipFile from None  # as zipfile does where it looks for the end of an archive
    except zipfile.BadZipFile as hidden:
        with pytest.raises(OSError, match="disk"):
            raise_machine_error(hidden)

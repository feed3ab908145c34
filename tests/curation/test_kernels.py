"""Kernels compile once, and their cache is of the sources of a whole folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation import kernels


def test_a_kernel_is_compiled_when_it_is_defined() -> None:
    @kernels.kernel("int64(int64)")
    def twice(x):  # type: ignore[no-untyped-def]
        return 2 * x

    assert twice(21) == 42 and len(twice.signatures) == 1  # type: ignore[attr-defined]


def test_a_change_in_the_folder_changes_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    folders = []
    for text in ("a = 1\n", "a = 2\n"):
        (tmp_path / "constants.py").write_text(text)
        kernels._cache_directory.cache_clear()
        folders.append(kernels._cache_directory(str(tmp_path)))
    kernels._cache_directory.cache_clear()
    assert None not in folders and folders[0] != folders[1]

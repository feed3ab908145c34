"""KenLM binaries: equal scores, one conversion a machine, and what is said where there is no tool."""

from __future__ import annotations

import os
import shutil
import stat
import warnings
from pathlib import Path

import pytest

from curation import models
from curation.core.errors import UserError
from curation.quality.ngram import estimate
from curation.quality.perplexity import kenlm_binary, kenlm_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of models, and nothing on PATH but the tools of the system."""
    monkeypatch.setenv("GRISTMILL_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def arpa(data: Path, tmp_path: Path) -> str:
    out = str(tmp_path / "m.arpa")
    estimate.train_ngram([str(data / "lm/wikitext2_valid.txt")], 3, out)
    return out


@pytest.fixture
def tool() -> str:
    found = kenlm_binary.find_build_binary()
    if found is None:
        pytest.skip("no build_binary on PATH nor in the cache; `gristmill models binary` makes it")
    return found


def test_a_binary_scores_as_its_arpa(arpa: str, tool: str, tmp_path: Path) -> None:
    out = str(tmp_path / "m.bin")
    kenlm_binary.convert_to_binary(arpa, out, tool)
    assert kenlm_binary.is_binary(out) and not kenlm_binary.is_binary(arpa)
    assert Path(out + ".sha256").read_text().split()[0] == models.sha256(out)
    a, b = kenlm_model.load_kenlm(arpa), kenlm_model.load_kenlm(out)
    for line in ("the mill", "a b c", "of the in a", ""):
        assert a.score(line) == b.score(line)


def test_a_large_arpa_is_converted_once(
    arpa: str, tool: str, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert kenlm_binary.cached_binary(arpa) == arpa  # small: left alone
    monkeypatch.setattr(kenlm_binary, "_SMALL_ARPA_BYTES", 0)
    monkeypatch.setattr(kenlm_binary, "find_build_binary", lambda: tool)
    made = kenlm_binary.cached_binary(arpa)
    assert made == str(cache / "kenlm" / (models.sha256(arpa) + ".binary"))
    monkeypatch.setattr(kenlm_binary, "find_build_binary", lambda: None)
    assert kenlm_binary.cached_binary(arpa) == made and kenlm_binary.cached_binary(made) == made
    with open(made, "ab") as file:  # damaged: not what is opened
        file.write(b"x")
    with pytest.warns(UserWarning, match="each process parses it"):
        assert kenlm_binary.cached_binary(arpa) == arpa


def test_without_tool_and_compiler(data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"no C\+\+ compiler"):
        kenlm_binary.compile_build_binary()
    out = str(tmp_path / "m.bin")
    with pytest.warns(UserWarning, match=r"is an ARPA file, not a KenLM binary.*no C\+\+ compiler"):
        made = estimate.train_ngram([str(data / "lm/wikitext2_valid.txt")], 2, out)
    assert (
        made.path == out
        and sorted(os.listdir(tmp_path)) == ["m.bin", "m.bin.json"]
        and kenlm_model.load_kenlm(out).order == 2
    )


def test_what_build_binary_refuses(tmp_path: Path, tool: str) -> None:
    bad = tmp_path / "bad.arpa"
    bad.write_text("hello")
    with pytest.raises(UserError, match=r"bad\.arpa: .* cannot convert it to a binary: .*hello"):
        kenlm_binary.convert_to_binary(str(bad), str(tmp_path / "bad.bin"), tool)
    assert os.listdir(tmp_path) == ["bad.arpa"]


@pytest.mark.slow
def test_the_tool_is_built_from_its_sources(arpa: str, cache: Path, tmp_path: Path) -> None:
    """Needs a package index and a compiler: what a person with neither KenLM nor its tools has to begin with."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")
    try:
        tool = kenlm_binary.compile_build_binary()
    except UserError as e:
        if "pip cannot bring" in str(e):
            pytest.skip(str(e))
        raise
    assert kenlm_binary.compile_build_binary() == tool and os.stat(tool).st_mode & stat.S_IXUSR
    out = str(tmp_path / "m.bin")
    kenlm_binary.convert_to_binary(arpa, out)
    assert kenlm_binary.is_binary(out)
    Path(tool).write_text("#!/bin/sh\n")  # tampered with: built again, never run
    models._known.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kenlm_binary.find_build_binary() is None or kenlm_binary.find_build_binary() != tool

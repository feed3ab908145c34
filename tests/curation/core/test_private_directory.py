"""Directories of this user alone: made so, and taken only if they are so; nothing is written through a planted link."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curation import kernels
from curation.core import atomic_files, private_directory
from curation.core.errors import UserError
from curation.core.private_directory import NotPrivateError
from curation.engine.runtime import lock
from curation.safety.decontamination import ngram_index
from curation.safety.decontamination.benchmark_items import Unit
from curation.storage import Storage

UNITS = [Unit("set", 0, "question", "one two three four five six seven eight nine ten eleven twelve thirteen")]


def test_it_is_made_for_this_user_alone(tmp_path: Path) -> None:
    path = private_directory.private_directory(str(tmp_path / "a" / "b"))
    assert [p.stat().st_mode & 0o777 for p in (tmp_path / "a", Path(path))] == [0o700, 0o700]
    assert private_directory.private_directory(path) == path


@pytest.mark.parametrize("planted", ["link", "file", "open", "foreign"])
def test_what_another_user_may_have_planted_is_refused(
    tmp_path: Path, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "taken"
    if planted == "link":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    elif planted == "file":
        path.write_text("")
    else:
        path.mkdir()
        path.chmod(0o777 if planted == "open" else 0o700)
    if planted == "foreign":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(NotPrivateError, match=r"taken (is a link|belongs to another|can be written by other)"):
        private_directory.private_directory(str(path))


def test_a_planted_link_overwrites_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's name in /tmp can be guessed: it held links to files of the user, named as what is written there."""
    victim = tmp_path / "victim"
    victim.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"gristmill-{os.geteuid()}").symlink_to(victim)
    index = ngram_index.once_a_machine("0" * 64, lambda: ngram_index.build_index(UNITS, 13))
    assert len(index.units) == 1 and list(victim.iterdir()) == []

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    (tmp_path / "kernels").mkdir(mode=0o777)
    kernels._cache_directory.cache_clear()
    made = kernels._cache_directory(kernels.__file__)
    assert made is not None and os.stat(made).st_mode & 0o777 == 0o700
    os.chmod(made, 0o777)  # anybody could have put machine code there
    kernels._cache_directory.cache_clear()
    assert kernels._cache_directory(kernels.__file__) is None
    kernels._cache_directory.cache_clear()

    secret = tmp_path / "secret"
    secret.write_text("keep")
    (tmp_path / "file.json.tmp").symlink_to(secret)
    atomic_files.write(tmp_path / "file.json", b"{}")
    assert (tmp_path / "file.json").read_text() == "{}"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(secret)
    with pytest.raises(UserError, match="cannot write to the run directory"), lock.hold(Storage(str(tmp_path / "run"))):
        pass
    assert secret.read_text() == "keep"


def test_torch_keeps_compiled_code_in_the_users_cache(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"}
    program = "import training.model, os; print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    said = subprocess.check_output(
        [sys.executable, "-c", program], env=environment | {"XDG_CACHE_HOME": str(tmp_path)}, text=True
    )
    assert said.strip() == str(tmp_path / "gristmill" / "torchinductor")

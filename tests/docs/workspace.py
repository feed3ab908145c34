"""The folder in which the commands of the guide run: a small crawl, other texts, a finished run and a training on it.

Its pages are paragraphs of the guide itself, so it needs no data beside the checkout. Names are those that pages use.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import HANG
from tests.docs.pages import ROOT, blocks

SHIM = """#!/bin/sh
# Pages say `gristmill curate ...`, which starts Ray. Here one process does it: the result is the same to the byte,
# which other tests show, and a page takes seconds.
case "$1 $*" in
  *--executor*|*--address*) ;;
  "curate "*|"delete "*|"demo "*) set -- "$@" --executor inline ;;
esac
exec {python} -m pipelines.cli "$@"
"""


def paragraphs() -> list[str]:
    """Prose of the pages under docs/: what is left without code, tables and headings, in runs of 120 words or more."""
    found: list[str] = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        text = re.sub(r"<!--.*?-->|[`*_]|\]\([^)]*\)|\[", "", text, flags=re.S)
        part: list[str] = []
        for paragraph in re.split(r"\n\s*\n", text):
            if paragraph.lstrip().startswith(("#", "|", "-")):
                continue
            part.append(" ".join(paragraph.split()))
            if sum(len(p.split()) for p in part) >= 120:
                found.append("\n\n".join(part))
                part = []
    return found


def build(folder: Path) -> None:
    """Writes the folder: crawl/, news.jsonl, books/, good/, sample/, eval/, web.yaml, small.yaml, my_steps.py."""
    from curation import models

    models.pull("lid.176")  # what a pipeline names has to be there before it runs
    texts = paragraphs()
    assert len(texts) > 40, "the guide has become too short to be its own test data"
    (folder / "crawl").mkdir(parents=True)
    urls = ["https://example.com/page", "https://mill.org/4", "https://example.org/private"]
    pages = [(url, texts[i]) for i, url in enumerate(urls)]
    pages[1] = (urls[1], texts[1] + "\n\nWrite to miller@sawmill.org or to 10.0.0.1, and 85.214.7.9 answers.")
    pages += [(f"https://mill.org/page/{i}", t) for i, t in enumerate(texts[3:])]
    pages += [(f"https://mill.org/copy/{i}", texts[i]) for i in range(3, 9)]
    pages += [(f"https://mill.org/near/{i}", texts[i] + "\n\nPrinted from the mill's pages.") for i in range(9, 15)]
    half = len(pages) // 2
    write_warc(folder / "crawl" / "a.warc.gz", pages[:half])
    write_warc(folder / "crawl" / "b.warc.gz", pages[half:])
    for name, part in (("books", texts[:20]), ("good", texts[20:40]), ("sample", texts[40:])):
        (folder / name).mkdir()
        lines = [json.dumps({"text": t, "url": f"https://{name}.org/{i}"}) + "\n" for i, t in enumerate(part)]
        (folder / name / "0.jsonl").write_text("".join(lines))
    (folder / "eval").mkdir()
    (folder / "eval" / "questions.jsonl").write_text(json.dumps({"question": texts[30], "answer": "no"}) + "\n")
    for page, name in (("own-crawl.md", "web.yaml"), ("training.md", "small.yaml"), ("step.md", "my_steps.py")):
        block = next(b for b in blocks(ROOT / "docs" / page) if b.file == name)
        (folder / name).write_text(block.text)


def write_warc(path: Path, pages: list[tuple[str, str]]) -> None:
    """An archive as a crawler writes it."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with open(path, "wb") as f:
        writer = WARCWriter(f, gzip=True)
        for i, (url, text) in enumerate(pages):
            body = "".join(f"<p>{p}</p>" for p in text.replace("&", "&amp;").replace("<", "&lt;").split("\n\n"))
            html = f"<html><head><title>Page</title></head><body><main>{body}</main></body></html>"
            headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], "HTTP/1.1")
            writer.write_record(
                writer.create_warc_record(
                    url, "response", payload=io.BytesIO(html.encode()), http_headers=headers,
                    warc_headers_dict={
                        "WARC-Record-ID": f"<urn:x:{path.name}:{i}>", "WARC-Date": "2026-01-05T10:00:00Z",
                    },
                )
            )  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    """A clean one, with the `gristmill` command of this checkout on its path."""
    bin_ = folder / ".bin"
    if not bin_.exists():
        bin_.mkdir()
        (bin_ / "gristmill").write_text(SHIM.format(python=sys.executable))
        (bin_ / "gristmill").chmod(0o755)
    kept = {k: os.environ[k] for k in ("HOME", "GRISTMILL_MODELS", "TMPDIR") if k in os.environ}
    return kept | {
        "PATH": f"{bin_}:{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8",
        "COLUMNS": "100", "GRISTMILL_PII_KEY": "00" * 32,
    }  # fmt: skip


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script in the folder; stdout and stderr together."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment(folder), text=True, timeout=HANG,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def copy(workspace: Path, to: Path) -> Path:
    """A copy of the folder for one page."""
    shutil.copytree(workspace, to, ignore=shutil.ignore_patterns(".bin"))
    return to

"""Crawls Python's own documentation server (pydoc) and writes WARC files: the web part of the demo's corpus.

A real crawl on a small scale: pages over HTTP on loopback with navigation, boilerplate and near-duplicates; request and
response records; several files. Only the host name is made up (`pydoc.localhost`), so that URLs contain no random port.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import pkgutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

HOST = "pydoc.localhost"
_DATE = "2024-01-01T00:00:00Z"  # fixed: the same installation gives the same bytes
_TIMEOUT = 20.0  # seconds per page; a slower page is skipped and listed in the manifest
_LARGEST = 400_000  # bytes of a page; modules such as `errno` list thousands of constants
_PER_PACKAGE = 60

# Packages that import without side effects in well under a second; missing ones are skipped.
PACKAGES = """
attr annotated_types certifi charset_normalizer click fsspec idna jinja2 markdown_it markupsafe mpmath numpy orjson
packaging pathspec psutil pyarrow pydantic pydantic_core pygments regex requests rich sortedcontainers tqdm typer
typing_extensions urllib3 warcio wrapt xxhash yaml zstandard
"""
# Modules that do something when imported (open a browser, print, start an interpreter, need a display), or are private.
_REFUSED_MODULES = """
this antigravity idlelib turtledemo turtle tkinter lib2to3 msilib winreg winsound nt ntpath test tests testing
conftest setup site sitecustomize usercustomize pip ensurepip crypt distutils f2py nis ossaudiodev spwd audioop
pydoc_data ipython jupyter notebook ext contrib emscripten webbrowser sys
"""
_REFUSED = frozenset(_REFUSED_MODULES.split())


@dataclass(frozen=True)
class Crawled:
    """The result of a crawl: pages, bytes of HTML, and the paths that gave no page."""

    pages: int
    bytes: int
    skipped: tuple[str, ...]


def modules() -> list[str]:
    """Modules to visit, in the order of a hash of the name: the first N are a random sample. Imports nothing."""
    names = []
    for top in (*sorted(sys.stdlib_module_names), *PACKAGES.split()):
        if top.startswith("_") or top in _REFUSED:
            continue
        spec = PathFinder.find_spec(top)
        if spec is None and top not in sys.builtin_module_names:
            continue
        found = [top, *_submodules(top, list(spec.submodule_search_locations or []) if spec else [])]
        names += sorted(found, key=_order)[:_PER_PACKAGE]
    return sorted(names, key=_order)


def _submodules(package: str, locations: list[str]) -> Iterator[str]:
    for info in pkgutil.iter_modules(locations):
        if info.name.startswith(("_", "test")) or info.name in _REFUSED:
            continue
        name = f"{package}.{info.name}"
        yield name
        if info.ispkg:
            yield from _submodules(name, [str(Path(location, info.name)) for location in locations])


def _order(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def paths() -> list[str]:
    """URL paths to visit: pydoc's indexes, its language reference by topic and keyword, then modules."""
    import keyword
    from pydoc_data.topics import topics

    reference = [f"topic?key={name}" for name in sorted(topics)]
    words = [f"topic?key={name}" for name in sorted(keyword.kwlist) if name not in topics]
    return ["index.html", "topics.html", "keywords.html", *reference, *words, *(f"{name}.html" for name in modules())]


def crawl(folder: Path, *, pages: int, size: int, files: int) -> Crawled:
    """Writes `files` WARC files (pydoc-00.warc.gz, ...) with up to `pages` pages and about `size` bytes of HTML."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    count, total, skipped = 0, 0, []
    with contextlib.ExitStack() as stack:
        writers = []
        for i in range(files):
            name = f"pydoc-{i:02}.warc.gz"
            writers.append(WARCWriter(stack.enter_context(open(folder / name, "wb")), gzip=True))
            writers[-1].write_record(_info(writers[-1], name))
        server = stack.enter_context(contextlib.closing(_Server()))
        for path in paths():
            if count >= pages or total >= size:
                break
            try:
                status, reason, headers, body = server.get("/" + path)
            except (OSError, http.client.HTTPException):
                skipped.append(path)
                server.restart()
                continue
            if len(body) > _LARGEST:
                skipped.append(path)
                continue
            url = f"http://{HOST}/{path}"
            response = StatusAndHeaders(f"{status} {reason}", headers, protocol="HTTP/1.0")
            asked = StatusAndHeaders(
                f"GET /{path} HTTP/1.1", [("Host", HOST), ("Accept-Encoding", "identity")], is_http_request=True
            )
            writer = writers[count % files]
            for kind, head, payload in (("response", response, body), ("request", asked, b"")):
                fields = {"WARC-Record-ID": _record_id(f"{kind} {url}"), "WARC-Date": _DATE}
                record = writer.create_warc_record(
                    url, kind, io.BytesIO(payload), len(payload), warc_headers_dict=fields, http_headers=head
                )
                writer.write_record(record)
            count += 1
            total += len(body)
    return Crawled(count, total, tuple(skipped))


def _info(writer: Any, name: str) -> Any:
    record = writer.create_warcinfo_record(name, {"software": "gristmill", "format": "WARC File Format 1.0"})
    record.rec_headers.replace_header("WARC-Record-ID", _record_id(name))
    record.rec_headers.replace_header("WARC-Date", _DATE)
    return record


def _record_id(name: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}>"


class _Server:
    """pydoc's server in its own process, with a client."""

    def __init__(self) -> None:
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        # -P keeps this folder off sys.path. A minimal environment, since pages such as that of `os` print it, and a
        # fixed hash seed, since some pages print sets.
        program = str(Path(__file__).with_name("pydoc_server.py"))
        keep = {k: v for k, v in os.environ.items() if k in ("LD_LIBRARY_PATH", "SYSTEMROOT")}
        environment = {**keep, "PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/"}
        process = subprocess.Popen(
            [sys.executable, "-P", "-B", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd="/",
        )
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            process.kill()
            raise RuntimeError("Python's pydoc server did not start; try: python -m pydoc -p 0")
        self.port = int(line)
        return process

    def get(self, path: str) -> tuple[int, str, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT)
        try:
            connection.request("GET", path, headers={"Host": HOST, "Accept-Encoding": "identity"})
            response = connection.getresponse()
            return response.status, response.reason, response.getheaders(), response.read()
        finally:
            connection.close()

    def restart(self) -> None:
        self.close()
        self.process = self._start()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

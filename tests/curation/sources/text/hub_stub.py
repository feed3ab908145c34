"""A stand-in for the Hugging Face hub's HTTP interface on loopback: repository, tree, paths-info and ranges of files.

As https://huggingface.co/docs/hub/api and the requests of huggingface_hub describe it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz0123"
TEXTS = [f"The mill turns for the {i}th time, and flour falls into sack {i}." for i in range(60)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Serves one dataset. `requests`: method, path and authorization of each."""

    def __init__(self, repo: str, files: Mapping[str, bytes], token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repo, self.files, self.token = repo, dict(files), token
        self.requests: list[tuple[str, str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def entry(self, path: str) -> dict[str, Any]:
        data = self.files[path]
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def tree(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        start = f"{folder}/" if folder else ""
        below = [p for p in sorted(self.files) if p.startswith(start)]
        folders = {p[: i + len(start)] for p in below for i, c in enumerate(p[len(start) :]) if c == "/"}
        found = [{"type": "directory", "path": f, "size": 0, "oid": COMMIT} for f in sorted(folders)]
        found += [self.entry(p) for p in below]
        return [e for e in found if recursive or "/" not in e["path"][len(start) :]]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, url = self.server, urlsplit(self.path)
        path = unquote(url.path)
        authorization = self.headers.get("authorization", "")
        hub.requests.append((self.command, self.path, authorization))
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        api, files = f"/api/datasets/{hub.repo}", f"/datasets/{hub.repo}/resolve/main/"
        if authorization != f"Bearer {hub.token}" or not path.startswith((api, files)):
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such repository"})
        elif path.startswith(f"{api}/tree/main"):
            folder = path.removeprefix(f"{api}/tree/main").strip("/")
            self._json(hub.tree(folder, "recursive=true" in url.query.lower()))
        elif path == f"{api}/paths-info/main":
            wanted = json.loads(body)["paths"] if body[:1] == b"{" else [unquote(body.decode().partition("=")[2])]
            self._json([hub.entry(p) for p in wanted if p in hub.files])
        elif path.startswith(files):
            self._file(hub.files.get(path.removeprefix(files)))
        else:
            self._json({"id": hub.repo, "sha": COMMIT, "siblings": [], "private": True, "tags": [], "downloads": 0})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, data: bytes | None) -> None:
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        asked = self.headers.get("range", "")
        if not asked:
            self._send(200, data, {"X-Repo-Commit": COMMIT, "ETag": '"x"'})
            return
        first, last = (int(n) for n in asked.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        self._send(206, part, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _parquet(texts: list[str]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "id": list(range(len(texts)))}), out, row_group_size=10)
    return out.getvalue()


@contextlib.contextmanager
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A private dataset, `mills/flour`, served by a thread of this process, which uses no other hub meanwhile."""
    from huggingface_hub import HfFileSystem, constants

    files = {
        "README.md": b"---\nlicense: odc-by\npretty_name: Mills\n---\n# Mills\n\nA dataset about mills.\n",
        ".gitattributes": b"*.parquet filter=lfs",
        "data/train-00000-of-00001.parquet": _parquet(TEXTS[:40]),
        "extra/more.jsonl": "".join(json.dumps({"text": t}) + "\n" for t in TEXTS[40:]).encode(),
    }
    hub = Hub("mills/flour", files, TOKEN)
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    HfFileSystem.clear_instance_cache()
    try:
        yield hub
    finally:
        HfFileSystem.clear_instance_cache()
        hub.shutdown()
        hub.server_close()

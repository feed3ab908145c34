"""Serves Python's own documentation (pydoc) over HTTP, in its own process, for the demo's crawl.

Prints its port and serves until its standard input closes, so that it never outlives the crawler. pydoc imports what
it documents, which is why it gets its own process and environment: the crawler asks only for modules without side
effects, and a crash costs one page.

Pages must be the same bytes on every run, so object addresses are removed (as in pydoc's own listings) and the Date
header is fixed.
"""

from __future__ import annotations

import builtins
import http.server
import os
import pydoc
import re
import sys
import warnings

_ADDRESS = re.compile(r"(?: |&nbsp;)at(?: |&nbsp;)0x[0-9a-fA-F]{6,16}")
_DATE = "Mon, 01 Jan 2024 00:00:00 GMT"


def _page(path: str, content_type: str) -> str:
    handler = pydoc._url_handler  # type: ignore[attr-defined]
    return _ADDRESS.sub("", handler(path, content_type))


def serve() -> None:
    """Serves until standard input ends."""
    warnings.simplefilter("ignore")
    http.server.BaseHTTPRequestHandler.date_time_string = lambda self, timestamp=None: _DATE  # type: ignore[method-assign]
    thread = pydoc._start_server(_page, "127.0.0.1", 0)  # type: ignore[attr-defined]
    if thread.error:
        raise SystemExit(f"pydoc: {thread.error}")
    out = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (modules print as they are imported)
    builtins.input = lambda prompt="": ""
    out.write(f"{thread.port}\n")
    out.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    serve()

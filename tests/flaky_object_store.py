"""An S3 server (moto) on loopback that answers SlowDown, or breaks the connection, on a share of its requests.

    python -m tests.flaky_object_store SHARE SEED

Prints its port, then serves until its input ends; then prints how many requests it had, refused and reset.
"""

from __future__ import annotations

import logging
import random
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message><RequestId>0</RequestId></Error>"""


class Flaky:
    """A WSGI application that answers for another one, but for a share of requests: half SlowDown, half reset."""

    def __init__(self, app: Callable[..., Iterable[bytes]], share: float, seed: int) -> None:
        self.app, self.share = app, share
        self.random = random.Random(seed)
        self.counts = {"requests": 0, "refused": 0, "reset": 0}
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self.lock:
            self.counts["requests"] += 1
            fate = self.random.random()
            kind = "refused" if fate < self.share / 2 else "reset" if fate < self.share else ""
            if kind:
                self.counts[kind] += 1
        if kind == "refused":
            start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Connection", "close")])
            return [SLOW_DOWN]
        if kind == "reset":
            connection = environ["werkzeug.socket"]
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("on purpose")
        return self.app(environ, start_response)


def main() -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    app = Flaky(DomainDispatcherApplication(create_backend_app), float(sys.argv[1]), int(sys.argv[2]))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
    print(app.counts, flush=True)


if __name__ == "__main__":
    main()

"""A step that opens a socket ends the run with its name, however it does so and whether or not it hides it.

Covers: run_steps.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.engine.execution.executors import RunFailed
from tests.curation.engine import runs

STEP = '''
import socket
import urllib.request
from dataclasses import dataclass
import pyarrow as pa
from curation import document
from curation.step import MapStep

@dataclass
class Curious(MapStep):
    """Asks the network, and makes do without it."""
    way: str = "url"
    name: str = "curious"
    signals = property(lambda self: pa.schema([("n", pa.int64())]))

    def __call__(self, batch):
        n = 0
        try:
            if self.way == "url":
                urllib.request.urlopen("http://127.0.0.1:9/", timeout=1)
            elif self.way == "name":
                socket.gethostbyname("localhost")
            elif self.way == "datagram":
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                    s.sendto(b"what is new?", ("127.0.0.1", 9))
            elif self.way == "connect":
                socket.create_connection(("127.0.0.1", 9), timeout=1)
        except Exception:
            n = 1
        values = pa.array([n] * batch.num_rows, pa.int64())
        return document.with_column(batch, self.name, pa.StructArray.from_arrays([values], fields=list(self.signals)))

@dataclass
class CuriousScrub(Curious):
    """The same while it scrubs what else is stored."""
    way: str = ""
    name: str = "scrubs"
    scrubs = True

    def scrub(self, strings):
        try:
            socket.getaddrinfo("localhost", 80)
        except Exception:
            pass
        return strings
'''


@pytest.mark.parametrize("way", ["url", "name", "datagram", "connect", "scrub"])
def test_a_step_that_opens_a_socket_is_named_even_if_it_hides_it(tmp_path: Path, way: str) -> None:
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", [{"text": "The brook turns the mill.", "url": "u"}])
    (tmp_path / "curious.py").write_text(STEP)
    step = "curious.py:CuriousScrub" if way == "scrub" else {"curious.py:Curious": {"way": way}}
    tree = runs.text_pipeline(tmp_path, steps=[step])
    with pytest.raises(RunFailed) as error:
        runs.curate(tmp_path, tree)
    name = "scrubs" if way == "scrub" else "curious"
    assert f"SocketOpened: the step {name} opens a socket (socket." in str(error.value)
    assert "which a step must not do" in str(error.value)
    assert not (tmp_path / "run" / "result").exists()


def test_a_step_that_does_not_is_left_alone(tmp_path: Path) -> None:
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", [{"text": "The brook turns the mill."}])
    (tmp_path / "curious.py").write_text(STEP)
    tree = runs.text_pipeline(tmp_path, steps=[{"curious.py:Curious": {"way": "none"}}])
    assert runs.curate(tmp_path, tree).computed == {"curious": 1}

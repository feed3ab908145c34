"""presidio comes alone: what it would load for engines that nobody uses stays out, and stays importable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]

OPEN = """
import json, sys
import pyarrow as pa
{first}
from curation.safety.pii.pii import Pii
step = Pii()
step.check()
step.open()
batch = step(pa.record_batch({{"text": pa.array(["mail anna.berg@gmail.com"], pa.large_string())}}))
names = [name for name in ("torch", "transformers", "stanza") if name in sys.modules]
loaded, hidden = ([name for name in names if (sys.modules[name] is None) == none] for none in (False, True))
print(json.dumps([loaded, hidden, batch.column("text").to_pylist()]))
"""


def run(first: str = "") -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", OPEN.format(first=first)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_opening_the_step_loads_neither_torch_nor_transformers() -> None:
    loaded, hidden, texts = run()
    assert loaded == [] and hidden == [], "and nothing is hidden from anyone afterwards"
    assert "gmail.com" not in texts[0]


def test_what_is_loaded_already_stays() -> None:
    loaded, hidden, texts = run("import types; torch = sys.modules['torch'] = types.ModuleType('torch')")
    assert loaded == ["torch"] and hidden == [] and "gmail.com" not in texts[0]

"""What a run shows: rates by bytes, plain lines off a terminal, silence when asked for."""

from __future__ import annotations

import io

from rich.console import Console

from pipelines.monitor import progress


def shown(monkeypatch, ticks, **options) -> str:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    with progress.ProgressDisplay(Console(file=out, width=200), **options) as display:
        display.phase("0: read", 4, 1, [size for _, size in ticks])
        for i, (seconds, size) in enumerate(ticks):
            display.start(i, size, 1)
            clock[0] += seconds
            display.task({"in": 10, "out": 5, "index": i, "cost": {"seconds": seconds}}, size)
        display.note("a note [b]")
    return out.getvalue()


def test_plain_lines(monkeypatch):
    out = shown(monkeypatch, [(31.0, 500_000), (10.0, 1_500_000), (10.0, 1_000_000)]).splitlines()
    # 3 MB were left to do at the start; after 0.5 MB in 31 s another 2.5 MB take 155 s
    assert out[0] == "0: read: 2/4 tasks · 0.0 MB/s · 10 documents, 50% kept · 2 min 35 s left"
    assert out[1] == "a note [b]"
    assert out[2] == "✓ 0: read: 4/4 tasks · 0.1 MB/s · 30 documents, 50% kept in 51.0 s"


def test_quiet(monkeypatch):
    assert shown(monkeypatch, [(31.0, 500_000)], quiet=True) == "a note [b]\n"

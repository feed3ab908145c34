"""Formats bytes, durations and counts for people: 4.2 MB, 3 min 10 s, 12.3k."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Seconds as 4.2 s, 3 min 10 s or 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_bytes(count: float) -> str:
    """Bytes in decimal units: 4.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_count(count: float) -> str:
    """A count of tokens: 950, 12.3k, 4.56M, 1.2B."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:.0f}"

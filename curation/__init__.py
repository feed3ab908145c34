"""Crawled text in, tokenized shards out. Nothing heavy is imported until it is used."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "run"]


def __getattr__(name: str) -> Any:
    """`curation.run` and `curation.Run` (api.py) on first use: `import curation` stays as light as it was."""
    if name in ("Run", "run"):
        return getattr(importlib.import_module("curation.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

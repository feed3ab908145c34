"""Token shards in, a language model out. Nothing heavy is imported until it is used."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["dataset"]


def __getattr__(name: str) -> Any:
    """`training.dataset` (data/open_dataset.py) on first use: `import training` does not import torch."""
    if name == "dataset":
        return importlib.import_module("training.data.open_dataset").dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

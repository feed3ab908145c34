"""Imports presidio without the packages that it can do without."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Makes packages that are not imported yet seem not to be installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None there is an ImportError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@functools.cache
def import_presidio() -> None:
    """Imports presidio without what it can do without: with transformers and torch it takes 10 s of CPU, without 2.

    presidio loads transformers and stanza for engines that nobody uses here; spaCy loads torch for pipelines that need
    it, and then it is left to do so: where one is installed, or already imported.
    """
    wanted = any(importlib.util.find_spec(name) for name in ("spacy_transformers", "spacy_curated_transformers"))
    with _hidden("transformers", "stanza", *(() if wanted else ("torch",))):
        import presidio_analyzer
        import presidio_analyzer.nlp_engine  # noqa: F401

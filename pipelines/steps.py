"""The words of a pipeline file; they stand in `curation/catalogue.py`, so that `curation.run` knows them too."""

from __future__ import annotations

from curation.catalogue import READERS, STEPS

__all__ = ["READERS", "STEPS"]

"""Gives datatrove's LanguageFilter the language model that is on this machine.

It would download another model, insists on its own build of fastText, and hands it a single string, which fails under
numpy 2; nothing else is changed. Classes of a module, since its executors send blocks to other processes.
"""

from __future__ import annotations

from typing import Any

from datatrove.pipeline.filters import LanguageFilter

from curation import models


class OneLine:
    """fastText as datatrove calls it: a string in, labels and scores out."""

    model: Any = None  # loaded by the process that uses it: a fastText model cannot be pickled

    def predict(self, text: str, k: int) -> tuple[list[str], list[Any]]:
        self.model = self.model or models.load_fasttext("lid.176")
        labels, scores = self.model.predict([text], k=k)
        return labels[0], scores[0]


LanguageFilter._requires_dependencies = []  # gathered over all classes above


class EnglishFilter(LanguageFilter):  # type: ignore[misc]
    """FineWeb's: English from 0.65 on."""

    def __init__(self) -> None:
        super().__init__(["en"], language_threshold=0.65)
        self.model._model = OneLine()

"""The step `classifier`: scores documents with a fastText classifier of quality, or of anything else with labels.

DCLM's quality filter is one, trained on instruction-like text against crawl (Li et al. 2024, section 4.4). The text
goes to the model as one line; nothing is cut off. The pipeline file names the labels that become signals, since signals
must be known before any model is opened. train.py trains such models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation import document, models
from curation.core.errors import UserError
from curation.fasttext_classifier import LABEL_PREFIX, predict_labels, signal_name
from curation.step import MapStep


def to_one_line(text: str) -> str:
    """The text as fastText reads it, in training and in scoring: a newline would end it, and a word spelled like a
    label would count as one."""
    return text.replace("\n", " ").replace(LABEL_PREFIX, " ")


@dataclass
class Classifier(MapStep):
    """Signals: the probability of each label, float64 in [0, 1], under the label's name (`cc-low` becomes `cc_low`);
    null for text without a word. Over all labels of a softmax model they add up to 1; of a one-vs-all model they do
    not.

    model   path of a fastText classifier (`gristmill models train classifier` trains one) or a catalogue name
    labels  the labels that become signals, without `__label__`
    """

    model: str = ""
    labels: list[str] = field(default_factory=list)
    name: str = "classifier"
    _model: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([(signal_name(label), pa.float64()) for label in self.labels])

    def packages(self) -> Sequence[str]:
        return ("fasttext",)

    def models(self) -> Sequence[str]:
        return (self.model,) if self.model else ()

    def check(self) -> None:
        if not self.model:
            raise UserError(f"{self.name}: option `model` is missing; give the path of a fastText classifier")
        if not self.labels:
            raise UserError(f"{self.name}: option `labels` is empty; name the labels of {self.model} to use as signals")
        names = [signal_name(label) for label in self.labels]
        if len(set(names)) < len(names):
            raise UserError(f"{self.name}: labels {self.labels} give the signal names {names}, which must all differ")

    def open(self) -> None:
        model = models.load_fasttext(self.model)
        known = sorted(label.removeprefix(LABEL_PREFIX) for label in model.get_labels())
        unknown = [label for label in self.labels if label not in known]
        if unknown:
            shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            raise UserError(f"{self.name}: {self.model} has no label {', '.join(unknown)}; it has {shown}")
        self._model = model

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        found = label_probabilities(self._model, [text or "" for text in batch.column("text").to_pylist()])
        columns = [pa.array([row and row.get(label, 0.0) for row in found], pa.float64()) for label in self.labels]
        return document.with_column(batch, self.name, pa.StructArray.from_arrays(columns, fields=list(self.signals)))


def label_probabilities(model: Any, texts: Sequence[str]) -> list[dict[str, float] | None]:
    """For each text the probability of every label; None for a text without a word."""
    lines = [to_one_line(text) for text in texts]
    worded = [i for i, line in enumerate(lines) if not (line == "" or line.isspace())]
    out: list[dict[str, float] | None] = [None] * len(lines)
    for i, labels in zip(worded, predict_labels(model, [lines[i].encode() for i in worded]), strict=True):
        out[i] = dict(labels)
    return out

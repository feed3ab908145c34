"""Learned quality (or anything else with labels): a fastText classifier's probability of each label.

DCLM's recipe is one of these, trained on instruction-like text against crawl (Li et al. 2024, section 4.4). The text
goes to the model as one line, nothing cut. Which labels become signals is said in the pipeline file, since signals are
known before any model is opened; `classifier_train` makes models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation import document, models
from curation.core.errors import UserError
from curation.step import MapStep

PREFIX = "__label__"
_SIGNAL = re.compile(r"[^A-Za-z0-9_]")


def one_line(text: str) -> str:
    """The text as fastText is given it, in training and in scoring: a newline would end it, and a word that is spelled
    like a label would be taken for one."""
    return text.replace("\n", " ").replace(PREFIX, " ")


def signal_name(label: str) -> str:
    """A label as SQL can name it: what is no ASCII letter, digit or underscore becomes an underscore."""
    return _SIGNAL.sub("_", label)


@dataclass
class Classifier(MapStep):
    """Signals: for each label its probability, float64 in [0, 1], under the label's name (`cc-low` becomes `cc_low`);
    null for text without a word. They add up to 1 over all labels of a softmax model, not of a one-vs-all one.

    model   path of a fastText classifier (`gristmill models train classifier` makes one) or a catalogue name
    labels  those wanted, without `__label__`
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
            raise UserError(f"{self.name}: option `labels` is empty; name the labels of {self.model} that you want")
        names = [signal_name(label) for label in self.labels]
        if len(set(names)) < len(names):
            raise UserError(f"{self.name}: labels {self.labels} give the signals {names}, which are not all different")

    def open(self) -> None:
        model = models.load_fasttext(self.model)
        known = sorted(label.removeprefix(PREFIX) for label in model.get_labels())
        unknown = [label for label in self.labels if label not in known]
        if unknown:
            shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            raise UserError(f"{self.name}: {self.model} has no label {', '.join(unknown)}; it has {shown}")
        self._model = model

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        found = scores(self._model, [text or "" for text in batch.column("text").to_pylist()])
        columns = [
            pa.array([row and row.get(PREFIX + label, 0.0) for row in found], pa.float64()) for label in self.labels
        ]
        return document.with_column(batch, self.name, pa.StructArray.from_arrays(columns, fields=list(self.signals)))


def scores(model: Any, texts: Sequence[str]) -> list[dict[str, float] | None]:
    """For each text the probability of every label (with its prefix); None for a text without a word."""
    lines = [one_line(text) for text in texts]
    worded = [i for i, line in enumerate(lines) if not (line == "" or line.isspace())]
    out: list[dict[str, float] | None] = [None] * len(lines)
    if worded:
        labels, probabilities = model.predict([lines[i] for i in worded], k=-1)
        for i, names, values in zip(worded, labels, probabilities, strict=True):
            # fastText adds 1e-5 before its logarithm, so a certain label comes out above 1
            out[i] = {name: min(float(value), 1.0) for name, value in zip(names, values, strict=True)}
    return out

"""The step `ensemble`: combines several signals into one calibrated score by logistic regression.

    score = 1 / (1 + exp(-(b + sum over signals of w z + sum over absent signals of m)))

with z = (t(x) - mean) / deviation, where x is first clipped to the range seen in training, and t is whichever of x,
sign(x) log(1 + |x|) and log(x / (1 - x)) fitted the label best in training by itself. (The last is for probabilities:
from 0.99 to 0.999 is as far as from 0.5 to 0.91.) A signal that a document does not have (null or NaN) counts as the
mean, plus a weight m of its own. The model is a small, readable JSON file that train.py writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation import document, models
from curation.core.errors import UserError
from curation.step import MapStep

FORMAT = 1
TRANSFORMS = ("linear", "log", "logit")
_EDGE = 1e-5  # keeps the logit finite; fastText adds as much to a probability before its logarithm


@dataclass(frozen=True)
class Feature:
    """How the model uses one signal (`heuristics.words`)."""

    signal: str
    how: str  # t: one of TRANSFORMS
    low: float  # the range seen in training
    high: float
    mean: float  # after t
    deviation: float
    weight: float
    absent: float  # added where the signal is absent


@dataclass(frozen=True)
class Formula:
    """A fitted ensemble: intercept and features."""

    label: str
    intercept: float
    features: tuple[Feature, ...]

    def score(self, columns: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """The scores, (n,) in [0, 1]. columns: for each feature its values, (n,), NaN where absent.

        Summed feature by feature, element by element, so that a row's score does not depend on its batch.
        """
        total = np.full(len(columns[0]), self.intercept)
        for feature, values in zip(self.features, columns, strict=True):
            total += np.where(np.isnan(values), feature.absent, feature.weight * standardised(values, feature))
        probability: npt.NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(total, -700, 700)))
        return probability


def standardised(values: npt.NDArray[np.float64], feature: Feature) -> npt.NDArray[np.float64]:
    """z of the formula above; NaN stays NaN."""
    inside = np.clip(values, feature.low, feature.high)
    z: npt.NDArray[np.float64] = (transformed(inside, feature.how) - feature.mean) / feature.deviation
    return z


def transformed(values: npt.NDArray[np.float64], how: str) -> npt.NDArray[np.float64]:
    """t of the formula above: `linear`, `log` or `logit`."""
    out = values
    if how == "log":
        out = np.sign(values) * np.log1p(np.abs(values))
    elif how == "logit":
        inside = np.clip(values, _EDGE, 1 - _EDGE)
        out = np.log(inside) - np.log1p(-inside)
    return out


def column(batch: pa.RecordBatch | pa.Table, signal: str) -> npt.NDArray[np.float64]:
    """The values of a signal, by its dotted name, as float64: NaN for null, booleans as 0 and 1."""
    head, _, leaf = signal.partition(".")
    array = batch.column(head)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if leaf:
        array = pc.struct_field(array, leaf)
    values = array.cast(pa.int64()) if pa.types.is_boolean(array.type) else array
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


def load_formula(name_or_path: str) -> Formula:
    """Reads a model file. Raises UserError for a file that is not an ensemble."""
    path = models.resolve(name_or_path)
    try:
        with open(path, encoding="utf-8") as file:
            stored = json.load(file)
        if stored["format"] != FORMAT:
            raise UserError(f"model {name_or_path}: {path} has format {stored['format']}; this version reads {FORMAT}")
        features = tuple(Feature(**feature) for feature in stored["features"])
        numbers = [stored["intercept"], *(v for f in features for v in (f.low, f.high, f.mean, f.weight, f.absent))]
        sound = all(math.isfinite(v) for v in numbers) and all(
            f.deviation > 0 and f.how in TRANSFORMS for f in features
        )
        if not features or not sound:
            raise ValueError("it has no features, or a number that is not finite")
        return Formula(stored["label"], stored["intercept"], features)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"model {name_or_path}: {path} is not an ensemble written by `gristmill models train ensemble` ({e})"
        ) from e


@dataclass
class Ensemble(MapStep):
    """Signal: `score`, the probability of the label that the ensemble was fitted for, float64 in [0, 1].

    model  path of a JSON file that `gristmill models train ensemble` wrote. The steps whose signals it combines must
           come before this one, under the names they had in training
    """

    model: str = ""
    name: str = "ensemble"
    _formula: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        if not self.model:
            return ()
        return tuple(dict.fromkeys(f.signal.partition(".")[0] for f in self._model.features))

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([("score", pa.float64())])

    def models(self) -> Sequence[str]:
        return (self.model,) if self.model else ()

    def check(self) -> None:
        if not self.model:
            raise UserError(f"{self.name}: option `model` is missing; `gristmill models train ensemble` fits one")
        load_formula(self.model)

    @property
    def _model(self) -> Formula:
        if self._formula is None:
            self._formula = load_formula(self.model)
        formula: Formula = self._formula
        return formula

    def open(self) -> None:
        self._formula = load_formula(self.model)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        formula = self._model
        for feature in formula.features:
            head, _, leaf = feature.signal.partition(".")
            index = batch.schema.get_field_index(head)
            kind = batch.schema.field(index).type if index >= 0 else None
            if kind is None or (leaf and (not pa.types.is_struct(kind) or kind.get_field_index(leaf) < 0)):
                raise UserError(
                    f"{self.name}: {self.model} was fitted on {feature.signal}, which no earlier step computes"
                )
        scores = formula.score([column(batch, feature.signal) for feature in formula.features])
        struct = pa.StructArray.from_arrays([pa.array(scores, pa.float64())], fields=list(self.signals))
        return document.with_column(batch, self.name, struct)

"""Which language a document is in: the best label of a fastText classifier, and how sure it is of it.

The whole text goes to the model as one line, as CCNet and FineWeb do it, in batches; nothing is cut. The step decides
nothing: FineWeb's rule is `language.code = 'en' AND language.score >= 0.65`, CCNet's `language.score >= 0.5`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation import models, record
from curation.step import MapStep

_SIGNALS = pa.schema([("code", pa.string()), ("score", pa.float64())])
_LABEL = "__label__"


@dataclass
class Language(MapStep):
    """Signals: `code`, the model's label (lid.176: ISO 639-1, or 639-3 where there is none; GlotLID: `eng_Latn`), and
    `score`, its probability in [0, 1]. Text without a single word has neither: both are null.

    model  a name of the model catalogue, or the path of any fastText classifier with one label a language
    """

    model: str = "lid.176"
    name: str = "language"
    _model: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def signals(self) -> pa.Schema:
        return _SIGNALS

    def models(self) -> Sequence[str]:
        return (self.model,)

    def open(self) -> None:
        self._model = models.load_fasttext(self.model)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        # fastText ends a line at a newline and treats all other white space alike
        lines = [(text or "").replace("\n", " ") for text in batch.column("text").to_pylist()]
        codes: list[str | None] = [None] * len(lines)
        scores: list[float | None] = [None] * len(lines)
        spoken = [i for i, line in enumerate(lines) if not (line == "" or line.isspace())]
        if spoken:
            labels, probabilities = self._model.predict([lines[i] for i in spoken], k=1)
            for i, label, probability in zip(spoken, labels, probabilities, strict=True):
                if label:
                    codes[i] = label[0].removeprefix(_LABEL)
                    scores[i] = min(float(probability[0]), 1.0)  # fastText adds 1e-5 before its logarithm
        column = pa.StructArray.from_arrays(
            [pa.array(codes, pa.string()), pa.array(scores, pa.float64())], fields=list(_SIGNALS)
        )
        return record.with_column(batch, self.name, column)

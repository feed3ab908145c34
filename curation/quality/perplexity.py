"""How surprised a reference language model is by a document: KenLM's perplexity.

    value = 10 ^ ( - (sum over lines of log10 p(line </s> | <s>)) / tokens ),   tokens = words + lines

as in CCNet (Wenzek et al. 2020, section 3.3): each line is scored as a sentence of its own, its end counts as a token,
and the sum is taken over the document. Low is like the reference; very low is boilerplate. What a word is, is said once
for training and scoring, in ngram_text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation import models, record
from curation.quality.ngram_text import Form, normalise
from curation.step import MapStep, UserError

_SIGNALS = pa.schema([("value", pa.float64()), ("tokens", pa.int64())])


@dataclass
class Perplexity(MapStep):
    """Signals: `value`, the perplexity per token, null for a text without words; `tokens`, words and line ends scored.

    model  path of an ARPA file or a KenLM binary (`gristmill models train ngram` makes one)
    form   `words`: the model was trained by Gristmill's default; `spaces`: on text cut at white space, as lmplz does
    """

    model: str = ""
    form: Form = "words"
    name: str = "perplexity"
    _model: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def signals(self) -> pa.Schema:
        return _SIGNALS

    def models(self) -> Sequence[str]:
        return (self.model,) if self.model else ()

    def check(self) -> None:
        if not self.model:
            raise UserError(
                f"{self.name}: option `model` is missing; give the path of an ARPA file or KenLM binary "
                "(`gristmill models train ngram TEXT --order 5 --out X.arpa` makes one)"
            )

    def open(self) -> None:
        self._model = load(self.model)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        values: list[float | None] = []
        tokens: list[int] = []
        for text in batch.column("text").to_pylist():
            value, count = score(self._model, normalise(text or "", self.form))
            values.append(value)
            tokens.append(count)
        column = pa.StructArray.from_arrays(
            [pa.array(values, pa.float64()), pa.array(tokens, pa.int64())], fields=list(_SIGNALS)
        )
        return record.with_column(batch, self.name, column)


def load(name_or_path: str) -> Any:
    """A KenLM model, opened. Raises UserError for a file that is none."""
    import kenlm

    path = models.resolve(name_or_path)
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE  # its advice to convert to binary, on stderr
    try:
        return kenlm.Model(path, config)
    except (OSError, RuntimeError) as e:
        raise UserError(f"model {name_or_path}: {path} is neither an ARPA file nor a KenLM binary ({e})") from e


def score(model: Any, sentences: list[str]) -> tuple[float | None, int]:
    """(perplexity, tokens) of normalised sentences; (None, 0) of none."""
    if not sentences:
        return None, 0
    tokens = sum(line.count(" ") + 2 for line in sentences)  # one space between words, and the end of the line
    total = sum(model.score(line) for line in sentences)
    return 10.0 ** min(-total / tokens, 300.0), tokens  # an odd model's -99s must not overflow a float

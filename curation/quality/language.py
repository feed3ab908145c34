"""Which language a document is in: the best label of a fastText classifier, and how sure it is of it.

The whole text goes to the model as one line, as CCNet and FineWeb do it, in batches; nothing is cut. The step decides
nothing: FineWeb's rule is `language.code = 'en' AND language.score >= 0.65`, CCNet's `language.score >= 0.5`.

Two kinds of text need more than the best label. *Short* ones: on labelled sentences lid.176 is right, among the
languages it has, for 79 % of those under 20 characters, 85 % up to 40 and 89 to 92 % beyond; of those it gives 0.65 or
more, 90 %, 96 % and 98 % are right (benchmarks/language.py). So a rule for short texts should ask for `length(text)` as
well. *Mixed* ones: a page half English and half French gets one of the two and often a middling score.
The second label tells it from a page that is merely hard, and judging each paragraph by itself says
how much of the page is really in its language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation import document, models
from curation.step import MapStep

_LABEL = "__label__"
_LONG = 40  # characters of a paragraph that is judged; shorter ones (headings, links, names) are mostly guessed

_Found = tuple[tuple[str, float], ...]  # labels and probabilities, best first


@dataclass
class Language(MapStep):
    """Signals: `code`, the model's label (lid.176: ISO 639-1, or 639-3 where there is none; GlotLID: `eng_Latn`), and
    `score`, its probability in [0, 1]. Text without a single word has neither: both are null.

    model       a name of the model catalogue, or the path of any fastText classifier with one label a language
    second      further signals `second_code` and `second_score`: the label after the best, and its probability
    paragraphs  further signals: `paragraphs`, lines of 40 characters or more; of their characters, `same`, the share in
                lines that by themselves have the document's code; `other_code`, the code that most of the rest have,
                and `other_share`, its share. Null without such a line, the last two also where all lines agree
    """

    model: str = "lid.176"
    second: bool = False
    paragraphs: bool = False
    name: str = "language"
    _model: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def signals(self) -> pa.Schema:
        fields = [("code", pa.string()), ("score", pa.float64())]
        if self.second:
            fields += [("second_code", pa.string()), ("second_score", pa.float64())]
        if self.paragraphs:
            fields += [("paragraphs", pa.int64()), ("same", pa.float64())]
            fields += [("other_code", pa.string()), ("other_share", pa.float64())]
        return pa.schema(fields)

    def packages(self) -> Sequence[str]:
        return ("fasttext",)

    def models(self) -> Sequence[str]:
        return (self.model,)

    def open(self) -> None:
        self._model = models.load_fasttext(self.model)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = [text or b"" for text in batch.column("text").cast(pa.large_binary()).to_pylist()]
        best = self._labels(texts, 2 if self.second else 1)
        columns: list[list[Any]] = [[found[0][0] if found else None for found in best]]
        columns.append([found[0][1] if found else None for found in best])
        if self.second:
            columns.append([found[1][0] if len(found) > 1 else None for found in best])
            columns.append([found[1][1] if len(found) > 1 else None for found in best])
        if self.paragraphs:
            columns += map(list, zip(*self._paragraphs(texts, columns[0]), strict=True)) if texts else [[]] * 4
        arrays = [pa.array(column, f.type) for column, f in zip(columns, self.signals, strict=True)]
        return document.with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    def _labels(self, texts: Sequence[bytes], k: int) -> list[_Found]:
        """The k best labels of each text (UTF-8); none for a text without a word.

        fastText ends a line at a newline and treats all other white space alike. It is called below its Python wrapper,
        which takes str alone and would have the text decoded only to encode it again.
        """
        spoken = [i for i, text in enumerate(texts) if not _blank(text)]
        out: list[_Found] = [()] * len(texts)
        if spoken:
            lines = [texts[i].replace(b"\n", b" ") + b"\n" for i in spoken]
            labels, probabilities = self._model.f.multilinePredict(lines, k, 0.0, "strict")
            for i, names, values in zip(spoken, labels, probabilities, strict=True):
                # fastText adds 1e-5 before its logarithm, so a certain label comes out above 1
                out[i] = tuple(
                    (name.removeprefix(_LABEL), min(float(value), 1.0))
                    for name, value in zip(names, values, strict=True)
                )
        return out

    def _paragraphs(self, texts: Sequence[bytes], codes: Sequence[str | None]) -> list[tuple[Any, ...]]:
        """(paragraphs, same, other_code, other_share) of each text."""
        lines = [[line for line in text.split(b"\n") if _characters(line) >= _LONG] for text in texts]
        found = iter(self._labels([line for of_text in lines for line in of_text], 1))
        rows: list[tuple[Any, ...]] = []
        for of_text, code in zip(lines, codes, strict=True):
            size: Counter[str] = Counter()
            judged = 0
            for line in of_text:
                labels = next(found)
                if labels:
                    judged += 1
                    size[labels[0][0]] += _characters(line)
            total = size.total()
            same = size.pop(code, 0) if code is not None else 0
            other = min(size, key=lambda c: (-size[c], c), default=None)
            share = size[other] / total if other is not None else None
            rows.append((judged, same / total if total else None, other, share))
        return rows


def _characters(line: bytes) -> int:
    return len(line) if line.isascii() else len(line.decode())


def _blank(text: bytes) -> bool:
    """Whether there is nothing but white space, Unicode's included."""
    begins = text[:64].decode("utf-8", "ignore").strip()
    return not begins and (not text or not text.decode().strip())

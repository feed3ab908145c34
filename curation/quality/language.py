"""The step `language`: identifies the language of a document with a fastText classifier, and how certain it is.

The whole text goes to the model as one line, as in CCNet and FineWeb; nothing is cut off. The step has no rules of its
own: FineWeb's is `language.code = 'en' AND language.score >= 0.65`, CCNet's `language.score >= 0.5`.

Two kinds of text need more than the best label. *Short* texts: on labelled sentences in languages that lid.176 has, it
is right for 79 % of those under 20 characters, 85 % up to 40 and 89 to 92 % beyond; of those with a score of 0.65 or
more, 90 %, 96 % and 98 % are right (benchmarks/language.py). So a rule for short texts should use `length(text)` as
well. *Mixed* texts: a page half English and half French gets one of the two, often with a medium score. The second
label distinguishes it from a page that is only difficult, and labelling each paragraph shows how much of the page is in
its language.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa

from curation import document, models
from curation.fasttext_classifier import predict_labels
from curation.step import MapStep
from curation.words import is_unspaced

# Shorter paragraphs (headings, links, names) are not labelled: the model mostly guesses. A letter of a script without
# spaces counts double: a Chinese sentence has about half as many letters as an English one.
_MIN_PARAGRAPH_CHARS = 40
_CAPITALS = 0.6  # share of capitals among cased letters from which a text counts as written in capitals

_ASCII_CAPITALS, _ASCII_SMALL = string.ascii_uppercase.encode(), string.ascii_lowercase.encode()

_Labels = list[tuple[str, float]]  # labels and probabilities, best first


@dataclass
class Language(MapStep):
    """Signals: `code`, the model's label (lid.176: ISO 639-1, or 639-3 for languages without one; GlotLID: `eng_Latn`),
    and `score`, its probability in [0, 1]. Both are null for text without a word.

    model       a name of the model catalogue, or the path of any fastText classifier with one label per language
    second      adds the signals `second_code` and `second_score`: the second best label and its probability
    lowercase   `auto`: a text in capitals goes to the model in lower case, since the models have hardly seen capitals;
                `never`: as it is
    paragraphs  adds the signals `paragraphs`, the number of lines of 40 characters or more (20 in scripts without
                spaces); `short_lines`, that of shorter ones, which are not labelled; `same`, the share of the labelled
                characters in lines whose own label is the document's code; `other_code`, the label of most of the
                remaining characters, and `other_share`, its share. The last three are null without such a line, the
                last two also where all lines agree
    """

    model: str = "lid.176"
    second: bool = False
    lowercase: Literal["auto", "never"] = "auto"
    paragraphs: bool = False
    name: str = "language"

    version: ClassVar[str] = "2"  # short_lines

    _model: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def signals(self) -> pa.Schema:
        fields = [("code", pa.string()), ("score", pa.float64())]
        if self.second:
            fields += [("second_code", pa.string()), ("second_score", pa.float64())]
        if self.paragraphs:
            fields += [("paragraphs", pa.int64()), ("short_lines", pa.int64()), ("same", pa.float64())]
            fields += [("other_code", pa.string()), ("other_share", pa.float64())]
        return pa.schema(fields)

    def not_judged(self) -> Mapping[str, str]:
        found = {"code": "documents without a word"}
        if self.paragraphs:
            found |= {
                "same": "documents without a line long enough to label",
                "short_lines": "lines too short to label",
            }
        return found

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
        best = self._predict(texts, 2 if self.second else 1)
        columns: list[list[Any]] = [[found[0][0] if found else None for found in best]]
        columns.append([found[0][1] if found else None for found in best])
        if self.second:
            columns.append([found[1][0] if len(found) > 1 else None for found in best])
            columns.append([found[1][1] if len(found) > 1 else None for found in best])
        if self.paragraphs:
            columns += map(list, zip(*self._paragraph_signals(texts, columns[0]), strict=True)) if texts else [[]] * 5
        arrays = [pa.array(column, f.type) for column, f in zip(columns, self.signals, strict=True)]
        return document.with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    def _predict(self, texts: Sequence[bytes], k: int) -> list[_Labels]:
        """The k best labels of each text (UTF-8); an empty list for a text without a word."""
        worded = [i for i, text in enumerate(texts) if not _is_blank(text)]
        out: list[_Labels] = [[] for _ in texts]
        found = predict_labels(self._model, [self._prepare(texts[i]) for i in worded], k)
        for i, labels in zip(worded, found, strict=True):
            out[i] = labels
        return out

    def _prepare(self, text: bytes) -> bytes:
        """A text as the model reads it: one line, in lower case if it is written in capitals."""
        line = text.replace(b"\n", b" ")
        return line.decode().lower().encode() if self.lowercase == "auto" and _in_capitals(line) else line

    def _paragraph_signals(self, texts: Sequence[bytes], codes: Sequence[str | None]) -> list[tuple[Any, ...]]:
        """(paragraphs, short_lines, same, other_code, other_share) of each text."""
        lines = [[line for line in text.split(b"\n") if _width(line) >= _MIN_PARAGRAPH_CHARS] for text in texts]
        found = iter(self._predict([line for of_text in lines for line in of_text], 1))
        rows: list[tuple[Any, ...]] = []
        for text, of_text, code in zip(texts, lines, codes, strict=True):
            size: Counter[str] = Counter()
            labelled = 0
            for line in of_text:
                labels = next(found)
                if labels:
                    labelled += 1
                    size[labels[0][0]] += _characters(line)
            total = size.total()
            same = size.pop(code, 0) if code is not None else 0
            other = min(size, key=lambda c: (-size[c], c), default=None)
            share = size[other] / total if other is not None else None
            short = sum(not _is_blank(line) for line in text.split(b"\n")) - labelled
            rows.append((labelled, short, same / total if total else None, other, share))
        return rows


def _in_capitals(text: bytes) -> bool:
    """Whether most cased letters are capitals."""
    if text.isascii():
        capitals = len(text) - len(text.translate(None, _ASCII_CAPITALS))
        letters = capitals + len(text) - len(text.translate(None, _ASCII_SMALL))
        return capitals > _CAPITALS * letters
    decoded = text.decode()
    capitals = sum(map(str.isupper, decoded))
    return capitals > 0 and capitals > _CAPITALS * (capitals + sum(map(str.islower, decoded)))


def _width(line: bytes) -> int:
    """Characters, of which letters of scripts without spaces count double."""
    if line.isascii():
        return len(line)
    decoded = line.decode()
    return len(decoded) + sum(is_unspaced(ord(c)) for c in decoded if c >= "\u0e00")


def _characters(line: bytes) -> int:
    return len(line) if line.isascii() else len(line.decode())


def _is_blank(text: bytes) -> bool:
    """Whether the text is empty or only white space (Unicode)."""
    begins = text[:64].decode("utf-8", "ignore").strip()
    return not begins and (not text or not text.decode().strip())

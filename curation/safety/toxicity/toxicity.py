"""The step `toxicity`: scores documents and their sentences with a fastText classifier, as Dolma does (Soldaini et al.
2024).

A document's score averages over all its words, so it finds documents that are toxic throughout; the worst sentence
finds a single insult in a long page, and is wrong far more often (every page has many sentences). Both are signals; the
default rule uses the document's score, and `sentences: drop` removes single sentences. The bundled `toxicity-en` was
trained on English tweets and news comments (its card says what it gets wrong: data_cards/toxicity-en.md); any other
fastText classifier can be named, also one per language. Word lists are a second, cruder signal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curation.core.errors import UserError
from curation.document import with_column
from curation.fasttext_classifier import signal_name
from curation.safety.toxicity import word_list
from curation.safety.toxicity.fasttext_model import BUNDLED, ToxicityModel, bundled_model
from curation.safety.toxicity.word_list import WordList
from curation.step import MapStep

_SENTENCE_END = re.compile(r"\n+|(?<=[.!?])[ \t]+")
_MIN_WORDS = 4  # shorter sentences (headings, "I see.") are not scored: on the crawl they were most of the worst ones
_SIGNALS = ("score", "worst", "toxic_sentences", "cut_sentences", "listed")


@dataclass
class Toxicity(MapStep):
    """Toxicity of documents and sentences by fastText classifiers.

    model        the bundled `toxicity-en`, or a fastText model by catalogue name or path
    by_language  models by language code ({en: toxicity-en, de: german.bin}); documents in other languages are not
                 scored: their signals are null. Needs the step `language` before it
    labels       labels that mean toxic (without `__label__`), of any of the models; each is a signal of its own, and
                 their sum is the score. None: those of the bundled model
    threshold    a text with this score or more counts as toxic. None: the threshold of the bundled model
    sentences    score: signals only; drop: sentences at or above the threshold are removed from the text
    words        files with one word per line, or datatrove:banned_words, datatrove:soft_banned_words: adds the signal
                 `listed`
    prepare      `words` for the bundled model's preparation of text, `line` to only join lines. None: by the model
    """

    model: str = BUNDLED
    by_language: dict[str, str] = field(default_factory=dict)
    labels: list[str] | None = None
    threshold: float | None = None
    sentences: Literal["score", "drop"] = "score"
    words: list[str] = field(default_factory=list)
    prepare: Literal["words", "line"] | None = None
    name: str = "toxicity"
    version: ClassVar[str] = "3"  # words of lists in every script

    _models: dict[str, ToxicityModel] = field(init=False, repr=False, compare=False, default_factory=dict)
    _list: WordList | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def rewrites(self) -> bool:  # type: ignore[override]
        return self.sentences == "drop"

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("text", "language") if self.by_language else ("text",)

    @property
    def signals(self) -> pa.Schema:
        fields = [
            ("score", pa.float64()),  # of the document, 0 to 1
            ("worst", pa.float64()),  # of its worst sentence of four words or more; 0 without one
            ("toxic_sentences", pa.float64()),  # share of those sentences at or above the threshold
            *((signal_name(label), pa.float64()) for label in self._labels),  # of the document, label by label
        ]
        if self.sentences == "drop":
            fields.append(("cut_sentences", pa.int64()))
        if self.words:
            fields.append(("listed", pa.float64()))  # share of its words that are on the lists
        return pa.schema(fields)

    def rules(self) -> Mapping[str, str]:
        judged = f"{self.name}.score < {self._threshold!r}"
        rules = {"toxicity": f"{self.name}.score IS NULL OR {judged}" if self.by_language else judged}
        if self.sentences == "drop":  # the toxic part is removed; keep the rest if there is any
            rules = {"toxicity": "trim(text) <> ''"}
        return rules

    def not_judged(self) -> Mapping[str, str]:
        return {"score": "documents in a language without a model"} if self.by_language else {}

    def packages(self) -> Sequence[str]:
        return ("fasttext", "datatrove") if any(w.startswith("datatrove:") for w in self.words) else ("fasttext",)

    def models(self) -> Sequence[str]:
        return tuple(dict.fromkeys(bundled_model()[0] if m == BUNDLED else m for m in self._named.values()))

    def inputs(self) -> Sequence[str]:
        return tuple(word_list.word_list_path(name) for name in self.words)

    @property
    def _named(self) -> dict[str, str]:
        """Model names by language; the key `` is for all documents."""
        return self.by_language or {"": self.model}

    def check(self) -> None:
        if self.by_language and self.model != BUNDLED:
            raise UserError(
                f"step {self.name}: `model` and `by_language` are both given; list {self.model} in `by_language`"
            )
        foreign = [m for m in self._named.values() if m != BUNDLED]
        if foreign:
            for option in ("labels", "threshold"):
                if getattr(self, option) in (None, []):
                    raise UserError(
                        f"step {self.name}: `{option}` has a default only for {BUNDLED}; set it for {foreign[0]}"
                    )
        names = [signal_name(label) for label in self._labels]
        if len(set(names)) < len(names) or set(names) & set(_SIGNALS) or not all(names):
            raise UserError(
                f"step {self.name}: `labels` {', '.join(self._labels)} must give different signal names, none of "
                f"{', '.join(_SIGNALS)}"
            )
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UserError(
                f"step {self.name}: `threshold` is {self.threshold}; expected a probability above 0 and up to 1"
            )
        if self.words:
            try:
                word_list.load_word_lists(self.words)
            except UserError as e:
                raise UserError(f"step {self.name}: {e}") from None

    @property
    def _threshold(self) -> float:
        if self.threshold is not None:
            return self.threshold
        return 1.0 if any(m != BUNDLED for m in self._named.values()) else float(bundled_model()[1]["threshold"])

    @property
    def _labels(self) -> list[str]:
        return self.labels if self.labels is not None else list(bundled_model()[1]["labels"])

    def open(self) -> None:
        for language, name in self._named.items():
            words = self.prepare == "words" if self.prepare else name == BUNDLED
            try:
                self._models[language] = ToxicityModel.load(name, self._labels, words)
            except UserError as e:
                raise UserError(f"step {self.name}: {e}") from e
        known = {label for model in self._models.values() for label in model.all_labels}
        missing = [label for label in self._labels if label not in known]
        if missing:
            raise UserError(
                f"step {self.name}: {', '.join(self._named.values())} has no label {', '.join(missing)}; "
                f"it has {', '.join(sorted(known))}"
            )
        self._list = word_list.load_word_lists(self.words) if self.words else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_models": {}, "_list": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Adds the signals, and removes toxic sentences if `sentences` is drop. A text without words scores 0."""
        if not self._models:
            self.open()
        texts = [text or "" for text in batch.column("text").to_pylist()]
        rows: list[list[Any] | None] = [None] * len(texts)
        left = list(texts)
        for language, model in self._models.items():
            mine = range(len(texts))
            if language:
                codes = pc.struct_field(batch.column("language"), "code").to_pylist()
                mine = [i for i in mine if codes[i] == language]  # type: ignore[assignment]
            for i, (row, text) in zip(mine, self._score_texts(model, [texts[i] for i in mine]), strict=True):
                rows[i], left[i] = row, text
        columns = {f.name: [None if r is None else r[k] for r in rows] for k, f in enumerate(self._model_signals)}
        if self._list is not None:
            columns["listed"] = [self._list.share(text) for text in texts]
        if left != texts:
            old = batch.column("text")
            new = [text if text != was else o for text, was, o in zip(left, texts, old.to_pylist(), strict=True)]
            batch = with_column(batch, "text", pa.array(new, old.type))
        arrays = [pa.array(columns[f.name], f.type) for f in self.signals]
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    @property
    def _model_signals(self) -> list[pa.Field]:
        return [f for f in self.signals if f.name != "listed"]

    def _score_texts(self, model: ToxicityModel, texts: list[str]) -> list[tuple[list[Any], str]]:
        """For each text its signals in order of the schema, and the remaining text."""
        lines: list[str] = []  # each document, then its sentences
        spans: list[list[tuple[int, int]]] = []
        for text in texts:
            lines.append(model.prepare(text))
            mine = []
            for start, end in _sentences(text):
                line = model.prepare(text[start:end])
                if line.count(" ") >= _MIN_WORDS - 1:
                    lines.append(line)
                    mine.append((start, end))
            spans.append(mine)
        scores = iter(model.scores(lines))
        judged = []
        for text, mine in zip(texts, spans, strict=True):
            labels = dict(zip(model.labels, next(scores), strict=True))
            sums = [min(1.0, sum(next(scores))) for _ in mine]
            toxic = [span for span, score in zip(mine, sums, strict=True) if score >= self._threshold]
            row: list[Any] = [min(1.0, sum(labels.values())), max(sums, default=0.0), len(toxic) / max(1, len(mine))]
            row += [labels.get(label) for label in self._labels]
            if self.sentences == "drop":
                row.append(len(toxic))
                text = _without(text, toxic)
            judged.append((row, text))
        return judged


def _sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence: sentences end at line breaks, and after `.`, `!` or `?` before white space."""
    spans, at = [], 0
    for match in _SENTENCE_END.finditer(text):
        spans.append((at, match.start()))
        at = match.end()
    return [*spans, (at, len(text))]


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text without these sentences and the white space after each, except line breaks between remaining lines."""
    parts, at = [], 0
    for start, end in spans:
        parts.append(text[at:start])
        match = _SENTENCE_END.match(text, end)
        at = match.end() if match else end
        if match and "\n" in match[0] and parts[-1] and not parts[-1].endswith("\n"):
            parts[-1] = parts[-1].rstrip(" \t") + match[0]
    return "".join([*parts, text[at:]])

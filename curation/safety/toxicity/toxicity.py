"""Toxicity: a fastText classifier scores each document, and each of its sentences as Dolma does (Soldaini et al. 2024).

A document's score is an average over all its words, so it finds documents that are toxic throughout; the worst sentence
finds the single insult in a long page, and is wrong far more often (any page has many sentences). Both are signals; the
default rule is on the document's score, and `sentences: drop` takes single sentences out. The bundled `toxicity-en`
knows English tweets (its card says what it gets wrong: data_cards/toxicity-en.md); any other fastText classifier takes
its place by name or path, and a table gives each language its own. Word lists are a second, cruder signal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from curation.core.errors import UserError
from curation.document import with_column
from curation.safety.toxicity import word_list
from curation.safety.toxicity.fasttext_model import BUNDLED, Model, bundled_model
from curation.safety.toxicity.word_list import WordList
from curation.step import MapStep

_SENTENCE_END = re.compile(r"\n+|(?<=[.!?])[ \t]+")
_MIN_WORDS = 4  # shorter sentences (headings, "I see.") say too little: on the crawl most of the worst were these
_SIGNAL = re.compile(r"[^A-Za-z0-9_]")
_SIGNALS = ("score", "worst", "toxic_sentences", "cut_sentences", "listed")


@dataclass
class Toxicity(MapStep):
    """Toxicity of documents and sentences by fastText classifiers.

    model        the bundled `toxicity-en`, or a fastText model by catalogue name or path
    by_language  models by language code ({en: toxicity-en, de: german.bin}); documents of other languages are not
                 judged: their signals are null. Needs the step `language` before it
    labels       labels that mean toxic (without `__label__`), in whichever of the models; each is a signal of its own,
                 and their sum is the score. None: the bundled model's
    threshold    from where on a text counts as toxic. None: the bundled model's
    sentences    score: signals alone; drop: sentences at or above the threshold are taken out of the text
    words        files of a word a line, or datatrove:banned_words, datatrove:soft_banned_words: the signal `listed`
    prepare      `words` for the bundled model's preparation of text, `line` for only joining lines. None: what fits
    """

    model: str = BUNDLED
    by_language: dict[str, str] = field(default_factory=dict)
    labels: list[str] | None = None
    threshold: float | None = None
    sentences: Literal["score", "drop"] = "score"
    words: list[str] = field(default_factory=list)
    prepare: Literal["words", "line"] | None = None
    name: str = "toxicity"

    _models: dict[str, Model] = field(init=False, repr=False, compare=False, default_factory=dict)
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
            ("worst", pa.float64()),  # of its worst sentence of four words or more; 0 without any
            ("toxic_sentences", pa.float64()),  # share of those sentences at or above the threshold
            *((signal_name(label), pa.float64()) for label in self._labels),  # of the document, label by label
        ]
        if self.sentences == "drop":
            fields.append(("cut_sentences", pa.int64()))
        if self.words:
            fields.append(("listed", pa.float64()))  # share of its words that stand on the lists
        return pa.schema(fields)

    def rules(self) -> Mapping[str, str]:
        judged = f"{self.name}.score < {self._threshold!r}"
        rules = {"toxicity": f"{self.name}.score IS NULL OR {judged}" if self.by_language else judged}
        if self.sentences == "drop":  # what was toxic is out of the text; the rest is worth keeping if there is any
            rules = {"toxicity": "trim(text) <> ''"}
        return rules

    def packages(self) -> Sequence[str]:
        return ("fasttext", "datatrove") if any(w.startswith("datatrove:") for w in self.words) else ("fasttext",)

    def models(self) -> Sequence[str]:
        return tuple(dict.fromkeys(bundled_model()[0] if m == BUNDLED else m for m in self._named.values()))

    def inputs(self) -> Sequence[str]:
        return tuple(word_list.path_of(name) for name in self.words)

    @property
    def _named(self) -> dict[str, str]:
        """Model names by language; `` for all documents."""
        return self.by_language or {"": self.model}

    def check(self) -> None:
        if self.by_language and self.model != BUNDLED:
            raise UserError(
                f"step {self.name}: `model` and `by_language` are both given; put {self.model} into the table"
            )
        foreign = [m for m in self._named.values() if m != BUNDLED]
        if foreign:
            for option in ("labels", "threshold"):
                if getattr(self, option) in (None, []):
                    raise UserError(
                        f"step {self.name}: `{option}` has a default only for {BUNDLED}; say which fits {foreign[0]}"
                    )
        names = [signal_name(label) for label in self._labels]
        if len(set(names)) < len(names) or set(names) & set(_SIGNALS) or not all(names):
            raise UserError(f"step {self.name}: `labels` {', '.join(self._labels)} do not make signals of their own")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UserError(f"step {self.name}: `threshold` is a probability above 0, not {self.threshold}")
        if self.words:
            try:
                word_list.read(self.words)
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
                self._models[language] = Model.load(name, self._labels, words)
            except UserError as e:
                raise UserError(f"step {self.name}: {e}") from e
        known = {label for model in self._models.values() for label in model.known}
        missing = [label for label in self._labels if label not in known]
        if missing:
            raise UserError(
                f"step {self.name}: {', '.join(self._named.values())} has no label {', '.join(missing)}; "
                f"it has {', '.join(sorted(known))}"
            )
        self._list = word_list.read(self.words) if self.words else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_models": {}, "_list": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Adds the signals, and takes sentences out if so asked. A text without words scores 0."""
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
            for i, (row, text) in zip(mine, self._judge(model, [texts[i] for i in mine]), strict=True):
                rows[i], left[i] = row, text
        columns = {f.name: [None if r is None else r[k] for r in rows] for k, f in enumerate(self._judged)}
        if self._list is not None:
            columns["listed"] = [self._list.share(text) for text in texts]
        if left != texts:
            old = batch.column("text")
            new = [text if text != was else o for text, was, o in zip(left, texts, old.to_pylist(), strict=True)]
            batch = with_column(batch, "text", pa.array(new, old.type))
        arrays = [pa.array(columns[f.name], f.type) for f in self.signals]
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    @property
    def _judged(self) -> list[pa.Field]:
        return [f for f in self.signals if f.name != "listed"]

    def _judge(self, model: Model, texts: list[str]) -> list[tuple[list[Any], str]]:
        """For each text its signals in order of the schema, and what is left of it."""
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


def signal_name(label: str) -> str:
    """A label as SQL can name it: what is no ASCII letter, digit or underscore becomes an underscore."""
    return _SIGNAL.sub("_", label)


def _sentences(text: str) -> list[tuple[int, int]]:
    """Where sentences begin and end: at line breaks, and behind `.`, `!` or `?` before white space."""
    spans, at = [], 0
    for match in _SENTENCE_END.finditer(text):
        spans.append((at, match.start()))
        at = match.end()
    return [*spans, (at, len(text))]


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text without these sentences. The white space behind one goes too, unless it parts the lines around it."""
    parts, at = [], 0
    for start, end in spans:
        parts.append(text[at:start])
        match = _SENTENCE_END.match(text, end)
        at = match.end() if match else end
        if match and "\n" in match[0] and parts[-1] and not parts[-1].endswith("\n"):
            parts[-1] = parts[-1].rstrip(" \t") + match[0]
    return "".join([*parts, text[at:]])

"""How toxic a text reads: fastText over the document and over each of its sentences.

The document's score averages over all its words, so it finds documents that are toxic throughout; the worst sentence
finds the single insult in a long page, and is wrong far more often (any page has many sentences). Both are signals;
the default rule is on the document's score. The bundled `toxicity-en` knows English tweets (its card says what it gets
wrong: data_cards/toxicity-en.md); any other fastText classifier takes its place by name or path.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from curation.record import with_column
from curation.step import MapStep, UserError

BUNDLED = "toxicity-en"

_SENTENCE_END = re.compile(r"\n+|(?<=[.!?])[ \t]+")
# ASCII letters in lower case, digits, apostrophes and everything beyond ASCII stay; the rest separates words.
_WORDS = bytes(
    b | 32 if 65 <= b <= 90 else b if b > 127 or chr(b).isalnum() or b == ord("'") else ord(" ") for b in range(256)
)
_MIN_WORDS = 4  # shorter sentences (headings, "I see.") say too little: on the crawl most of the worst were these


UNKNOWN = "<unk>"


def cut_words(text: str) -> list[str]:
    """Lower-case words of ASCII letters, digits and apostrophes; what is not ASCII counts as letters."""
    return text.encode("utf-8", "replace").translate(_WORDS).decode().split()


def prepare_words(text: str, known: Container[str]) -> str:
    """The text as the bundled model was trained on it: its words on one line, those it does not know as `<unk>`.

    fastText itself passes over unknown words, so a page of another language would be judged by the two it does know.
    """
    return " ".join([word if word in known else UNKNOWN for word in cut_words(text)])


def prepare_line(text: str) -> str:
    """The text on one line, otherwise as it is: what most published fastText classifiers expect."""
    return text.replace("\n", " ").replace("\0", " ")


@functools.cache
def bundled_model() -> tuple[str, dict[str, Any]]:
    """Path of the model that comes with the package, and its facts: sha256, bytes, threshold, labels."""
    folder = importlib.resources.files(__package__)
    facts = json.loads((folder / f"{BUNDLED}.json").read_text())
    return str(folder / f"{BUNDLED}.ftz"), facts


@dataclass
class Toxicity(MapStep):
    """Toxicity of documents and sentences by a fastText classifier.

    model      the bundled `toxicity-en`, or a fastText model by catalogue name or path
    labels     labels that mean toxic (without `__label__`); their probabilities are added up. None: the bundled model's
    threshold  from where on a text counts as toxic. None: the bundled model's
    prepare    `words` for the bundled model's preparation of text, `line` for only joining lines. None: what fits
    """

    model: str = BUNDLED
    labels: list[str] | None = None
    threshold: float | None = None
    prepare: Literal["words", "line"] | None = None
    name: str = "toxicity"

    _fasttext: Any = field(init=False, repr=False, compare=False, default=None)
    _known: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())

    @property
    def signals(self) -> pa.Schema:
        return pa.schema(
            [
                ("score", pa.float64()),  # of the document, 0 to 1
                ("worst", pa.float64()),  # of its worst sentence of four words or more; 0 without any
                ("toxic_sentences", pa.float64()),  # share of those sentences at or above the threshold
            ]
        )

    def rules(self) -> Mapping[str, str]:
        return {"toxicity": f"{self.name}.score < {self._threshold!r}"}

    def models(self) -> Sequence[str]:
        return (bundled_model()[0] if self.model == BUNDLED else self.model,)

    def check(self) -> None:
        if self.model != BUNDLED:
            for option in ("labels", "threshold"):
                if getattr(self, option) in (None, []):
                    raise UserError(
                        f"step {self.name}: `{option}` has a default only for {BUNDLED}; say which fits {self.model}"
                    )
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UserError(f"step {self.name}: `threshold` is a probability above 0, not {self.threshold}")

    @property
    def _threshold(self) -> float:
        if self.threshold is not None:
            return self.threshold
        return float(bundled_model()[1]["threshold"]) if self.model == BUNDLED else 1.0

    def open(self) -> None:
        import fasttext

        if self.model == BUNDLED:
            path = bundled_model()[0]
        else:
            from curation.models import resolve

            path = resolve(self.model)
        try:
            self._fasttext = fasttext.load_model(path)
        except ValueError as e:
            raise UserError(f"step {self.name}: {self.model} is no fastText model: {e}") from e
        self._known = frozenset(self._fasttext.get_words())
        known = {label.removeprefix("__label__") for label in self._fasttext.get_labels()}
        missing = [label for label in self._labels if label not in known]
        if missing:
            raise UserError(
                f"step {self.name}: {self.model} has no label {', '.join(missing)}; it has {', '.join(sorted(known))}"
            )

    @property
    def _labels(self) -> list[str]:
        return self.labels if self.labels is not None else list(bundled_model()[1]["labels"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fasttext": None, "_known": frozenset()}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Adds the signals. A text without words scores 0."""
        words = self.prepare == "words" if self.prepare else self.model == BUNDLED
        if self._fasttext is None:
            self.open()
        known = self._known
        prepare = (lambda text: prepare_words(text, known)) if words else prepare_line
        lines: list[str] = []  # each document, then its sentences
        starts = []
        for text in batch.column("text").to_pylist():
            starts.append(len(lines))
            lines.append(prepare(text or ""))
            sentences = (prepare(s) for s in _SENTENCE_END.split(text or ""))
            lines.extend(s for s in sentences if s.count(" ") >= _MIN_WORDS - 1)
        scores = self._scores(lines)
        columns: tuple[list[float], ...] = ([], [], [])
        for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
            sentences_ = scores[start + 1 : stop]
            toxic = sum(s >= self._threshold for s in sentences_)
            columns[0].append(scores[start])
            columns[1].append(max(sentences_, default=0.0))
            columns[2].append(toxic / len(sentences_) if sentences_ else 0.0)
        arrays = [pa.array(c, pa.float64()) for c in columns]
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    def _scores(self, lines: list[str]) -> list[float]:
        """Probability of the toxic labels, clipped to [0, 1] (fastText's rounding passes 1); 0 for an empty line."""
        if not lines:
            return []
        toxic = {f"__label__{label}" for label in self._labels}
        found, probabilities = self._fasttext.predict(lines, k=-1)
        return [
            min(1.0, float(sum(p for label, p in zip(ls, ps, strict=True) if label in toxic))) if line else 0.0
            for line, ls, ps in zip(lines, found, probabilities, strict=True)
        ]

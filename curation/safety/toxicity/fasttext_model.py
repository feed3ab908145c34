"""A fastText classifier with labels that mean toxic: how text is prepared for it, and the probabilities it gives."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.core.errors import UserError

BUNDLED = "toxicity-en"

# ASCII letters in lower case, digits, apostrophes and everything beyond ASCII stay; the rest separates words.
_WORDS = bytes(
    b | 32 if 65 <= b <= 90 else b if b > 127 or chr(b).isalnum() or b == ord("'") else ord(" ") for b in range(256)
)
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
class Model:
    """A loaded classifier. `labels`: those of its labels that mean toxic."""

    name: str
    labels: list[str]
    known: list[str]  # all that it has
    prepare: Callable[[str], str]
    fasttext: Any = field(repr=False)

    @staticmethod
    def load(name: str, wanted: Sequence[str], words: bool) -> Model:
        """The model of a catalogue name or path. Raises UserError where it has none of the labels that are wanted."""
        import fasttext

        if name == BUNDLED:
            path = bundled_model()[0]
        else:
            from curation.models import resolve

            path = resolve(name)
        try:
            loaded = fasttext.load_model(path)
        except ValueError as e:
            raise UserError(f"{name} is no fastText model: {e}") from e
        known = [label.removeprefix("__label__") for label in loaded.get_labels()]
        labels = [label for label in wanted if label in known]
        if not labels:
            raise UserError(f"{name} has no label {', '.join(wanted)}; it has {', '.join(sorted(known))}")
        if not words:
            return Model(name, labels, known, prepare_line, loaded)
        vocabulary = frozenset(loaded.get_words())
        return Model(name, labels, known, lambda text: prepare_words(text, vocabulary), loaded)

    def scores(self, lines: Sequence[str]) -> list[list[float]]:
        """For each prepared line the probability of each of `labels`; zeros for an empty line.

        fastText's rounding passes 1: clipped to [0, 1].
        """
        if not lines:
            return []
        place = {f"__label__{label}": i for i, label in enumerate(self.labels)}
        found, probabilities = self.fasttext.predict(list(lines), k=-1)
        rows = []
        for line, names, values in zip(lines, found, probabilities, strict=True):
            row = [0.0] * len(place)
            if line:
                for name, value in zip(names, values, strict=True):
                    if name in place:
                        row[place[name]] = min(1.0, float(value))
            rows.append(row)
        return rows

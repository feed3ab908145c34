"""Loads a fastText toxicity classifier, prepares text for it and returns the probabilities of its toxic labels."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation import models
from curation.core.errors import UserError
from curation.fasttext_classifier import LABEL_PREFIX, predict_labels

BUNDLED = "toxicity-en"

# Byte by byte: ASCII letters become lower case; digits, apostrophes and non-ASCII bytes stay; the rest separates words.
_WORDS = bytes(
    b | 32 if 65 <= b <= 90 else b if b > 127 or chr(b).isalnum() or b == ord("'") else ord(" ") for b in range(256)
)
UNKNOWN = "<unk>"


def cut_words(text: str) -> list[str]:
    """Lower-case words of ASCII letters, digits and apostrophes; characters beyond ASCII count as letters."""
    return text.encode("utf-8", "replace").translate(_WORDS).decode().split()


def prepare_words(text: str, known: Container[str]) -> str:
    """The text as the bundled model was trained on it: its words on one line, unknown ones as `<unk>`.

    fastText itself ignores unknown words, so a page in another language would be scored by the few words it knows.
    """
    return " ".join([word if word in known else UNKNOWN for word in cut_words(text)])


def prepare_line(text: str) -> str:
    """The text on one line, otherwise unchanged: what most published fastText classifiers expect."""
    return text.replace("\n", " ").replace("\0", " ")


@functools.cache
def bundled_model() -> tuple[str, dict[str, Any]]:
    """Path of the model in the package, and the facts beside it: sha256, bytes, threshold, labels."""
    folder = importlib.resources.files(__package__)
    facts = json.loads((folder / f"{BUNDLED}.json").read_text())
    return str(folder / f"{BUNDLED}.bin"), facts


@dataclass
class ToxicityModel:
    """A loaded classifier. `labels`: those of its labels that mean toxic."""

    labels: list[str]
    all_labels: list[str]
    prepare: Callable[[str], str]
    fasttext: Any = field(repr=False)

    @staticmethod
    def load(name: str, wanted: Sequence[str], words: bool) -> ToxicityModel:
        """Loads a model by catalogue name or path. Raises UserError if it has none of the wanted labels."""
        loaded = models.load_fasttext(name)
        known = [label.removeprefix(LABEL_PREFIX) for label in loaded.get_labels()]
        labels = [label for label in wanted if label in known]
        if not labels:
            raise UserError(f"{name} has no label {', '.join(wanted)}; it has {', '.join(sorted(known))}")
        if not words:
            return ToxicityModel(labels, known, prepare_line, loaded)
        vocabulary = frozenset(loaded.get_words())
        return ToxicityModel(labels, known, lambda text: prepare_words(text, vocabulary), loaded)

    def scores(self, lines: Sequence[str]) -> list[list[float]]:
        """For each prepared line the probability of each of `labels`, in [0, 1]; zeros for an empty line."""
        found = predict_labels(self.fasttext, [line.encode() for line in lines])
        rows = []
        for line, predicted in zip(lines, found, strict=True):
            of = dict(predicted) if line else {}
            rows.append([of.get(label, 0.0) for label in self.labels])
        return rows

"""Predicts label probabilities with a fastText classifier, for the steps `language`, `classifier` and `toxicity`.

`models.load_fasttext` opens the model. fastText reads one line per text: a newline ends it, and all other white space
is alike, so callers replace newlines by spaces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

LABEL_PREFIX = "__label__"
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_]")


def predict_labels(model: Any, lines: Sequence[bytes], k: int = -1) -> list[list[tuple[str, float]]]:
    """The k best labels (-1: all) of each line with their probabilities in [0, 1], best first, without the prefix.

    lines: UTF-8 without newlines. A line without a known word has no labels in most models. The C++ class below the
    Python wrapper is called, which takes bytes: the wrapper takes str and would decode and encode every text again.
    """
    if not lines:
        return []
    found, probabilities = model.f.multilinePredict([line + b"\n" for line in lines], k, 0.0, "strict")
    return [
        # fastText adds 1e-5 to a probability before its logarithm, so a certain label comes out above 1
        [(name.removeprefix(LABEL_PREFIX), min(float(value), 1.0)) for name, value in zip(names, values, strict=True)]
        for names, values in zip(found, probabilities, strict=True)
    ]


def signal_name(label: str) -> str:
    """A label as a name in SQL: characters other than ASCII letters, digits and underscores become underscores."""
    return _NOT_A_NAME.sub("_", label)

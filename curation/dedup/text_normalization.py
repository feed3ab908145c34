"""Normalizes text for exact comparison, in one of four forms from strict to loose.

    none        the text unchanged
    whitespace  each run of whitespace becomes one space, removed at both ends
    words       NFKC, case-folded, letters and digits only, one space between words: punctuation and layout are ignored
    template    as words, without accents and with every digit as 0: "Seite 12 · Übersicht" becomes "seite 00
                ubersicht", so numbered lines of one template are equal (as in cc_net: Wenzek et al. 2020, section 3.1)

Each form is coarser than the one before: texts that are equal in one form are equal in all later ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

NormalForm = Literal["none", "whitespace", "words", "template"]

_WORD = re.compile(r"[^\W_]+")
_DIGIT = re.compile(r"\d")


def _words(text: str) -> str:
    folded = text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORD.findall(folded))


def _template(text: str) -> str:
    words = _words(text)
    if not words.isascii():
        apart = unicodedata.normalize("NFKD", words)
        words = "".join(c for c in apart if not unicodedata.combining(c))
    return _DIGIT.sub("0", words)


NORMALIZERS: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "whitespace": lambda text: " ".join(text.split()),
    "words": _words,
    "template": _template,
}

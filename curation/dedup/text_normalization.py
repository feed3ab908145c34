"""What counts as the same text where texts are compared exactly: a few normal forms, from strict to loose.

    none        the text as it is
    whitespace  each run of whitespace counts as one space, none at the ends
    words       NFKC, case folded, letters and digits only, one space between words: punctuation and layout do not count
    template    as words, and marks over letters do not count either, and each digit counts as 0: "Seite 12 · Übersicht"
                is "seite 00 ubersicht", so that numbered lines of one template are one (cc_net's way: Wenzek et al.
                2020, section 3.1)

Each form is coarser than the one before it: texts that are the same in one are the same in all below.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

Form = Literal["none", "whitespace", "words", "template"]

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


NORMALISE: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "whitespace": lambda text: " ".join(text.split()),
    "words": _words,
    "template": _template,
}

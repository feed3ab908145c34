"""Normalizes text for exact comparison, in one of four forms from strict to loose.

    none        the text unchanged
    whitespace  each run of whitespace becomes one space, removed at both ends
    words       NFKC, case-folded, words only (as curation/words.py has them), one space between them: punctuation,
                layout and characters that nobody sees are ignored
    template    as words, without accents and with every digit as 0: "Seite 12 · Übersicht" becomes "seite 00
                ubersicht", so numbered lines of one template are equal (as in cc_net: Wenzek et al. 2020, section 3.1)

Each form is coarser than the one before: texts that are equal in one form are equal in all later ones. A text without a
word ("!!!", "—") is compared by its characters in the two last forms: such texts are not all the same text. What
`template` takes off are the accents of letters; the vowel signs of Indic and other scripts are marks too, and stay.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from curation.words import fold_text, words

NormalForm = Literal["none", "whitespace", "words", "template"]

_DIGIT = re.compile(r"\d")


def _words(text: str) -> str:
    return " ".join(words(text)) or "".join(fold_text(text).split())


def _template(text: str) -> str:
    form = _words(text)
    if not form.isascii():
        apart = unicodedata.normalize("NFKD", form)
        form = unicodedata.normalize("NFC", "".join(c for c in apart if not unicodedata.combining(c)))
    return _DIGIT.sub("0", form)


NORMALIZERS: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "whitespace": lambda text: " ".join(text.split()),
    "words": _words,
    "template": _template,
}

"""Normalizes text as cc_net does for its Wikipedia models, so that their perplexities are the same here as there.

The published models (a SentencePiece model `en.sp.model` and a KenLM binary `en.arpa.bin` a language) were trained on
text that went through cc_net's text_normalizer and then SentencePiece (Wenzek et al. 2020, section 3.3; the details are
in the code). In its order: strip white space; lower case; canonical decomposition without non-spacing marks (which
leaves Hangul as single jamo, composed again inside SentencePiece); every decimal digit becomes 0; thirty-odd
punctuation marks become their ASCII equivalents; control characters are removed, *line feeds among them*: two lines are
joined without a space and the document is scored as one sentence. We keep that, because the published cut-offs were
computed so.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

# ASCII -> marks. cc_net's table also maps the full-width digit one, which is a 0 by then, so the entry has no effect.
_MARKS = {
    '"': "„”“«»」「《》",
    "'": "´’",
    ",": "，、",
    ".": "。",
    ":": "∶：",
    "?": "？",
    "!": "！",
    "(": "（",
    ")": "）",
    ";": "；",
    "-": "–━►",
    "~": "～",
    "<": "〈",
    ">": "〉",
    "[": "【",
    "]": "】",
    "%": "％",
    " - ": "—",
    ". ": "．",
    "...": "…",
}


class _Images(dict[int, str]):
    """Code point of decomposed text -> its replacement, filled on demand."""

    def __missing__(self, point: int) -> str:
        character = chr(point)
        category = unicodedata.category(character)
        self[point] = new = "" if category == "Mn" else "0" if category == "Nd" else character
        return new


_IMAGES = _Images()
_IMAGES.update({ord(mark): ascii_ for ascii_, marks in _MARKS.items() for mark in marks})
_IMAGES.update(dict.fromkeys((*range(32), *range(127, 160)), ""))
_BEYOND = re.compile("[^\\x00-\\x7f]+")
_ASCII = bytes(ord("0") if 48 <= b <= 57 else b for b in range(256))
_CONTROLS = bytes((*range(32), 127))


def normalise(text: str) -> str:
    """The text as cc_net hands it to SentencePiece.

    >>> normalise(" Café, 42 \\u2014 „oui…“ ")
    'cafe, 00  -  "oui..."'
    """
    text = text.strip().lower()
    if not text.isascii():  # runs beyond ASCII can be decomposed separately: no mark moves past an ASCII letter
        text = _BEYOND.sub(_decomposed, text)
    return text.encode().translate(_ASCII, _CONTROLS).decode()


def _decomposed(run: re.Match[str]) -> str:
    return unicodedata.normalize("NFD", run[0]).translate(_IMAGES)


def pieces(tokenizer: Any, texts: list[str]) -> list[str]:
    """Texts as KenLM scores them: the SentencePiece pieces of the normalized text, joined by spaces; "" for none."""
    return [
        " ".join(found) for found in tokenizer.encode([normalise(text) for text in texts], out_type=str, num_threads=1)
    ]


def load_tokenizer(path: str) -> Any:
    """Opens a SentencePiece model. Raises OSError or RuntimeError for a file that is not one."""
    import sentencepiece

    tokenizer = sentencepiece.SentencePieceProcessor()
    tokenizer.Load(path)
    return tokenizer

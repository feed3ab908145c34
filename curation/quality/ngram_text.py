"""What a word is to an n-gram model: the one definition that training and scoring share.

A perplexity means something only if the text is cut the way the model's training text was. Two forms: `words` lowers
case, writes every digit as 0, makes each punctuation mark or symbol a token of its own (a run of the same one counts
once, so that a ruler of eighty dashes is not eighty well-predicted words), and keeps letters, marks and digits
together. `spaces` leaves the text alone and cuts at white space, as KenLM's lmplz does: for models that were trained
elsewhere. In both a line of the text is a sentence, and lines without a word are no sentences.
"""

from __future__ import annotations

import unicodedata
from typing import Literal

from curation import record

Form = Literal["words", "spaces"]

# What the model itself writes: in a text these are no words but white space, as with lmplz --skip_symbols
RESERVED = frozenset((b"<unk>", b"<s>", b"</s>"))


class _Table(dict[int, str]):
    """Code point -> what it becomes, filled as characters turn up."""

    def __missing__(self, point: int) -> str:
        character = chr(point)
        category = unicodedata.category(character)
        if category[0] in "LM":
            new = character
        elif category[0] == "N":
            new = "0" if category == "Nd" else character
        elif category[0] in "PS":
            new = f" {character} "
        elif category == "Cf":  # joiners, soft hyphens, byte order marks: inside a word, and nothing to it
            new = ""
        else:  # separators, control characters, unassigned
            new = " "
        self[point] = new
        return new


_TABLE = _Table({ord("\n"): "\n"})


def normalise(text: str, form: Form = "words") -> list[str]:
    """The sentences of a text: tokens joined by one space, a sentence a line, none empty.

    >>> normalise("Hello, World 42!\\n\\n-----")
    ['hello , world 00 !', '-']
    """
    text = record.clean_text(text)
    if form == "words":
        lines = []
        for line in text.lower().translate(_TABLE).split("\n"):
            tokens = line.split()
            if tokens:
                lines.append(" ".join(t for i, t in enumerate(tokens) if t != tokens[i - 1] or not i or t[0].isalnum()))
        return lines
    # bytes.split knows ASCII white space alone, as lmplz and kenlm do; str.split would cut at U+00A0 too
    cut = (b" ".join(t for t in line.split() if t not in RESERVED) for line in text.encode().split(b"\n"))
    return [line.decode() for line in cut if line]

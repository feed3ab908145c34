"""SentencePiece models as they are: their ids, their normalisation, their losses.

A model may fold white space, apply NFKC or lack bytes, and then decoding does not give the text back. Nothing here
hides that: the encoder asks a probe set, the manifest says `lossless: false`, and what promises exact text looks there.
Control symbols (`<s>`, `</s>`) written in a text are ordinary text to the library; only the packer writes EOS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curation.core.errors import UserError
from curation.core.packages import require

FILE = "tokenizer.model"


def is_model(data: bytes) -> bool:
    """Whether these bytes are a SentencePiece model. Raises UserError if the package that reads one is missing."""
    require("tokenizer: a file that looks like a SentencePiece model", ["sentencepiece"])
    import sentencepiece

    try:
        return bool(sentencepiece.SentencePieceProcessor().LoadFromSerializedProto(data)) and bool(data)
    except RuntimeError:
        return False


class Pieces:
    """A SentencePiece model ready for work."""

    def __init__(self, data: bytes, eos: str | None) -> None:
        """`eos`: a piece by name, else the model's own. Raises UserError where there is none."""
        import sentencepiece

        self._model: Any = sentencepiece.SentencePieceProcessor()
        self._model.LoadFromSerializedProto(data)
        self.vocab = int(self._model.vocab_size())
        if eos is None:
            self.eos = int(self._model.eos_id())
            if self.eos < 0:
                raise UserError("tokenizer: this SentencePiece model has no EOS; name one of its pieces, tokenizer.eos")
        else:
            self.eos = int(self._model.piece_to_id(eos))
            if self._model.id_to_piece(self.eos) != eos:
                raise UserError(f"tokenizer: this SentencePiece model has no piece {eos!r}")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._model.encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._model.decode([i for i in ids if i != self.eos])
        return text

"""Encodes and decodes with a SentencePiece model, without changing its normalization or its ids.

A model may fold whitespace, apply NFKC or lack byte fallback; then decoding does not restore the text. The encoder
tests this on a set of probe texts, and the manifest records it as `lossless: false`. Control symbols (`<s>`, `</s>`)
that are spelled out in a text are ordinary text; only the shard writer writes EOS.
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


class SentencePieceModel:
    """A loaded SentencePiece model."""

    def __init__(self, data: bytes, eos: str | None) -> None:
        """`eos` names a piece; None: the model's own EOS. Raises UserError if the model has no such piece."""
        import sentencepiece

        self._model: Any = sentencepiece.SentencePieceProcessor()
        self._model.LoadFromSerializedProto(data)
        self.vocab = int(self._model.vocab_size())
        if eos is None:
            self.eos = int(self._model.eos_id())
            if self.eos < 0:
                raise UserError("tokenizer: the SentencePiece model has no EOS; name a piece in tokenizer.eos")
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

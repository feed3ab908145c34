"""SentencePiece models: loaded from a file, encoded and decoded, and the manifest says whether they lose text."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from curation.packing.tokenizer.encode import Encoder
from curation.packing.tokenizer.load_tokenizer import load_tokenizer

sentencepiece = pytest.importorskip("sentencepiece")


def test_sentencepiece_models_are_loaded_and_say_whether_they_lose(tmp_path: Path) -> None:
    texts = [f"the mill grinds {i} grains of wheat  and rye" for i in range(500)]
    for name, options, lossless in (
        ("folding", {}, False),
        (
            "exact",
            {
                "byte_fallback": True,
                "normalization_rule_name": "identity",
                "remove_extra_whitespaces": False,
                "add_dummy_prefix": False,
            },
            True,
        ),
    ):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=320,
            model_type="bpe",
            minloglevel=2,
            **options,
        )
        path = tmp_path / f"{name}.model"
        path.write_bytes(model.getvalue())
        encoder = Encoder(load_tokenizer(str(path)))
        assert (encoder.kind, encoder.file, encoder.eos) == ("sentencepiece", "tokenizer.model", 2)
        assert encoder.decode(encoder.encode_batch(["the mill grinds </s> rye"])[0]).endswith("rye")
        assert 2 not in encoder.encode_batch(["a </s> b"])[0]
        if not lossless:
            assert not encoder.lossless
        long = "the mill " * 200_000
        assert encoder.decode(encoder.encode_batch([long])[0]).strip() == long.strip()

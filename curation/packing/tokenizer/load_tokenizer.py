"""Loads a tokenizer from a file: tokenizer.json, SentencePiece model, tiktoken rank file or GPT-2's merges.

Rank files and merges are converted to the tokenizer.json that gives the same ids, so a run has one file that every
library opens. A SentencePiece model stays as it is (sentencepiece.py).
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from typing import Any

from curation.core.errors import UserError
from curation.packing.tokenizer import pretokenizer_patterns, sentencepiece
from curation.storage import filesystem

EOS = "<|endoftext|>"
# Names of the end-of-text token in published tokenizers, in the order in which they are tried.
EOS_NAMES = (EOS, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<|im_end|>")


def canonical_json(value: dict[str, Any]) -> bytes:
    """A tokenizer.json as bytes that depend only on its content (vocabulary in order of ids)."""
    value["model"]["vocab"] = dict(sorted(value["model"]["vocab"].items(), key=lambda item: item[1]))
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def load_tokenizer(path: str) -> bytes:
    """Reads a tokenizer from a file on any filesystem; returns the bytes of a tokenizer.json or a SentencePiece model.

    A tiktoken rank file or GPT-2's merges become the tokenizer.json of the same ids. Raises UserError for a file that
    is missing or of another kind.
    """
    try:
        fs, inner = filesystem(path)
        data: bytes = fs.cat_file(inner)
    except FileNotFoundError as error:
        raise UserError(f"tokenizer: {path} does not exist; give a tokenizer.json or a .bpe file") from error
    if data.lstrip()[:1] == b"{":
        try:
            value = json.loads(data)
            if not isinstance(value["model"]["type"], str):
                raise KeyError("type")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"tokenizer: {path} is JSON but not a tokenizer.json: it has no model (a vocabulary is not enough)"
            ) from error
        return data
    if data.startswith(b"#version"):
        return tokenizer_json_from_ranks(
            _gpt2_ranks(data.decode()), pretokenizer_patterns.GPT2, 256 + data.decode().count("\n") - 1
        )
    if data[:1] == b"\n" and sentencepiece.is_model(data):  # a protobuf whose first field is a piece
        return data
    ranks = _tiktoken_ranks(data, path)
    if len(ranks) not in pretokenizer_patterns.BY_RANKS:
        known = ", ".join(str(n) for n in pretokenizer_patterns.BY_RANKS)
        raise UserError(
            f"tokenizer: {path} has {len(ranks)} ranks. A rank file does not contain the pre-tokenizer's pattern, "
            "which "
            f"is known only for {known} ranks. Give a tokenizer.json instead"
        )
    return tokenizer_json_from_ranks(ranks, *pretokenizer_patterns.BY_RANKS[len(ranks)])


def eos_token_name(tokenizer: bytes, eos: int) -> str | None:
    """The name of a tokenizer's token with the id `eos`; None for a SentencePiece model."""
    if tokenizer.lstrip()[:1] != b"{":
        return None
    from tokenizers import Tokenizer

    name = Tokenizer.from_str(tokenizer.decode()).id_to_token(eos)
    return None if name is None else str(name)


def _gpt2_ranks(text: str) -> dict[bytes, int]:
    """Ranks from GPT-2's merges file: the printable bytes, the other bytes, then one merge per line."""
    alphabet = sorted(range(256), key=lambda b: (ord(pretokenizer_patterns.byte_alphabet()[b]) >= 256, b))
    ranks = {bytes([b]): i for i, b in enumerate(alphabet)}
    for line in text.split("\n")[1:]:
        if line:
            left, right = (pretokenizer_patterns.to_bytes(part) or b"" for part in line.split())
            ranks[left + right] = len(ranks)
    return ranks


def _tiktoken_ranks(data: bytes, path: str) -> dict[bytes, int]:
    try:
        lines = [line.split() for line in data.splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except (ValueError, binascii.Error) as error:
        raise UserError(
            f"tokenizer: {path} is neither a tokenizer.json, a SentencePiece model, a tiktoken rank file (base64 and "
            "rank on each line) nor GPT-2's merges"
        ) from error
    if not ranks or any(bytes([b]) not in ranks for b in range(256)):
        raise UserError(f"tokenizer: {path} lacks ranks of single bytes, so it cannot encode every text")
    return ranks


def tokenizer_json_from_ranks(ranks: dict[bytes, int], pattern: str, eos: int) -> bytes:
    """The tokenizer.json that gives the same ids as these tiktoken ranks; <|endoftext|> gets the id `eos`.

    The last merge of each token is found by merging its bytes with the ranks below its own, as in training.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _merge_below(token, ranks, rank)
            if len(parts) == 2:  # else no merge makes it: it is used only where it is a whole pre-token (ignore_merges)
                merges.append([pretokenizer_patterns.from_bytes(p) for p in parts])
    vocab = {pretokenizer_patterns.from_bytes(token): rank for token, rank in ranks.items()}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return canonical_json(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": eos, "content": EOS, **special}],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                    byte_level,
                ],
            },
            "post_processor": None,
            "decoder": {**byte_level, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": True,
                "vocab": {**vocab, EOS: eos},
                "merges": merges,
            },
        }
    )


def _merge_below(token: bytes, ranks: dict[bytes, int], below: int) -> list[bytes]:
    """The token's bytes, merged by the ranks below `below`, lowest rank first."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        joined = [ranks.get(a + b, below) for a, b in itertools.pairwise(parts)]
        best = min(range(len(joined)), key=joined.__getitem__)
        if joined[best] >= below:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts

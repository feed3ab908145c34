"""Getting a tokenizer: trained on the curated text, or loaded from a file.

What is trained is byte-level BPE, and tiktoken's rank files and GPT-2's merges are written as the tokenizer.json of the
same ids, so a run carries one file that everybody can open. A SentencePiece model stays what it is (pieces.py).
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from curation.core.errors import UserError
from curation.packing.tokenizer import pretokenizer_patterns, sentencepiece
from curation.storage import filesystem

EOS = "<|endoftext|>"
# Names that published tokenizers use for the token between documents, in the order they are tried.
EOS_NAMES = (EOS, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<|im_end|>")

# Training sees no longer piece than this: each merge rescans the pieces that hold its pair, so one base64 blob of
# 10 MB as a single piece would cost 10 MB times thousands of merges.
_TRAIN_PIECE = re.compile(r"\S{1,256}\s{0,256}|\s{1,256}")


def train(texts: Iterable[str], vocab: int) -> bytes:
    """A byte-level BPE tokenizer.json with <|endoftext|> as id 0; fewer than `vocab` entries where text is scarce.

    The same texts give the same bytes, in any order and on any number of threads: the trainer counts pieces, and
    breaks ties between equally frequent pairs by their ids. Raises UserError for a vocabulary below 257.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab < 257:
        raise UserError(f"tokenizer.train.vocab is {vocab}; byte-level BPE needs 256 bytes and {EOS}: at least 257")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pretokenizer_patterns.OURS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=[EOS],
        initial_alphabet=sorted(pretokenizer_patterns.byte_alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_pieces(texts), trainer)
    return canonical(json.loads(tokenizer.to_str()))


def _training_pieces(texts: Iterable[str]) -> Iterator[str]:
    """Texts as they are; those with a stretch of more than 256 characters without (or of nothing but) space, cut."""
    long = re.compile(r"(?<!\S)\S{257}|(?<!\s)\s{257}")
    for text in texts:
        text = text.replace(EOS, " ")  # the trainer would take it for the special token
        if long.search(text):
            yield from (m.group() for m in _TRAIN_PIECE.finditer(text))
        else:
            yield text


def canonical(value: dict[str, Any]) -> bytes:
    """A tokenizer.json as bytes that depend on its content only (vocabulary in the order of ids)."""
    value["model"]["vocab"] = dict(sorted(value["model"]["vocab"].items(), key=lambda item: item[1]))
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def load(path: str) -> bytes:
    """The tokenizer of a file on any filesystem: a tokenizer.json or a SentencePiece model as it is, a tiktoken rank
    file or GPT-2's merges as the tokenizer.json of the same ids.

    Raises UserError for a file that is absent or none of these.
    """
    try:
        fs, inner = filesystem(path)
        data: bytes = fs.cat_file(inner)
    except FileNotFoundError as error:
        raise UserError(f"tokenizer: {path} is not there; give the path of a tokenizer.json or a .bpe file") from error
    if data.lstrip()[:1] == b"{":
        try:
            value = json.loads(data)
            if not isinstance(value["model"]["type"], str):
                raise KeyError("type")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"tokenizer: {path} is JSON but no tokenizer.json (it has no model); a vocabulary alone cannot merge"
            ) from error
        return data
    if data.startswith(b"#version"):
        return from_ranks(_gpt2_ranks(data.decode()), pretokenizer_patterns.GPT2, 256 + data.decode().count("\n") - 1)
    if data[:1] == b"\n" and sentencepiece.is_model(data):  # a protobuf whose first field is a piece
        return data
    ranks = _tiktoken_ranks(data, path)
    if len(ranks) not in pretokenizer_patterns.BY_RANKS:
        known = ", ".join(str(n) for n in pretokenizer_patterns.BY_RANKS)
        raise UserError(
            f"tokenizer: {path} has {len(ranks)} ranks, and a rank file does not say how text is cut before merging; "
            f"known are those of {known} ranks. Give a tokenizer.json instead, which says it"
        )
    return from_ranks(ranks, *pretokenizer_patterns.BY_RANKS[len(ranks)])


def _gpt2_ranks(text: str) -> dict[bytes, int]:
    """Ranks from GPT-2's merges file: the printable bytes, the other bytes, then a merge a line."""
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
            f"tokenizer: {path} is neither a tokenizer.json, nor a SentencePiece model, nor a tiktoken file (base64 "
            "and rank a line), nor GPT-2's merges"
        ) from error
    if not ranks or any(bytes([b]) not in ranks for b in range(256)):
        raise UserError(f"tokenizer: {path} lacks ranks of single bytes, so it could not write every text")
    return ranks


def from_ranks(ranks: dict[bytes, int], pattern: str, eos: int) -> bytes:
    """The tokenizer.json that gives the ids of these tiktoken ranks; <|endoftext|> gets id `eos`.

    The merge that makes a token is found by merging its bytes with the ranks below its own, as the ranks were made.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _split(token, ranks, rank)
            if len(parts) == 2:  # else no merge reaches it: it is only used where it is a whole piece (ignore_merges)
                merges.append([pretokenizer_patterns.from_bytes(p) for p in parts])
    vocab = {pretokenizer_patterns.from_bytes(token): rank for token, rank in ranks.items()}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return canonical(
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


def _split(token: bytes, ranks: dict[bytes, int], below: int) -> list[bytes]:
    """The token's bytes merged with the ranks below `below`, best first."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        joined = [ranks.get(a + b, below) for a, b in itertools.pairwise(parts)]
        best = min(range(len(joined)), key=joined.__getitem__)
        if joined[best] >= below:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts

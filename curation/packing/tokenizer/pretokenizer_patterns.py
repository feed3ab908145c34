"""Defines the regular expressions that split text into pre-tokens for byte-level BPE, and its byte alphabet.

The patterns are those of published tokenizers (GPT-2: Radford et al. 2019; cl100k and o200k: OpenAI's tiktoken,
tiktoken_ext/openai_public.py); a tokenizer gives its published ids only with its own pattern. New tokenizers are
trained with `OURS`: a word is letters with their combining marks (cl100k splits them in Indic scripts), numbers are
split into groups of at most three digits, and line ends close a pre-token.
"""

from __future__ import annotations

import functools

GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
CL100K = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
_CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = "|".join(
    [
        rf"""[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{_CASE}""",
        rf"""[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{_CASE}""",
        r"""\p{N}{1,3}""",
        r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
        r"""\s*[\r\n]+""",
        r"""\s+(?!\S)""",
        r"""\s+""",
    ]
)
OURS = (
    r"""'(?:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)

# A rank file does not contain its pattern, but its size tells: mergeable ranks -> (pattern, id of <|endoftext|>).
BY_RANKS = {50_256: (GPT2, 50_256), 100_256: (CL100K, 100_257), 199_998: (O200K, 199_999)}


@functools.cache
def byte_alphabet() -> tuple[str, ...]:
    """The printable character that represents each byte in a byte-level vocabulary (GPT-2's encoder.py).

    A printable Latin-1 byte is its own character; the others get U+0100, U+0101, ... in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(b) if b in printable else chr(next(others)) for b in range(256))


@functools.cache
def _bytes_of() -> dict[str, int]:
    return {char: byte for byte, char in enumerate(byte_alphabet())}


def to_bytes(token: str) -> bytes | None:
    """The bytes of a vocabulary entry, or None if it is not written in the byte alphabet."""
    table = _bytes_of()
    try:
        return bytes(table[c] for c in token)
    except KeyError:
        return None


def from_bytes(data: bytes) -> str:
    """Bytes in the byte alphabet, as a vocabulary entry has them."""
    table = byte_alphabet()
    return "".join(table[b] for b in data)

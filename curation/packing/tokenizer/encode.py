"""Encodes text as token ids: with tiktoken if it gives the same ids as the tokenizer.json, else with tokenizers.

tiktoken is about eight times faster. It is used if the tokenizer.json is a plain byte-level BPE whose token ids are in
merge order, and if both engines give equal ids on a set of probe texts with every kind of character and space.

With either engine, special tokens that are spelled out in a text are ordinary text: only the shard writer writes EOS. A
run of more than 65,536 whitespace characters is encoded in parts of that length, since tiktoken's regular expressions
fail at 10^6. Byte-level BPE loses nothing at the cut. For all other input both engines take n log n steps (10 MB of one
letter: 3 s), so nothing else is split.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.core.errors import UserError
from curation.packing.tokenizer import pretokenizer_patterns, sentencepiece
from curation.packing.tokenizer.load_tokenizer import EOS_NAMES, load_tokenizer
from curation.packing.tokenizer.sentencepiece import SentencePieceModel

Ids = npt.NDArray[np.uint32]

FILE = "tokenizer.json"
SPACE_RUN = 65_536
_LONG_SPACE = re.compile(rf"(?<!\s)\s{{{SPACE_RUN}}}\s+")


class Encoder:
    """A loaded tokenizer.

    vocab     ids are below this
    eos       the id of the token before each document
    engine    "tiktoken" or "tokenizers", which give the same ids, or "sentencepiece"
    kind      "bpe" for byte-level BPE, "tokenizers" for any other tokenizer.json, "sentencepiece"
    file      its file name in the directory of the manifest
    lossless  whether decoding restored every probe text exactly
    sha256    of the file
    """

    def __init__(self, data: bytes, *, eos: str | None = None, engine: str | None = None) -> None:
        """`data` is a tokenizer.json or a SentencePiece model. `eos` names its end-of-text token; None: the first of
        EOS_NAMES that it has. `engine` forces "tiktoken" or "tokenizers". Raises UserError if there is no EOS token."""
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.file, self._pieces = FILE, None
        if data.lstrip()[:1] == b"{":
            self._open_json(data, eos, engine)
        else:
            self._pieces = SentencePieceModel(data, eos)
            self.file, self.kind, self.engine = sentencepiece.FILE, "sentencepiece", "sentencepiece"
            self.vocab, self.eos = self._pieces.vocab, self._pieces.eos
        self.lossless = all(self.decode(self._encode(text)) == text for text in probe_texts())

    def _open_json(self, data: bytes, eos: str | None, engine: str | None) -> None:
        from tokenizers import Tokenizer

        self._value = json.loads(data)
        self._hf = Tokenizer.from_str(data.decode())
        self._hf.encode_special_tokens = True
        self._hf.no_padding()
        self._hf.no_truncation()
        self.vocab = 1 + max(self._hf.get_vocab(with_added_tokens=True).values())
        self.eos = self._find_eos(eos)
        ranks = _bpe_ranks(self._value)
        self.kind = "tokenizers" if ranks is None else "bpe"
        self.engine = "tokenizers"
        self._tiktoken: Any = None
        if ranks is not None and engine != "tokenizers":
            self._tiktoken = _tiktoken(*ranks)
            if self._tiktoken_agrees():
                self.engine = "tiktoken"
            elif engine == "tiktoken":
                raise ValueError("tiktoken gives other ids than this tokenizer.json")
            else:
                self._tiktoken = None
        elif engine == "tiktoken":
            raise ValueError("this tokenizer.json is not a byte-level BPE that tiktoken could follow")

    def _find_eos(self, name: str | None) -> int:
        for candidate in EOS_NAMES if name is None else (name,):
            found = self._hf.token_to_id(candidate)
            if found is not None:
                return int(found)
        special = ", ".join(t["content"] for t in self._value.get("added_tokens", ())) or "none"
        wanted = "no end-of-text token of a known name" if name is None else f"no token {name!r}"
        raise UserError(
            f"tokenizer: it has {wanted}; its special tokens are: {special}. Name one of them in tokenizer.eos"
        )

    def _tiktoken_agrees(self) -> bool:
        texts = probe_texts()
        theirs = self._hf.encode_batch_fast(texts, add_special_tokens=False)
        return all(self._tiktoken.encode_ordinary(t) == e.ids for t, e in zip(texts, theirs, strict=True))

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, without EOS: uint32 arrays."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Ids:
        if len(text) > SPACE_RUN and _LONG_SPACE.search(text):
            return np.concatenate([self._encode_part(part) for part in split_long_whitespace(text)])
        return self._encode_part(text)

    def _encode_part(self, text: str) -> Ids:
        if self._pieces is not None:
            return np.array(self._pieces.encode(text), np.uint32)
        if self._tiktoken is not None:
            # no special token is allowed, none is refused: what is spelled out is text
            ids: Ids = self._tiktoken.encode_to_numpy(text, disallowed_special=())
            return ids
        return np.array(self._hf.encode_batch_fast([text], add_special_tokens=False)[0].ids, np.uint32)

    def decode(self, ids: npt.NDArray[Any] | Sequence[int]) -> str:
        """The text of token ids; EOS becomes its name, such as <|endoftext|>."""
        plain = [int(i) for i in ids]
        if self._pieces is not None:
            return self._pieces.decode(plain)
        if self._tiktoken is not None:
            text: str = self._tiktoken.decode(plain)
        else:
            text = self._hf.decode(plain, skip_special_tokens=False)
        return text


@functools.lru_cache(maxsize=2)
def open_encoder(path: str, sha256: str, eos: str | None = None) -> Encoder:
    """The encoder of a tokenizer file, loaded once per process. Raises UserError if the file has changed since."""
    encoder = Encoder(load_tokenizer(path), eos=eos)
    if encoder.sha256 != sha256:
        raise UserError(f"tokenizer: {path} has changed since this run started; restore it or start a new run")
    return encoder


def split_long_whitespace(text: str) -> list[str]:
    """The text in parts: a run of more than 65,536 whitespace characters is split after each 65,536 of them."""
    parts, begin = [], 0
    for run in _LONG_SPACE.finditer(text):
        for at in range(run.start() + SPACE_RUN, run.end(), SPACE_RUN):
            parts.append(text[begin:at])
            begin = at
    return [*parts, text[begin:]]


def _bpe_ranks(value: dict[str, Any]) -> tuple[dict[bytes, int], str, dict[str, int]] | None:
    """(ranks, pattern, special tokens) if a tokenizer.json is a byte-level BPE that tiktoken can express, else None.

    By ranks, the pair whose token has the lowest id is merged first. So merges must be in the order of the ids of their
    tokens, and tokens that no merge makes are allowed only if whole pre-tokens are looked up first (ignore_merges).
    """
    model, cut = value["model"], _pretokenizer_pattern(value.get("pre_tokenizer"))
    plain = model.get("type") == "BPE" and not model.get("dropout") and not model.get("byte_fallback")
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    added = value.get("added_tokens") or []
    if cut is None or not plain or affixes or value.get("normalizer") or not all(t["special"] for t in added):
        return None
    special = {t["content"]: int(t["id"]) for t in added}
    vocab = {token: i for token, i in model["vocab"].items() if token not in special}
    ranks: dict[bytes, int] = {}
    for token, i in vocab.items():
        data = pretokenizer_patterns.to_bytes(token)
        if data is None:
            return None
        ranks[data] = i
    if any(bytes([b]) not in ranks for b in range(256)):
        return None
    made = []
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        made.append(vocab.get(left + right, -1))
    if made != sorted(set(made)) or -1 in made:
        return None
    if len(made) + 256 != len(ranks) and not model.get("ignore_merges"):
        return None
    return ranks, cut, special


def _pretokenizer_pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The pattern by which a byte-level pre-tokenizer splits text; None for any other pre-tokenizer."""
    if pre_tokenizer is None:
        return None
    parts = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    if parts[-1]["type"] != "ByteLevel" or parts[-1]["add_prefix_space"]:
        return None
    if len(parts) == 1:
        return pretokenizer_patterns.GPT2 if parts[0].get("use_regex", True) else None
    split = parts[0]
    simple = len(parts) == 2 and split["type"] == "Split" and not parts[1].get("use_regex", True)
    if not simple or split["behavior"] != "Isolated" or split["invert"] or "Regex" not in split["pattern"]:
        return None
    return str(split["pattern"]["Regex"])


def _tiktoken(ranks: dict[bytes, int], pattern: str, special: dict[str, int]) -> Any:
    import tiktoken

    return tiktoken.Encoding("gristmill", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


@functools.cache
def probe_texts() -> list[str]:
    """Texts on which two engines give different ids if their regular expressions or merges differ.

    A character of every Unicode category and of every block of 256, between letters, digits and spaces; every kind of
    whitespace in runs; contractions; special tokens spelled out; and sentences in some scripts.
    """
    seen: set[tuple[str, int]] = set()
    some = []
    for code in [*range(1, 0xD800), *range(0xE000, 0x32000)]:
        mark = (unicodedata.category(chr(code)), code >> 8)
        if mark not in seen and mark[0] != "Cn":
            seen.add(mark)
            some.append(chr(code))
    spaces = [chr(c) for c in range(0x3001) if chr(c).isspace()]
    around = [f"a{c}b {c}{c} 1{c}2 .{c}! {c}\n" for c in some]
    return [
        *("".join(around[i : i + 200]) for i in range(0, len(around), 200)),
        *("".join(f"x{s}y{s}{s}z {s}\n{s}{s}1\t{s}" for s in spaces[i : i + 4]) for i in range(0, len(spaces), 4)),
        "I'll we've he'd it's I'm they're can't I'LL 'S 'tis ''s 's's",
        "a  b   c    d\n\n\ne\r\n \r\n\tf \n g   ",
        "1 12 123 1234 12345.678 ½ ² ٣٤٥ 一二三",
        "before <|endoftext|> after </s> <eos> <|im_end|>",
        "The quick brown fox, déjà vu; Größe; Привет, мир! 日本語の文章。",
        "नमस्ते दुनिया। สวัสดีชาวโลก مرحبا بالعالم 👩‍👩‍👧‍👦",
        "def f(x):\n    return {'a': [1, 2, x ** 2]}  # comment\n\n\n\tif x != y: pass",
        "e\u0301\u0302\u0327 \u200b\u200d\ufeff\u00ad \ufffd\U0001f600\U0010fffd",
        "\ufffe\uffff\x00\x01\x7f\x85\xa0\u180e\u2028",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ------------------------------- ======== ........",
        "",
    ]

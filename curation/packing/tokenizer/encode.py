"""Text to token ids, fast and exact: tiktoken where it gives the ids of the tokenizer.json, else tokenizers.

Both merge bytes; tiktoken is about eight times faster. It is used when the tokenizer.json is a plain byte-level BPE
whose ranks are its merge order, and when a probe set, with every kind of character and space, gives equal ids.

Two things hold for either engine. Special tokens that a page spells out are ordinary text: only the packer writes
EOS. And a run of more than 65,536 white-space characters is encoded in parts of that length: tiktoken's regular
expressions give up at 10^6. The cut loses nothing, since bytes are bytes wherever they are cut, and elsewhere both
engines take n log n steps for any input (10 MB of one letter: 3 s), so there is nothing else to cut.
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
from curation.packing.tokenizer.load_tokenizer import EOS_NAMES, load
from curation.packing.tokenizer.sentencepiece import Pieces

Ids = npt.NDArray[np.uint32]

FILE = "tokenizer.json"
SPACE_RUN = 65_536
_LONG_SPACE = re.compile(rf"(?<!\s)\s{{{SPACE_RUN}}}\s+")


class Encoder:
    """A tokenizer ready for work.

    vocab     ids are below this
    eos       the id that opens each document
    engine    "tiktoken" or "tokenizers": which of the two encodes, the ids are the same; or "sentencepiece"
    kind      "bpe" for byte-level BPE, "tokenizers" for any other tokenizer.json, "sentencepiece"
    file      what it is called beside the manifest
    lossless  whether decoding gave back every probe text exactly
    sha256    of the file
    """

    def __init__(self, data: bytes, *, eos: str | None = None, engine: str | None = None) -> None:
        """`data` is a tokenizer.json or a SentencePiece model. `eos` names its end-of-text token, else a usual name is
        looked for. `engine` forces one of the two. Raises UserError where there is no such token."""
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.file, self._pieces = FILE, None
        if data.lstrip()[:1] == b"{":
            self._open_json(data, eos, engine)
        else:
            self._pieces = Pieces(data, eos)
            self.file, self.kind, self.engine = sentencepiece.FILE, "sentencepiece", "sentencepiece"
            self.vocab, self.eos = self._pieces.vocab, self._pieces.eos
        self.lossless = all(self.decode(self._encode(text)) == text for text in probe())

    def _open_json(self, data: bytes, eos: str | None, engine: str | None) -> None:
        from tokenizers import Tokenizer

        self._value = json.loads(data)
        self._hf = Tokenizer.from_str(data.decode())
        self._hf.encode_special_tokens = True
        self._hf.no_padding()
        self._hf.no_truncation()
        self.vocab = 1 + max(self._hf.get_vocab(with_added_tokens=True).values())
        self.eos = self._find_eos(eos)
        ranks = _ranks(self._value)
        self.kind = "tokenizers" if ranks is None else "bpe"
        self.engine = "tokenizers"
        self._tiktoken: Any = None
        if ranks is not None and engine != "tokenizers":
            self._tiktoken = _tiktoken(*ranks)
            if self._agrees():
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
        wanted = "no end-of-text token of a usual name" if name is None else f"no token {name!r}"
        raise UserError(f"tokenizer: {wanted} in it; its special tokens are: {special}. Name one with tokenizer.eos")

    def _agrees(self) -> bool:
        texts = probe()
        theirs = self._hf.encode_batch_fast(texts, add_special_tokens=False)
        return all(self._tiktoken.encode_ordinary(t) == e.ids for t, e in zip(texts, theirs, strict=True))

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, without EOS: uint32 arrays."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Ids:
        if len(text) > SPACE_RUN and _LONG_SPACE.search(text):
            return np.concatenate([self._encode_part(part) for part in cut_spaces(text)])
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
        """The text of ids; EOS is written as it is spelled."""
        whole = [int(i) for i in ids]
        if self._pieces is not None:
            return self._pieces.decode(whole)
        if self._tiktoken is not None:
            text: str = self._tiktoken.decode(whole)
        else:
            text = self._hf.decode(whole, skip_special_tokens=False)
        return text


@functools.lru_cache(maxsize=2)
def open_encoder(path: str, sha256: str, eos: str | None = None) -> Encoder:
    """The encoder of a tokenizer file, loaded once a process. Raises UserError if the file is another one by now."""
    encoder = Encoder(load(path), eos=eos)
    if encoder.sha256 != sha256:
        raise UserError(f"tokenizer: {path} has changed since this run began; run again with the file left alone")
    return encoder


def cut_spaces(text: str) -> list[str]:
    """The text in parts, cut inside every white-space run of more than 65,536 characters, each 65,536 of the run."""
    parts, begin = [], 0
    for run in _LONG_SPACE.finditer(text):
        for at in range(run.start() + SPACE_RUN, run.end(), SPACE_RUN):
            parts.append(text[begin:at])
            begin = at
    return [*parts, text[begin:]]


def _ranks(value: dict[str, Any]) -> tuple[dict[bytes, int], str, dict[str, int]] | None:
    """(ranks, pattern, special tokens) where a tokenizer.json is a byte-level BPE that ranks can express, else None.

    Ranks say that a pair merges before another when its token has the lower id. So the merges must stand in the order
    of the ids they make, and a token that no merge makes may exist only where whole pieces are looked up first.
    """
    model, cut = value["model"], _pattern(value.get("pre_tokenizer"))
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


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The pattern with which a byte-level pre-tokenizer cuts; None for any other."""
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
def probe() -> list[str]:
    """Texts on which two engines would differ if their regular expressions or merges did.

    A character of every Unicode category and of every block of 256, between letters, digits and spaces; every kind of
    white space in runs; contractions; special tokens spelled out; and sentences in some scripts.
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

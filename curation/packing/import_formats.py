"""Reads token files of other trainers (nanoGPT, llm.c, Megatron-LM, Hugging Face datasets) as documents.

The formats are those of export_formats.py. EOS may come before or after each document. These formats store no ids, URLs
or sources, so the id becomes a hash of the file's name and the document's number. Nothing in these files says which
tokenizer made them, so ids, type and the rate of EOS are checked before anything is written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from curation.core.errors import UserError
from curation.packing import token_rows
from curation.packing.export_formats import LLMC_HEADERS, MEGATRON_MAGIC, TokenFormat
from curation.packing.merge import TokenDocument
from curation.packing.train_validation_split import TRAIN

Rows = Literal["documents", "stream"]
Stream = npt.NDArray[Any]

# Megatron's type codes; it has no uint32, so large vocabularies are written as int32
_MEGATRON_TYPES = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    6: np.float64,
    7: np.float32,
    8: np.uint16,
}
CHECKED = 1 << 24  # ids checked at once: 64 MiB of uint32
# Tokens a document, EOS included, below which EOS is no end of text: ids of uint32 read as uint16 give 2, and the
# shortest texts that corpora have (titles, queries, posts) 8 to 30
SHORTEST_MEAN, MANY = 4, 100


def read_token_file(
    path: str,
    kind: TokenFormat,
    eos: int,
    domain: str,
    split: str = TRAIN,
    *,
    vocab: int | None = None,
    rows: Rows | None = None,
    dtype: Literal["uint16", "uint32"] | None = None,
    name: str | None = None,
) -> Iterator[tuple[str, str, TokenDocument]]:
    """Yields (split, domain, document) of a file (Megatron: a .bin with its .idx) for `write_token_documents`.

    vocab  ids must be below it
    rows   documents: what is between two EOS, or a row of a table, is a document; stream: rows are parts of one stream,
           which EOS divides. None: documents, unless the file looks as if that were wrong, which is an error
    dtype  of a nanoGPT file, uint16 by default
    name   of the file, as part of the documents' ids; default: without its folder

    Raises UserError for a file of another format, and for tokens that this tokenizer did not make.
    """
    name = name or os.path.basename(path)
    if os.path.isdir(path) and kind != "datasets":
        raise UserError(f"{path}: is a folder; name its files (folders of Hugging Face datasets: --from datasets)")
    if kind == "datasets":
        parts = token_rows.read(path, rows, eos)
        streams = [(place, at.values, at.bounds if rows != "stream" else None) for place, at in parts]
    elif kind == "megatron":
        streams = [(path, *_read_megatron(path))]
    else:
        stream = _read_nanogpt(path, dtype, vocab) if kind == "nanogpt" else _read_llmc(path)
        streams = [(path, stream, None)]
    for place, stream, known in streams:
        check_ids(place, stream, vocab)
        bounds = _document_bounds(stream, eos) if known is None else known
        if known is None and rows is None:
            _check_eos_rate(place, stream, eos, len(bounds) - 1)
        inside = name if place == path else f"{name}/{os.path.relpath(place, path)}"
        for number, (begin, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            low = begin + (end > begin and int(stream[begin]) == eos)
            high = end - (end > low and int(stream[end - 1]) == eos)
            tokens = partial(_slice, stream, low, high)
            yield split, domain, _token_document(inside, kind, number, begin, end, tokens, high - low)


def check_ids(path: str, stream: Stream, vocab: int | None) -> None:
    """Raises UserError for an empty stream and for an id that the tokenizer does not have, naming where it is."""
    if not len(stream):
        raise UserError(f"{path}: has no tokens\n  leave the file out")
    for begin in range(0, len(stream) if vocab is not None else 0, CHECKED):
        part = stream[begin : begin + CHECKED]
        for wrong in (part.max(), part.min()):
            if not 0 <= wrong < (vocab or 0):
                at = begin + int(np.flatnonzero(part == wrong)[0])
                raise UserError(
                    f"{path}: token {at:,} is {int(wrong):,}, and the ids of the tokenizer are 0 to "
                    f"{(vocab or 1) - 1:,}\n  give the tokenizer that made these tokens (--tokenizer) or, for nanogpt, "
                    "the type of the file (--dtype uint16 or uint32)"
                )


def _check_eos_rate(path: str, stream: Stream, eos: int, documents: int) -> None:
    """Raises UserError where EOS is so rare, or so frequent, that it is no end of text."""
    if documents > MANY and len(stream) < SHORTEST_MEAN * documents:
        raise UserError(
            f"{path}: every {len(stream) / documents:.1f} tokens there is an EOS (id {eos}): these are no documents\n"
            "  check the tokenizer (--tokenizer, --eos) and the type of the file (--dtype); if the documents are that "
            "short, add --rows documents"
        )
    if documents == 1 and len(stream) > 1 and eos not in (int(stream[0]), int(stream[-1])):
        raise UserError(
            f"{path}: its {len(stream):,} tokens have no EOS (id {eos}), which divides documents\n"
            "  check the tokenizer (--tokenizer, --eos); if the file is one text, add --rows stream"
        )


def _slice(stream: Stream, low: int, high: int) -> Stream:
    return stream[low:high]


def _token_document(
    name: str, kind: str, number: int, begin: int, end: int, tokens: Callable[[], npt.NDArray[Any]], length: int
) -> TokenDocument:
    doc_id = hashlib.blake2b(f"{name}\0{number}".encode(), digest_size=16).digest()
    source = {"file": name, "kind": kind, "offset": begin, "length": end - begin, "row": number}
    return TokenDocument(doc_id, length, tokens, None, source)


def _document_bounds(stream: Stream, eos: int) -> npt.NDArray[np.int64]:
    """Start of each document and end of the last one, whether EOS comes before or after documents."""
    at = np.flatnonzero(stream == eos).astype(np.int64)
    if len(stream) and len(at) and at[0] == 0:
        return np.append(at, len(stream))
    ends = np.append(at + 1, len(stream)) if not len(at) or at[-1] != len(stream) - 1 else at + 1
    return np.concatenate([[0], ends]).astype(np.int64)


def _read_nanogpt(path: str, dtype: str | None, vocab: int | None) -> Stream:
    """A file without a header: its type is what the caller says, checked as far as the numbers show it."""
    if dtype is None and (vocab or 0) > 1 << 16:
        raise UserError(f"{path}: uint16 cannot hold the {vocab:,} ids of the tokenizer\n  add --dtype uint32")
    stream = _map(path, np.dtype(dtype or "uint16").newbyteorder("<"))
    high = stream[1::2][:CHECKED]  # of uint32 read as uint16: the upper halves, all zero for ids below 65,536
    if dtype is None and len(high) > MANY and not high.any():
        raise UserError(
            f"{path}: every second number is 0, as in a file of uint32\n  add --dtype uint32 (or --dtype uint16, if "
            "that is what it is)"
        )
    return stream


def _read_llmc(path: str) -> Stream:
    head = np.fromfile(path, "<i4", 256)
    found = next((d for d, mark in LLMC_HEADERS.items() if len(head) == 256 and mark == tuple(head[:2].tolist())), None)
    if found is None:
        raise UserError(f"{path}: not a token file of llm.c (it starts with {head[:2].tolist()}){_looks_like(path)}")
    size = os.path.getsize(path) - 1024
    if size != int(head[2]) * found.itemsize:
        raise UserError(f"{path}: truncated: {size // found.itemsize} tokens, its header says {int(head[2])}")
    return _map(path, found)[1024 // found.itemsize :]


def _read_megatron(path: str) -> tuple[Stream, npt.NDArray[np.int64]]:
    base = path.removesuffix(".bin").removesuffix(".idx")
    index, path = f"{base}.idx", f"{base}.bin"
    for needed in (index, path):
        if not os.path.isfile(needed):
            raise UserError(f"{needed}: no such file\n  Megatron-LM's format is two files, NAME.bin and NAME.idx")
    with open(index, "rb") as f:
        data = f.read()
    if data[:9] != MEGATRON_MAGIC or int.from_bytes(data[9:17], "little") != 1:
        raise UserError(f"{index}: not an index of Megatron-LM, version 1 (it starts with {data[:9]!r})")
    kind = np.dtype(_MEGATRON_TYPES.get(data[17] if len(data) > 17 else 0, np.float64))
    count = int.from_bytes(data[18:26], "little")
    if kind.kind not in "iu":
        raise UserError(f"{index}: its tokens are no whole numbers (type code {data[17:18].hex()})")
    if len(data) < 34 + 12 * count:
        raise UserError(f"{index}: truncated: {len(data):,} bytes, its header says {count:,} sequences")
    length = np.frombuffer(data, "<i4", count, 34).astype(np.int64)
    offsets = np.frombuffer(data, "<i8", count, 34 + 4 * count)
    if (offsets != (np.cumsum(length) - length) * kind.itemsize).any():
        raise UserError(f"{index}: its sequences are not contiguous; write the file again with Megatron-LM's own tools")
    if os.path.getsize(path) != int(length.sum()) * kind.itemsize:
        raise UserError(
            f"{path}: {os.path.getsize(path):,} bytes, and its index says {int(length.sum()):,} tokens of "
            f"{kind.itemsize} bytes\n  copy both files again"
        )
    return _map(path, kind), np.concatenate([[0], np.cumsum(length)])


def _map(path: str, dtype: np.dtype[Any]) -> Stream:
    """The numbers of a file, mapped. Raises UserError for an empty one, and for one that has half a number."""
    size = os.path.getsize(path)
    if not size:
        raise UserError(f"{path}: is empty\n  leave the file out")
    if size % dtype.itemsize or _looks_like(path):
        halves = f": {size:,} bytes are no whole number of {dtype.name}" if size % dtype.itemsize else ""
        raise UserError(f"{path}: not a file of {dtype.name} tokens{halves}{_looks_like(path)}")
    return np.memmap(path, dtype, "r")


def _looks_like(path: str) -> str:
    """What a file is by its first bytes, as the end of an error; empty if they say nothing."""
    with open(path, "rb") as f:
        start = f.read(8)
    forms = {b"PAR1": "Parquet", b"ARROW1": "an Arrow file", b"\x93NUMPY": "a NumPy file", b"PK\x03\x04": "a zip file"}
    found = next((what for magic, what in forms.items() if start.startswith(magic)), None)
    if found is None:
        return ""
    return f"\n  it is {found}" + (": add --from datasets" if found in ("Parquet", "an Arrow file") else "")

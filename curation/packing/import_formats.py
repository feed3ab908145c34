"""Reads token files of other trainers (nanoGPT, llm.c, Megatron-LM, Hugging Face datasets) as documents.

The formats are those of export_formats.py. EOS may come before or after each document. These formats store no ids, URLs
or sources, so the id becomes a hash of the file's name and the document's number.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.core.errors import UserError
from curation.packing.export_formats import LLMC_HEADERS, MEGATRON_MAGIC, TokenFormat
from curation.packing.merge import TokenDocument
from curation.packing.train_validation_split import TRAIN

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


def read_token_file(
    path: str, kind: TokenFormat, eos: int, domain: str, split: str = TRAIN
) -> Iterator[tuple[str, str, TokenDocument]]:
    """Yields (split, domain, document) of a file (Megatron: a .bin with its .idx) for `write_token_documents`.

    Raises UserError for a file of another format.
    """
    name = os.path.basename(path)
    if kind == "datasets":
        yield from _read_rows(path, eos, domain, split)
        return
    if kind == "megatron":
        stream, bounds = _read_megatron(path)
    else:
        stream, first = _read_stream(path, kind)
        bounds = _document_bounds(stream[first:], eos) + first
    for number, (begin, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        low = begin + (end > begin and int(stream[begin]) == eos)
        high = end - (end > low and int(stream[end - 1]) == eos)
        tokens = partial(_slice, stream, low, high)
        yield split, domain, _token_document(name, kind, number, begin, end, tokens, high - low)


def _slice(stream: npt.NDArray[Any], low: int, high: int) -> npt.NDArray[Any]:
    return stream[low:high]


def _token_document(
    name: str, kind: str, number: int, begin: int, end: int, tokens: Callable[[], npt.NDArray[Any]], length: int
) -> TokenDocument:
    doc_id = hashlib.blake2b(f"{name}\0{number}".encode(), digest_size=16).digest()
    source = {"file": name, "kind": kind, "offset": begin, "length": end - begin, "row": number}
    return TokenDocument(doc_id, length, tokens, None, source)


def _document_bounds(stream: npt.NDArray[Any], eos: int) -> npt.NDArray[np.int64]:
    """Start of each document and end of the last one, whether EOS comes before or after documents."""
    at = np.flatnonzero(stream == eos).astype(np.int64)
    if len(stream) and len(at) and at[0] == 0:
        return np.append(at, len(stream))
    ends = np.append(at + 1, len(stream)) if not len(at) or at[-1] != len(stream) - 1 else at + 1
    return np.concatenate([[0], ends]).astype(np.int64)


def _read_stream(path: str, kind: str) -> tuple[npt.NDArray[Any], int]:
    if kind == "nanogpt":
        return np.memmap(path, "<u2", "r"), 0
    head = np.fromfile(path, "<i4", 256)
    found = next((d for d, mark in LLMC_HEADERS.items() if len(head) == 256 and mark == tuple(head[:2].tolist())), None)
    if found is None:
        raise UserError(f"{path}: not a token file of llm.c (it starts with {head[:2].tolist()})")
    stream = np.memmap(path, found, "r")
    first = 1024 // found.itemsize
    if len(stream) - first != int(head[2]):
        raise UserError(f"{path}: truncated: {len(stream) - first} tokens, its header says {int(head[2])}")
    return stream, first


def _read_megatron(path: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    index = path.removesuffix(".bin") + ".idx"
    with open(index, "rb") as f:
        data = f.read()
    if data[:9] != MEGATRON_MAGIC or int.from_bytes(data[9:17], "little") != 1:
        raise UserError(f"{index}: not an index of Megatron-LM, version 1 (it starts with {data[:9]!r})")
    kind = np.dtype(_MEGATRON_TYPES[data[17]])
    count = int.from_bytes(data[18:26], "little")
    length = np.frombuffer(data, "<i4", count, 34).astype(np.int64)
    offsets = np.frombuffer(data, "<i8", count, 34 + 4 * count)
    if (offsets != (np.cumsum(length) - length) * kind.itemsize).any():
        raise UserError(f"{index}: its sequences are not contiguous; write the file again with Megatron-LM's own tools")
    return np.memmap(path, kind, "r"), np.concatenate([[0], np.cumsum(length)])


def _read_rows(path: str, eos: int, domain: str, split: str) -> Iterator[tuple[str, str, TokenDocument]]:
    import pyarrow as pa

    with pa.memory_map(path) as file:
        try:
            table = pa.ipc.open_file(file).read_all()
        except pa.ArrowInvalid:
            table = pa.ipc.open_stream(file).read_all()
    name = os.path.basename(path)
    column = next((c for c in ("tokens", "input_ids") if c in table.column_names), None)
    if column is None:
        raise UserError(f"{path}: no column tokens or input_ids; its columns are {', '.join(table.column_names)}")
    for number, ids in enumerate(table[column]):
        tokens = np.asarray(ids.as_py(), np.uint32)
        low = int(len(tokens) > 0 and tokens[0] == eos)
        high = len(tokens) - int(len(tokens) > low and tokens[-1] == eos)
        chosen = partial(_slice, tokens, low, high)
        yield split, domain, _token_document(name, "datasets", number, number, number + 1, chosen, high - low)

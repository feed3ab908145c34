"""Shards in the formats that others read, and back.

    nanogpt    one stream of uint16 a split (nanoGPT's data/*/prepare.py)
    llmc       the same behind 256 int32: magic, version, count (llm.c's dev/data/data_common.py: 20240520, version 1,
               uint16; or 20240801, version 7, uint32)
    megatron   .bin of sequences, .idx with their lengths and places (Megatron-LM's indexed_dataset.py: MMIDIDX,
               version 1); a sequence is a document, its EOS behind it
    datasets   Arrow files that `datasets.load_dataset` opens: the shards themselves, linked under its names

In a stream each document opens with EOS, as in the shards; reading takes EOS before or behind documents. What these
formats do not hold (ids, URLs, sources) is lost on the way out, and made up on the way in: the id is a hash of the
file's name and the document's number.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from curation import shards
from curation.core.errors import UserError
from curation.packing.merge import Packed
from curation.packing.train_validation_split import TRAIN

Format = Literal["nanogpt", "llmc", "megatron", "datasets"]
LLMC: dict[np.dtype[Any], tuple[int, int]] = {np.dtype(np.uint16): (20240520, 1), np.dtype(np.uint32): (20240801, 7)}
_MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
# Megatron's codes; it has no uint32, so large vocabularies go as int32
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


def export(manifest: shards.Manifest, to: Format, out: str) -> list[str]:
    """Writes every split and domain of a run as `to` into the folder `out`; the files written."""
    os.makedirs(out, exist_ok=True)
    written: list[str] = []
    for split, domains in manifest.splits.items():
        for domain, entries in domains.items():
            opened = (
                shards.open_shard(manifest.path(e), entry=e, tokenizer=manifest.tokenizer.sha256)
                for e in entries.shards
            )
            base = os.path.join(out, f"{split}-{domain}")
            if to == "megatron":
                written += _megatron(base, opened, manifest.itemsize)
            elif to == "datasets":
                written += _datasets(out, split, domain, manifest, entries)
            else:
                if to == "nanogpt" and manifest.itemsize == 4:
                    raise UserError(
                        f"nanoGPT's format holds ids below 65,536 and this vocabulary has {manifest.tokenizer.vocab}; "
                        "export to llmc, megatron or datasets"
                    )
                written.append(f"{base}.bin")
                _stream(f"{base}.bin", opened, entries.tokens, manifest.itemsize, header=to == "llmc")
    return written


def _stream(path: str, opened: Iterator[shards.Shard], count: int, itemsize: int, *, header: bool) -> None:
    with open(path, "wb") as f:
        if header:
            head = np.zeros(256, "<i4")
            head[0], head[1] = LLMC[np.dtype(f"u{itemsize}")]
            if count >= 1 << 31:
                raise UserError(f"llm.c's header counts tokens in 31 bits; this domain has {count:,}: export by run")
            head[2] = count
            f.write(head.tobytes())
        for shard in opened:
            shard.tokens.tofile(f)


def _megatron(base: str, opened: Iterator[shards.Shard], itemsize: int) -> list[str]:
    sizes: list[npt.NDArray[np.int64]] = []
    with open(f"{base}.bin", "wb") as f:
        for shard in opened:
            # [EOS] a b c [EOS] d e  ->  a b c [EOS] d e [EOS]
            stream = np.append(shard.tokens[1:], shard.tokens.dtype.type(shard.eos))
            stream.astype(np.uint16 if itemsize == 2 else np.int32, copy=False).tofile(f)
            sizes.append(np.diff(shard.offsets))
    length = np.concatenate(sizes)
    with open(f"{base}.idx", "wb") as f:
        f.write(_MEGATRON_MAGIC + np.array(1, "<u8").tobytes() + bytes([8 if itemsize == 2 else 4]))
        f.write(np.array([len(length), len(length) + 1], "<u8").tobytes())
        f.write(length.astype("<i4").tobytes())
        f.write(((np.cumsum(length) - length) * itemsize).astype("<i8").tobytes())
        f.write(np.arange(len(length) + 1, dtype="<i8").tobytes())
    return [f"{base}.bin", f"{base}.idx"]


def _datasets(out: str, split: str, domain: str, manifest: shards.Manifest, entries: shards.DomainShards) -> list[str]:
    written = []
    folder = os.path.join(out, domain)
    os.makedirs(folder, exist_ok=True)
    for i, entry in enumerate(entries.shards):
        path = os.path.join(folder, f"{split}-{i:05d}-of-{len(entries):05d}.arrow")
        source = manifest.path(entry)
        if shards.is_remote(source):
            with open(path, "wb") as f:
                f.write(shards.read_file(source))
        else:
            try:
                os.link(source, path)
            except OSError:  # another filesystem
                shutil.copyfile(source, path)
        written.append(path)
    return written


def read(path: str, kind: Format, eos: int, domain: str, split: str = TRAIN) -> Iterator[tuple[str, str, Packed]]:
    """The documents of a file (Megatron: of its .bin, the .idx beside it), for `gather`.

    Raises UserError for a file that is not of this kind.
    """
    name = os.path.basename(path)
    if kind == "datasets":
        yield from _read_rows(path, eos, domain, split)
        return
    if kind == "megatron":
        stream, bounds = _read_megatron(path)
    else:
        stream, first = _read_stream(path, kind)
        bounds = _documents(stream[first:], eos) + first
    for number, (begin, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        low = begin + (end > begin and int(stream[begin]) == eos)
        high = end - (end > low and int(stream[end - 1]) == eos)
        yield split, domain, _packed(name, kind, number, begin, end, partial(_slice, stream, low, high), high - low)


def _slice(stream: npt.NDArray[Any], low: int, high: int) -> npt.NDArray[Any]:
    return stream[low:high]


def _packed(
    name: str, kind: str, number: int, begin: int, end: int, tokens: Callable[[], npt.NDArray[Any]], length: int
) -> Packed:
    doc_id = hashlib.blake2b(f"{name}\0{number}".encode(), digest_size=16).digest()
    source = {"file": name, "kind": kind, "offset": begin, "length": end - begin, "row": number}
    return Packed(doc_id, length, tokens, None, source)


def _documents(stream: npt.NDArray[Any], eos: int) -> npt.NDArray[np.int64]:
    """Where documents begin and the last one ends, whether EOS stands before documents or behind them."""
    at = np.flatnonzero(stream == eos).astype(np.int64)
    if len(stream) and len(at) and at[0] == 0:
        return np.append(at, len(stream))
    ends = np.append(at + 1, len(stream)) if not len(at) or at[-1] != len(stream) - 1 else at + 1
    return np.concatenate([[0], ends]).astype(np.int64)


def _read_stream(path: str, kind: str) -> tuple[npt.NDArray[Any], int]:
    if kind == "nanogpt":
        return np.memmap(path, "<u2", "r"), 0
    head = np.fromfile(path, "<i4", 256)
    found = next((d for d, mark in LLMC.items() if len(head) == 256 and mark == tuple(head[:2].tolist())), None)
    if found is None:
        raise UserError(f"{path}: not a token file of llm.c (it begins with {head[:2].tolist()})")
    stream = np.memmap(path, found, "r")
    first = 1024 // found.itemsize
    if len(stream) - first != int(head[2]):
        raise UserError(f"{path}: truncated: {len(stream) - first} tokens, its header says {int(head[2])}")
    return stream, first


def _read_megatron(path: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    index = path.removesuffix(".bin") + ".idx"
    with open(index, "rb") as f:
        data = f.read()
    if data[:9] != _MEGATRON_MAGIC or int.from_bytes(data[9:17], "little") != 1:
        raise UserError(f"{index}: not an index of Megatron's, version 1 (it begins with {data[:9]!r})")
    kind = np.dtype(_MEGATRON_TYPES[data[17]])
    count = int.from_bytes(data[18:26], "little")
    length = np.frombuffer(data, "<i4", count, 34).astype(np.int64)
    places = np.frombuffer(data, "<i8", count, 34 + 4 * count)
    if (places != (np.cumsum(length) - length) * kind.itemsize).any():
        raise UserError(
            f"{index}: its sequences do not stand one behind the other; write it anew with Megatron's tools"
        )
    return np.memmap(path, kind, "r"), np.concatenate([[0], np.cumsum(length)])


def _read_rows(path: str, eos: int, domain: str, split: str) -> Iterator[tuple[str, str, Packed]]:
    import pyarrow as pa

    with pa.memory_map(path) as file:
        try:
            table = pa.ipc.open_file(file).read_all()
        except pa.ArrowInvalid:
            table = pa.ipc.open_stream(file).read_all()
    column = next((c for c in ("tokens", "input_ids") if c in table.column_names), None)
    if column is None:
        raise UserError(f"{path}: has no column tokens or input_ids; it has {', '.join(table.column_names)}")
    for number, ids in enumerate(table[column]):
        tokens = np.asarray(ids.as_py(), np.uint32)
        low = int(len(tokens) > 0 and tokens[0] == eos)
        high = len(tokens) - int(len(tokens) > low and tokens[-1] == eos)
        packed = _packed(
            os.path.basename(path),
            "datasets",
            number,
            number,
            number + 1,
            partial(_slice, tokens, low, high),
            high - low,
        )
        yield split, domain, packed

"""Exports shards to the token formats of other trainers: nanoGPT, llm.c, Megatron-LM, datasets, MDS, litdata.

    nanogpt    one stream of uint16 for each split (nanoGPT's data/*/prepare.py)
    llmc       the same after a header of 256 int32: magic, version, count (llm.c's dev/data/data_common.py: 20240520,
               version 1, uint16; or 20240801, version 7, uint32)
    megatron   .bin of sequences, .idx with their lengths and offsets (Megatron-LM's indexed_dataset.py: MMIDIDX,
               version 1); a sequence is a document, followed by its EOS
    datasets   Arrow files that `datasets.load_dataset` opens: the shards themselves, linked under its names
    mds, litdata   folders that MosaicML streaming and litdata stream from (streaming_formats.py)

In a stream each document starts with EOS, as in the shards. Document ids (but in datasets and mds), URLs and sources
are lost: these formats do not store them. import_formats.py reads all but mds and litdata.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from curation import shards
from curation.core.errors import UserError
from curation.packing.streaming_formats import write_litdata, write_mds

TokenFormat = Literal["nanogpt", "llmc", "megatron", "datasets"]
ExportFormat = Literal[TokenFormat, "mds", "litdata"]
LLMC_HEADERS: dict[np.dtype[Any], tuple[int, int]] = {
    np.dtype(np.uint16): (20240520, 1),
    np.dtype(np.uint32): (20240801, 7),
}
MEGATRON_MAGIC = b"MMIDIDX\x00\x00"


def export_shards(manifest: shards.Manifest, to: ExportFormat, out: str) -> list[str]:
    """Writes every split and domain of a run in the format `to` into the folder `out`; returns the files.

    Raises UserError if the format cannot store the tokens, or if a file of that name exists: an earlier export may be
    hard links to shards that a run still has.
    """
    os.makedirs(out, exist_ok=True)
    try:
        return _write_all(manifest, to, out)
    except FileExistsError as error:
        raise UserError(f"{error.filename} exists already; export to an empty folder") from error


def _write_all(manifest: shards.Manifest, to: ExportFormat, out: str) -> list[str]:
    written: list[str] = []
    for split, domains in manifest.splits.items():
        for domain, entries in domains.items():
            open_shards = (_open_whole(manifest, e) for e in entries.shards)
            base = os.path.join(out, f"{split}-{domain}")
            if to in WRITERS:
                written += WRITERS[to](base, open_shards, manifest.itemsize)
            elif to == "datasets":
                written += _write_datasets(out, split, domain, manifest, entries)
            else:
                if to == "nanogpt" and manifest.itemsize == 4:
                    raise UserError(
                        f"nanoGPT's format stores ids below 65,536 and this vocabulary has {manifest.tokenizer.vocab}; "
                        "export to llmc, megatron or datasets"
                    )
                written.append(f"{base}.bin")
                _write_stream(f"{base}.bin", open_shards, entries.tokens, manifest.itemsize, header=to == "llmc")
    return written


def _open_whole(manifest: shards.Manifest, entry: shards.ShardEntry) -> shards.Shard:
    """Opens a shard whose bytes are those of the manifest: what is copied from a damaged one would look whole."""
    shards.verify_entry(manifest, entry)
    return shards.open_shard(manifest.path(entry), entry=entry, tokenizer=manifest.tokenizer.sha256)


def _write_stream(path: str, open_shards: Iterator[shards.Shard], count: int, itemsize: int, *, header: bool) -> None:
    with open(path, "xb") as f:
        if header:
            head = np.zeros(256, "<i4")
            head[0], head[1] = LLMC_HEADERS[np.dtype(f"u{itemsize}")]
            if count >= 1 << 31:
                raise UserError(
                    f"llm.c's header counts tokens in 31 bits and this domain has {count:,}; export to another format"
                )
            head[2] = count
            f.write(head.tobytes())
        for shard in open_shards:
            shard.tokens.tofile(f)


def _write_megatron(base: str, open_shards: Iterator[shards.Shard], itemsize: int) -> list[str]:
    sizes: list[npt.NDArray[np.int64]] = []
    with open(f"{base}.bin", "xb") as f:
        for shard in open_shards:
            # [EOS] a b c [EOS] d e  ->  a b c [EOS] d e [EOS]
            stream = np.append(shard.tokens[1:], shard.tokens.dtype.type(shard.eos))
            stream.astype(np.uint16 if itemsize == 2 else np.int32, copy=False).tofile(f)
            sizes.append(np.diff(shard.offsets))
    length = np.concatenate(sizes)
    with open(f"{base}.idx", "xb") as f:
        f.write(MEGATRON_MAGIC + np.array(1, "<u8").tobytes() + bytes([8 if itemsize == 2 else 4]))
        f.write(np.array([len(length), len(length) + 1], "<u8").tobytes())
        f.write(length.astype("<i4").tobytes())
        f.write(((np.cumsum(length) - length) * itemsize).astype("<i8").tobytes())
        f.write(np.arange(len(length) + 1, dtype="<i8").tobytes())
    return [f"{base}.bin", f"{base}.idx"]


WRITERS = {"megatron": _write_megatron, "mds": write_mds, "litdata": write_litdata}


def _write_datasets(
    out: str, split: str, domain: str, manifest: shards.Manifest, entries: shards.DomainShards
) -> list[str]:
    written = []
    folder = os.path.join(out, domain)
    os.makedirs(folder, exist_ok=True)
    for i, entry in enumerate(entries.shards):
        path = os.path.join(folder, f"{split}-{i:05d}-of-{len(entries):05d}.arrow")
        source = manifest.path(entry)
        shards.verify_entry(manifest, entry)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "exists", path)
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

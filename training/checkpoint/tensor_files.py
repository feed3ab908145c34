"""Writes and reads the tensors of a checkpoint as safetensors files with a JSON index; nothing is ever unpickled.

torch.distributed.checkpoint plans who writes and reads which part of which tensor, so a checkpoint of any number of
ranks loads on any other. Its own storage keeps that plan in a pickle (`.metadata`), and whoever opens a pickle runs the
code in it; its Hugging Face storage builds each file in memory, a second copy of a rank's share. Here each rank writes
one `rank-00000.safetensors`, tensor by tensor, and the first rank writes `tensors.json`: of each tensor its type, its
shape and which file holds which part.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

INDEX, SUFFIX = "tensors.json", ".safetensors"
# What safetensors calls the types that training stores
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in _TYPES}


class CheckpointError(Exception):
    """A checkpoint that is damaged or does not belong to this run."""


def file_of_rank(rank: int) -> str:
    return f"rank-{rank:05d}{SUFFIX}"


def is_tensor_file(name: str) -> bool:
    return re.fullmatch(r"rank-\d{5,}" + re.escape(SUFFIX), name) is not None


def entry_name(tensor: str, offsets: Sequence[int]) -> str:
    """The name in a safetensors file of the part of a tensor that begins at `offsets`; a whole tensor keeps its own."""
    return f"{tensor}[{','.join(map(str, offsets))}]" if any(offsets) else tensor


class SafetensorsWriter(StorageWriter):
    """Writes a checkpoint into a folder: each rank its file, the first rank the index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        pass

    def set_up_storage_writer(self, is_coordinator: bool, *_: Any, **__: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        self.folder.mkdir(parents=True, exist_ok=True)
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        for rank, plan in enumerate(plans):
            object.__setattr__(plan, "storage_data", file_of_rank(rank))  # frozen; its other fields differ by version
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes this rank's tensors; memory holds one of them at a time beside what is saved."""
        # Large types first, so that every tensor begins at a multiple of its element's size
        items = sorted(plan.items, key=lambda item: -_about(item)[0].itemsize)
        if items:
            with open(self.folder / plan.storage_data, "wb") as f:
                f.write(_header(items))
                for item in items:
                    tensor = planner.resolve_data(item)
                    assert isinstance(tensor, Tensor)
                    f.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(i.index, _size(i), plan.storage_data) for i in items])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        files = {(r.index.fqn, tuple(r.index.offset or ())): r.storage_data for part in results for r in part}
        tensors = {}
        for name, about in metadata.state_dict_metadata.items():
            assert isinstance(about, TensorStorageMetadata)
            chunks = [
                {"offsets": list(c.offsets), "sizes": list(c.sizes), "file": files[name, tuple(c.offsets)]}
                for c in about.chunks
            ]
            dtype = str(about.properties.dtype).removeprefix("torch.")
            tensors[name] = {"dtype": dtype, "shape": list(about.size), "chunks": chunks}
        (self.folder / INDEX).write_text(json.dumps(tensors, sort_keys=True))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


class SafetensorsReader(StorageReader):
    """Reads a checkpoint's parts of tensors from its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._chunks: dict[MetadataIndex, tuple[str, torch.Size]] = {}  # of each part its file and shape

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        pass

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The tensors and their parts. Raises CheckpointError for an index that is damaged or names other files."""
        where, tensors = self.folder / INDEX, dict[str, Any]()
        try:
            for name, about in json.loads(where.read_text()).items():
                shape, chunks = torch.Size(about["shape"]), []
                for chunk in about["chunks"]:
                    offsets, sizes, file = torch.Size(chunk["offsets"]), torch.Size(chunk["sizes"]), chunk["file"]
                    if not is_tensor_file(file):
                        raise ValueError(f"{name} is in {file!r}, which is no file of tensors")
                    if not all(0 <= o <= o + s <= n for o, s, n in zip(offsets, sizes, shape, strict=True)):
                        raise ValueError(f"a part of {name} is outside its shape {list(shape)}")
                    chunks.append(ChunkStorageMetadata(offsets, sizes))
                    self._chunks[MetadataIndex(name, offsets)] = file, sizes
                if sum(math.prod(c.sizes) for c in chunks) != math.prod(shape):
                    raise ValueError(f"the parts of {name} do not make up its shape {list(shape)}")
                tensors[name] = TensorStorageMetadata(TensorProperties(_NAMES[about["dtype"]]), shape, chunks)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{where}: damaged: {error}") from error
        return Metadata(tensors)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *_: Any, **__: Any) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_file: dict[str, list[ReadItem]] = {}
        for item in plan.items:
            by_file.setdefault(self._chunks[item.storage_index][0], []).append(item)
        for file, items in by_file.items():
            for item, part in self._read(self.folder / file, items):
                target = planner.resolve_tensor(item).detach()
                target.copy_(part)
                planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _read(self, path: Path, items: Sequence[ReadItem]) -> Iterator[tuple[ReadItem, Tensor]]:
        """The parts of tensors as views over the mapped file. Raises CheckpointError."""
        try:
            with safe_open(path, framework="pt") as f:
                for item in items:
                    index = item.storage_index
                    tensor = f.get_tensor(entry_name(index.fqn, index.offset or ()))
                    if tensor.shape != self._chunks[index][1]:
                        raise ValueError(f"{index.fqn} is {list(tensor.shape)}, {INDEX} has another shape")
                    for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                        tensor = tensor.narrow(dim, start, length)
                    yield item, tensor
        except (OSError, SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path}: damaged: {error}") from error

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


def check_index(folder: Path, listed: Collection[str]) -> None:
    """Compares the index with the heads of the tensor files, without reading tensors. Raises CheckpointError."""
    reader = SafetensorsReader(folder)
    reader.read_metadata()
    wanted: dict[str, set[str]] = {}
    for index, (file, _) in reader._chunks.items():
        wanted.setdefault(file, set()).add(entry_name(index.fqn, index.offset or ()))
    for file, names in wanted.items():
        if file not in listed:
            raise CheckpointError(f"{folder / INDEX}: names {file}, which the manifest does not list")
        try:
            with safe_open(folder / file, framework="pt") as f:
                missing = sorted(names - set(f.keys()))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder / file}: is not a safetensors file: {error}") from error
        if missing:
            raise CheckpointError(f"{folder / file}: has no tensor {missing[0]}, which {INDEX} names")


def _about(item: WriteItem) -> tuple[torch.dtype, Sequence[int], Sequence[int]]:
    """Type, offsets and sizes of a part that is to be written."""
    if item.tensor_data is None:
        raise TypeError(f"{item.index.fqn} is no tensor; what is not a tensor belongs into state.json")
    return item.tensor_data.properties.dtype, item.tensor_data.chunk.offsets, item.tensor_data.chunk.sizes


def _size(item: WriteItem) -> int:
    dtype, _, sizes = _about(item)
    return dtype.itemsize * math.prod(sizes)


def _header(items: Sequence[WriteItem]) -> bytes:
    """The head of a safetensors file: its length in 8 bytes, and JSON that says where each tensor is after it."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for item in items:
        dtype, offsets, sizes = _about(item)
        begin, end = end, end + _size(item)
        name = entry_name(item.index.fqn, offsets)
        assert name not in table, name
        table[name] = {"dtype": _TYPES[dtype], "shape": list(sizes), "data_offsets": [begin, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text

"""Reads tables of token ids as Hugging Face's tools write them: Arrow and Parquet files, and `save_to_disk` folders.

A row is a document, or one of many equal parts of a stream (`group_texts` and other packing). A table does not say
which, so a table whose rows all have one length is refused until the caller does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.core.errors import UserError

COLUMNS = ("tokens", "input_ids")
PADDING = "attention_mask"


@dataclass(frozen=True)
class TokenRows:
    """The ids of a file's rows, one after the other, and where rows begin and the last one ends."""

    values: npt.NDArray[Any]
    bounds: npt.NDArray[np.int64]


def read(path: str, rows: str | None, eos: int) -> Iterator[tuple[str, TokenRows]]:
    """(file, rows) of each file of a table.

    Raises UserError for what is no table of tokens, and with `rows` None for rows that look packed.
    """
    for file in table_files(path):
        found = _read_file(file)
        if rows is None:
            _refuse_packed(file, found, eos)
        yield file, found


def table_files(path: str) -> list[str]:
    """The files of a table: itself, those that state.json of a `save_to_disk` folder lists, or a folder's."""
    if not os.path.isdir(path):
        return [path]
    if os.path.exists(os.path.join(path, "dataset_dict.json")):
        splits = sorted(e.name for e in os.scandir(path) if e.is_dir())
        one = os.path.join(path, "train" if "train" in splits or not splits else splits[0])
        raise UserError(
            f"{path}: has several splits ({', '.join(splits)})\n  name one, {one}, and give the held-out one with "
            "--validation"
        )
    state = os.path.join(path, "state.json")
    if os.path.exists(state):
        try:
            with open(state, encoding="utf-8") as f:
                names = [str(entry["filename"]) for entry in json.load(f)["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{state}: not the state.json of a `save_to_disk` folder: {error!r}") from error
        for name in names:
            if os.path.basename(name) != name:
                raise UserError(f"{state}: {name!r} is outside the folder; files must lie beside state.json")
    else:
        names = sorted(n for n in os.listdir(path) if n.endswith((".parquet", ".arrow")))
    if not names:
        raise UserError(f"{path}: no Parquet or Arrow file and no state.json of `save_to_disk` in this folder")
    return [os.path.join(path, name) for name in names]


def _read_file(path: str) -> TokenRows:
    try:
        table = _open(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet or Arrow: {error}") from error
    name = next((c for c in COLUMNS if c in table.column_names), None)
    if name is None:
        raise UserError(
            f"{path}: no column {' or '.join(COLUMNS)}; its columns are {', '.join(table.column_names)}\n"
            "  rename the column of token ids; text is for `gristmill curate`"
        )
    column = table[name]
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in kinds) or not pa.types.is_integer(column.type.value_type):
        raise UserError(f"{path}: column {name} is {column.type}; expected lists of whole numbers")
    if column.null_count:
        raise UserError(f"{path}: column {name} is null in {column.null_count:,} of {len(column):,} rows; remove them")
    values = np.concatenate([c.flatten().to_numpy(zero_copy_only=False) for c in column.chunks] or [np.zeros(0)])
    lengths = np.concatenate([pc.list_value_length(c).to_numpy(zero_copy_only=False) for c in column.chunks] or [[]])
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return _without_padding(path, table, TokenRows(values, bounds))


def _open(path: str) -> pa.Table:
    with open(path, "rb") as f:
        start = f.read(6)
    if start.startswith(b"PAR1"):
        held = pq.ParquetFile(path).schema_arrow.names
        return pq.read_table(path, columns=[c for c in (*COLUMNS, PADDING) if c in held] or None)
    file = pa.memory_map(path)
    return (pa.ipc.open_file if start == b"ARROW1" else pa.ipc.open_stream)(file).read_all()


def _without_padding(path: str, table: pa.Table, rows: TokenRows) -> TokenRows:
    """The rows without what `attention_mask` leaves out: padding is no text."""
    if PADDING not in table.column_names:
        return rows
    mask = np.concatenate([c.flatten().to_numpy(zero_copy_only=False) for c in table[PADDING].chunks] or [np.zeros(0)])
    if len(mask) != len(rows.values):
        raise UserError(f"{path}: {PADDING} has {len(mask):,} numbers for {len(rows.values):,} tokens")
    kept = mask != 0
    return TokenRows(rows.values[kept], np.concatenate([[0], np.cumsum(kept)])[rows.bounds])


def _refuse_packed(path: str, rows: TokenRows, eos: int) -> None:
    """Raises UserError for rows that all have one length, or that have EOS in their middle."""
    lengths = np.diff(rows.bounds)
    ends = rows.values == eos
    ends[rows.bounds[:-1][lengths > 0]] = False
    ends[rows.bounds[1:][lengths > 0] - 1] = False
    inside = int(ends.sum())
    same = len(lengths) > 2 and lengths[0] > 1 and (lengths[:-1] == lengths[0]).all()
    if not same and not inside:
        return
    how = f"its {len(lengths):,} rows all have {lengths[0]:,} tokens" if same else f"{inside:,} EOS are within rows"
    raise UserError(
        f"{path}: {how}: packed texts, it seems\n"
        "  add --rows stream to join the rows and to cut at EOS, or --rows documents if each row is a document"
    )

"""Finds the files that describe a Hugging Face dataset beside its data, and the licence that its card names."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from curation import storage
from curation.input_files import InputFile

_MAX_CARD = 1 << 20
# Keys of a card's front matter, of which a README of anything else has none.
_KEYS = {"configs", "dataset_info", "license", "task_categories", "size_categories", "pretty_name"}
# `save_to_disk` writes both in a folder; older repositories have dataset_infos.json at the top.
_DESCRIPTIONS = {
    "dataset_infos.json": ("splits", "features"),
    "dataset_info.json": ("features",),
    "dataset_dict.json": ("splits",),
    "state.json": ("_data_files",),
}


@dataclass(frozen=True)
class DatasetCard:
    """The files that describe a dataset; `licence` is empty where the card names none."""

    files: frozenset[str]
    licence: str = ""


def find_dataset_card(root: str, files: Sequence[InputFile]) -> DatasetCard:
    """The card and the descriptions among the files of an input; no files where it is no dataset."""
    described, licence = set[str](), ""
    for file in files:
        name = posixpath.basename(file.path)
        if file.path == "README.md" and (front := _front_matter(_read(root, file))) is not None:
            described.add(file.path)
            licence = _licence(front.get("license"))
        elif name in _DESCRIPTIONS and _describes(_read(root, file), _DESCRIPTIONS[name]):
            described.add(file.path)
    return DatasetCard(frozenset(described), licence)


def _read(root: str, file: InputFile) -> str:
    if file.size > _MAX_CARD:
        return ""
    try:
        with storage.open_input(root, file.path) as stored:
            return stored.read(_MAX_CARD).decode("utf-8", "replace")
    except OSError:
        return ""


def _front_matter(text: str) -> dict[str, Any] | None:
    """The YAML between the first two lines of dashes, if it is that of a dataset card."""
    if not text.startswith("---"):
        return None
    head = text[3:].partition("\n---")[0]
    try:
        front = yaml.safe_load(head)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return front if isinstance(front, dict) and _KEYS & front.keys() else None


def _licence(value: Any) -> str:
    names = value if isinstance(value, list) else [value]
    return ", ".join(name for name in names if isinstance(name, str) and name.isprintable() and len(name) < 64)


def _describes(text: str, keys: Sequence[str]) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    inner = list(value.values()) if isinstance(value, dict) else []
    return any(isinstance(v, dict) and any(k in v for k in keys) for v in [value, *inner])

"""Runs any datatrove block that works on one document at a time as a step.

    - datatrove: {block: GopherQualityFilter, args: {min_doc_words: 30}}

A filter gives `keep` and `reason`, and a rule on `keep`; a formatter or extractor rewrites the text; what a block puts
into a document's metadata comes back as JSON. Blocks that need the whole corpus (deduplication, readers, writers,
tokenizers to disk, statistics) cannot run as a step and are refused, as are those that draw random numbers: a step
must give the same result for a document whatever came before it. Extractors are called without datatrove's sandbox,
whose limit is in seconds.

It is slow, one Python object a document: where gristmill has a step for the same, that step is 100 times as fast.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.core.errors import UserError
from curation.document import clean_text, hex_id, with_column
from curation.step import MapStep

_MODULES = ("filters", "formatters", "extractors")
_REFUSED = {
    "SamplerFilter": "it draws random numbers; `gristmill curate --sample` takes a sample by hash",
    "LambdaFilter": "a function cannot be written in a pipeline file; write a step or a rule in SQL",
}


@dataclass
class Datatrove(MapStep):
    """Runs a datatrove filter, formatter or extractor.

    block  class name (`C4QualityFilter`) or dotted path (`my_package.MyFilter`)
    args   its arguments
    """

    rewrites = True  # some filters do too (C4QualityFilter), which shows only when they run

    block: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    name: str = "datatrove"

    _apply: Callable[[Any], Any] | None = field(init=False, repr=False, compare=False, default=None)

    reads = ("text", "url", "meta", "domain", "date")

    @property
    def signals(self) -> pa.Schema:
        return pa.schema(
            [
                ("keep", pa.bool_()),
                ("reason", pa.string()),  # a filter's reason; null where kept
                ("metadata", pa.string()),  # what the block added or changed, as JSON; null for nothing
            ]
        )

    def rules(self) -> Mapping[str, str]:
        return {"keep": f"{self.name}.keep"}

    def packages(self) -> Sequence[str]:
        return ("datatrove", "tldextract")

    def plugins(self) -> Sequence[type]:
        return (self._class(),)  # datatrove's utilities import what they need in functions

    def check(self) -> None:
        if not self.block:
            raise UserError(f"step {self.name}: `block` is empty; name a datatrove class such as GopherQualityFilter")
        if "exclusion_writer" in self.args:
            raise UserError(f"step {self.name}: remove `exclusion_writer`; the ledger keeps what is dropped")
        self._applier(self._class())

    def _class(self) -> type:
        """The block's class, or UserError when there is none or it cannot work on single documents."""
        if "." in self.block:
            module, _, name = self.block.rpartition(".")
            modules = [module]
        else:
            name, modules = self.block, [f"datatrove.pipeline.{m}" for m in _MODULES]
        for path in modules:
            try:
                found = getattr(importlib.import_module(path), name, None)
            except ImportError as e:
                raise UserError(f"step {self.name}: cannot import {path}: {e}") from e
            if isinstance(found, type):
                return found
        raise UserError(f"step {self.name}: no datatrove block {self.block} in {', '.join(modules)}")

    def _applier(self, block: type) -> Callable[[Any], Any]:
        """The function that processes a document: it may change the document and returns what a filter returns."""
        from datatrove.pipeline.extractors.base import BaseExtractor
        from datatrove.pipeline.filters.base_filter import BaseFilter
        from datatrove.pipeline.formatters.base import BaseFormatter

        kinds = (BaseFilter, BaseFormatter, BaseExtractor)
        if block.__name__ in _REFUSED:
            raise UserError(f"step {self.name}: {block.__name__} cannot run as a step: {_REFUSED[block.__name__]}")
        if not issubclass(block, kinds):
            raise UserError(
                f"step {self.name}: {block.__name__} does not work on single documents; "
                "filters, formatters and extractors do"
            )
        if self.args.get("keep_fraction"):
            raise UserError(f"step {self.name}: `keep_fraction` draws random numbers; write a rule on a signal instead")
        try:
            instance = block(**self.args)
        except ImportError as e:
            raise UserError(f"step {self.name}: {block.__name__} needs more than is installed: {e}") from e
        except Exception as e:  # arguments of somebody else's class: whatever it says about them
            raise UserError(f"step {self.name}: {block.__name__} refuses its arguments: {e}") from e
        _pin_suffix_list(instance)
        if isinstance(instance, BaseFilter):
            return instance.filter  # type: ignore[no-any-return]
        if isinstance(instance, BaseFormatter):
            return lambda doc: _rewrite(doc, _fresh(instance).format)
        return lambda doc: _rewrite(doc, instance.extract)

    def open(self) -> None:
        self._apply = self._applier(self._class())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_apply": None}

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Processes each document. What the block raises is raised: the engine leaves the document out and names it."""
        if self._apply is None:
            self.open()
        columns = {name: batch.column(name).to_pylist() for name in self.reads if name in batch.schema.names}
        texts: list[str] = []
        results: list[tuple[bool, str | None, str | None]] = []
        ids = batch.column("doc_id").to_pylist() if "doc_id" in batch.schema.names else [b""] * len(batch)
        for i, doc_id in enumerate(ids):
            text, result = self._one(hex_id(doc_id), {name: column[i] for name, column in columns.items()})
            texts.append(text)
            results.append(result)
        arrays = [pa.array([r[i] for r in results], f.type) for i, f in enumerate(self.signals)]
        batch = with_column(batch, "text", pa.array(texts, batch.schema.field("text").type))
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    def _one(self, doc_id: str, row: dict[str, Any]) -> tuple[str, tuple[bool, str | None, str | None]]:
        from datatrove.data import Document

        assert self._apply is not None
        text = row.pop("text") or ""
        metadata = json.loads(row.pop("meta", None) or "{}")
        metadata = metadata if isinstance(metadata, dict) else {"meta": metadata}
        metadata.update({k: str(v) for k, v in row.items() if v is not None})
        document = Document(text=text, id=doc_id, metadata=dict(metadata))
        try:
            result = self._apply(document)
        except (ImportError, OSError) as e:  # this machine lacks something, and would for every document
            raise UserError(
                f"step {self.name}: {self.block} needs a package or file that this machine lacks: {e}"
            ) from e
        keep, reason = (result[0], result[1]) if isinstance(result, tuple) else (result, None)
        added = {k: v for k, v in document.metadata.items() if k not in metadata or metadata[k] != v}
        shown = json.dumps(added, sort_keys=True, ensure_ascii=False, default=str) if added else None
        return clean_text(document.text), (bool(keep), None if keep else reason or "filtered", shown)


def _rewrite(document: Any, function: Callable[[str], str | None]) -> tuple[bool, str | None]:
    document.text = function(document.text) or ""
    return (True, None) if document.text else (False, "empty")


def _fresh(formatter: Any) -> Any:
    """Resets what a formatter carries from one document to the next: PIIFormatter takes its replacements in turn."""
    for value in vars(formatter).values():
        if hasattr(value, "_replace_i"):
            value._replace_i = 0
    return formatter


def _pin_suffix_list(block: Any) -> None:
    """tldextract would fetch the public suffix list on first use; its bundled snapshot does without a socket."""
    import tldextract

    for name, value in vars(block).items():
        if isinstance(value, tldextract.TLDExtract):
            setattr(block, name, tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None))

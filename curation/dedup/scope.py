"""Within what documents are compared: everything, a site, a dump, or documents of equal values of a column."""

from __future__ import annotations

import posixpath
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curation.core.errors import UserError


def scope_columns(scope: str) -> tuple[str, ...]:
    """The columns that a scope looks at."""
    named: dict[str, tuple[str, ...]] = {"all": (), "site": ("url",), "source": ("domain", "source")}
    return named.get(scope, (scope.split(".")[0],))


def check_scope(step: str, scope: str) -> None:
    """Raises UserError for what cannot be a scope."""
    if not scope or not all(scope.split(".")) or scope.count(".") > 1:
        raise UserError(
            f"{step}: scope is {scope!r}; give all, site, source, or a column such as domain or language.code"
        )


def salts(batch: pa.RecordBatch, scope: str) -> list[bytes]:
    """Eight bytes a document, the same for equal scopes; empty where everything is compared with everything."""
    values: list[Any]
    if scope == "all":
        return [b""] * batch.num_rows
    if scope == "site":
        values = [site(u) for u in batch.column("url").to_pylist()]
    elif scope == "source":
        domains, sources = batch.column("domain").to_pylist(), batch.column("source").to_pylist()
        values = [(d, posixpath.dirname((s or {}).get("file") or "")) for d, s in zip(domains, sources, strict=True)]
    else:
        head, _, field = scope.partition(".")
        column = batch.column(head)
        values = (pc.struct_field(column, field) if field else column).to_pylist()
    return [xxhash.xxh3_64_digest(repr(v).encode()) for v in values]


def site(url: str | None) -> str:
    """The host of a URL, without `www.`; empty where there is none."""
    try:
        return (urlsplit(url or "").hostname or "").removeprefix("www.")
    except ValueError:  # a bracket that is no IPv6 address
        return ""

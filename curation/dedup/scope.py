"""Defines the option `scope` of deduplication steps: only documents of the same scope are compared with each other.

A scope is `all`, or a SQL expression over the columns and earlier signals of a document: documents for which it has
equal values are compared (NULL equals NULL). Three expressions have names:

    site        the host of the URL, without `www.`; documents without one are a scope of their own
    source      the same domain and the same folder of the source file, such as one dump of a crawl (as FineWeb does)
    language    the same language.code

A column such as `domain`, or a signal such as `language.code`, is such an expression too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from curation.core.errors import UserError

COLUMN = "@scope"  # name under which the engine gives the value (see `GlobalStep.expressions`)

# The host between `//` and the path, without user name and port: what Python's urlsplit(url).hostname gives.
_HOST = r"^[\x00-\x20]*(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#]*@)?(\[[^\]/?#]*|[^:/?#]*)"

NAMED_SCOPES = {
    "site": f"coalesce(regexp_replace(lower(regexp_extract(url, '{_HOST}', 1)), '^www[.]', ''), '')",
    "source": "domain || chr(10) || regexp_extract(source.file, '^(.*)/', 1)",
    "language": "language.code",
}


def check_scope(step: str, scope: str) -> None:
    """Raises UserError for an empty scope. The configuration checks the SQL of any other."""
    if not scope.strip():
        raise UserError(f"{step}: scope is empty; leave it out, or give SQL such as domain")


def scope_expression(scope: str) -> Mapping[str, str]:
    """The SQL of a scope under the name COLUMN, for `GlobalStep.expressions`; empty for `all`."""
    if scope == "all":
        return {}
    return {COLUMN: f"CAST(({NAMED_SCOPES.get(scope, scope)}\n) AS VARCHAR)"}


def scope_salts(batch: pa.RecordBatch) -> npt.NDArray[np.uint64] | None:
    """A number for each document, the same for equal scopes: uint64 [n], 0 for NULL. None for the scope `all`.

    Hashes of texts are salted with it, so documents of different scopes have no hash in common."""
    if COLUMN not in batch.schema.names:
        return None
    coded = batch.column(COLUMN).dictionary_encode()
    hashes = [xxhash.xxh3_64_intdigest(v.encode()) for v in coded.dictionary.to_pylist()]
    index = coded.indices.fill_null(len(hashes)).to_numpy()
    salts: npt.NDArray[np.uint64] = np.array([*hashes, 0], np.uint64)[index]
    return salts

"""Compiles kernels with numba and keeps their machine code: the one decorator for all of them.

With an explicit signature a kernel is compiled when its module is imported, and never again for other argument types.
Without one it is compiled when it is first called with arguments of new types; for kernels whose arrays come from Arrow
(read-only) in one place and from numpy in another. The machine code is kept below the user's cache directory (or
NUMBA_CACHE_DIR), so an installation may be read-only; where neither can be written, each process compiles again, which
costs seconds.

numba looks only at the file of a function to decide whether its cache is stale, not at the kernels and constants that
the function takes from other files. So the cache key holds the file's source and that of all that it imports.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from typing import Any

import numba

from curation.core.imported_code import imported_code

_config: Any = numba.config

# Arrow's buffers as numba sees them: bytes and 64-bit offsets that nobody may write to.
BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
OFFSETS = numba.types.Array(numba.int64, 1, "C", readonly=True)


@functools.cache
def _cache_directory(file: str) -> str | None:
    """Where the machine code of a source file is kept; None where no such directory can be made."""
    base = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gristmill", "kernels"
    )
    code = imported_code(file)
    parts = [*code.sources, *(f"{name} {version}" for name, version in code.distributions.items())]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    directory = os.path.join(base, key)
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError:
        return None
    return directory if os.access(directory, os.W_OK) else None


def kernel(signature: Any = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a function to be compiled for `signature`, in numba's notation: a string or a tuple of types; without
    one for whatever it is called with.

    No fastmath and no threads: the same input gives the same bytes.
    """

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        directory = _cache_directory(os.path.abspath(function.__code__.co_filename))
        before = _config.CACHE_DIR
        if directory:
            _config.CACHE_DIR = directory  # read once, by the decorator
        try:
            return numba.njit(signature, nogil=True, cache=directory is not None)(function)  # type: ignore[no-any-return]
        finally:
            _config.CACHE_DIR = before

    return compile_

"""Keeps what torch.compile builds in the user's cache: another user can take the name of torch's own folder in /tmp."""

from __future__ import annotations

import os

_CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(_CACHE, "gristmill", "torchinductor"))

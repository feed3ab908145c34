"""Reduces a URL to a canonical form, so that two spellings of one page's address compare equal.

Scheme and `www.` are removed; the host is in lower case, without a default port; the path is without `.` and `..`, a
trailing slash or needless escapes (RFC 3986, section 6.2.2); the fragment is removed; query parameters are sorted,
tracking parameters removed. (w3lib, url-normalize and courlan each keep at least the scheme and `www.`;
docs/decisions.md compares them.)
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

# Parameters of newsletters, advertisements and sessions, without which the page is the same. `*` matches any suffix.
TRACKING_PARAMETERS = (
    *("utm_*", "gclid", "dclid", "fbclid", "msclkid", "yclid", "igshid", "mc_cid", "mc_eid", "_ga", "ref_src"),
    *("phpsessid", "jsessionid", "sid"),
)

_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def canonicalize_url(url: str, ignore: Sequence[str] = TRACKING_PARAMETERS) -> str:
    """The canonical form of a URL, without its scheme: `//host/path?query`. A string that is not a URL is returned as
    it is."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:  # an invalid port or IPv6 address
        return url
    if not parts.hostname:
        return url
    host = parts.hostname.removeprefix("www.").rstrip(".")
    if port is not None and port != _PORTS.get(parts.scheme):
        host += f":{port}"
    path = _unescaped(parts.path)
    path = posixpath.normpath(path) if path.strip("/") else "/"
    names = {i for i in ignore if not i.endswith("*")}
    heads = tuple(i[:-1] for i in ignore if i.endswith("*"))
    query = []
    for pair in parts.query.split("&"):
        key = pair.partition("=")[0].lower()
        if pair and key not in names and not (heads and key.startswith(heads)):
            query.append(_unescaped(pair))
    return f"//{host}/{path.lstrip('/')}" + (f"?{'&'.join(sorted(query))}" if query else "")


def _unescaped(part: str) -> str:
    """Decodes percent-escapes of unreserved characters; writes the others in upper case."""

    def one(match: re.Match[str]) -> str:
        char = chr(int(match[1], 16))
        return char if char in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(one, part)

"""Reads SPDX licence expressions and decides whether a list of licences allows one.

`MIT OR GPL-2.0-only` is allowed if one of both is, `MIT AND Zlib` if both are; `WITH` names an exception to a licence
and is allowed where the licence is, or where the list has both words. A version of GNU's licences "or later" is allowed
where the list has `GPL-2.0` or either exact form. (SPDX specification 2.3, annex D.)
"""

from __future__ import annotations

import re
from collections.abc import Collection

_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n\r]{1,200})")
_TOKEN = re.compile(r"[()]|[A-Za-z0-9][A-Za-z0-9.+:-]*")
_DEPTH = 16
MAX_HEADER = 1 << 14  # characters of a file in which its tag is looked for
_ENDINGS = re.compile(r"[ \t]*(?:\*/|-->|#>|\*\)|\"\"\"|'''|;).*$")


def tagged_expression(text: str) -> str:
    """The expression of the tag SPDX-License-Identifier near the beginning of a file; empty if there is none."""
    found = _TAG.search(text[:MAX_HEADER])
    if not found:
        return ""
    words = _TOKEN.findall(_ENDINGS.sub("", found[1]))
    said: list[str] = []
    for word in words:  # up to where words no longer form an expression: a remark behind it
        if said and word not in ("(", ")") and not _joins(said[-1]) and not _joins(word):
            break
        said.append(word.upper() if _joins(word.upper()) and word.upper() in ("AND", "OR", "WITH") else word)
    while said and said[-1] in ("AND", "OR", "WITH", "("):
        said.pop()
    return " ".join(said).replace("( ", "(").replace(" )", ")")


def _joins(word: str) -> bool:
    return word.upper() in ("AND", "OR", "WITH") or word in ("(", ")")


def is_allowed(expression: str, allowed: Collection[str]) -> bool:
    """Whether a list of licences allows an expression. One that is no expression is not allowed."""
    names = {name.lower() for name in allowed}
    tokens = _TOKEN.findall(expression)
    try:
        value, rest = _either(tokens, names, 0)
    except IndexError:
        return False
    return value and not rest


def _either(tokens: list[str], names: Collection[str], depth: int) -> tuple[bool, list[str]]:
    value, tokens = _both(tokens, names, depth)
    while tokens and tokens[0].upper() == "OR":
        other, tokens = _both(tokens[1:], names, depth)
        value = value or other
    return value, tokens


def _both(tokens: list[str], names: Collection[str], depth: int) -> tuple[bool, list[str]]:
    value, tokens = _one(tokens, names, depth)
    while tokens and tokens[0].upper() == "AND":
        other, tokens = _one(tokens[1:], names, depth)
        value = value and other
    return value, tokens


def _one(tokens: list[str], names: Collection[str], depth: int) -> tuple[bool, list[str]]:
    """Raises IndexError where the expression ends too early or is nested too deeply."""
    if tokens[0] == "(":
        if depth == _DEPTH:
            raise IndexError
        value, rest = _either(tokens[1:], names, depth + 1)
        return (value, rest[1:]) if rest[0] == ")" else (False, rest)
    name, rest = tokens[0].lower(), tokens[1:]
    found = bool(_forms(name) & set(names))
    if len(rest) > 1 and rest[0].upper() == "WITH":
        return found or f"{name} with {rest[1].lower()}" in names, rest[2:]
    return found, rest


def _forms(name: str) -> set[str]:
    """The ways to write a licence in a list: `GPL-2.0-or-later` as it is and as `GPL-2.0`."""
    bare = name.removesuffix("-or-later").removesuffix("-only").removesuffix("+")
    return {name, bare, f"{bare}-only"} if bare != name else {name}

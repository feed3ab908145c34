r"""Statistics of source code, for the set `code` of the heuristics: lines, letters, comments, encoded data, syntax.

Rules and thresholds are StarCoder 2's (Lozhkov et al. 2024, arXiv 2402.19173, section 2.1): more than 100,000 lines, a
mean line of more than 100 or a longest of more than 1,000 characters (but not in languages whose lines are paragraphs),
fewer than 25 % letters, marks of generated files, encoded data of more than 1,024 characters at once or half of the
file. The lines and alphanumeric characters were The Stack's (Kocetkov et al. 2022, arXiv 2211.15533) before, and
RedPajama's for its code. The share of comments is SantaCoder's (Ben Allal et al. 2023, arXiv 2301.03988: 1 % to 80 %),
and whether a file parses OpenCoder's (Huang et al. 2024, arXiv 2411.04905); both are signals without a rule.

Encoded data differs from StarCoder 2's expressions in two ways: a run of base64 needs twelve different characters (a
line of `=` under a heading has one), and bytes in hexadecimal may have a space after their comma.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curation.source_code.file_marks import is_generated
from curation.source_code.languages import COMMENTS, by_first_line

SIGNALS: dict[str, pa.DataType] = {
    "code_language": pa.string(),  # `language` of the metadata, else by the first line; null: unknown
    "lines": pa.int64(),
    "max_line": pa.int64(),  # characters of the longest line
    "mean_line": pa.float64(),
    "alphanumeric": pa.float64(),  # share of characters that are letters or digits
    "alphabetic": pa.float64(),  # ... letters
    "comments": pa.float64(),  # share of characters in comments and doc strings; null: comments of the language unknown
    "generated": pa.bool_(),  # the first five lines say that a program wrote it
    "base64": pa.float64(),  # share of characters in runs of base64 of 64 or more
    "hex": pa.float64(),  # ... in sequences of eight or more bytes in hexadecimal or code points (\u0041)
    "encoded": pa.float64(),  # both together
    "longest_encoded": pa.int64(),  # characters
    "parses": pa.bool_(),  # whether Python or JSON is syntactically right; null: another language
}
# Languages whose lines may be long: StarCoder 2, section 2.1.
_LONG_LINES = "'HTML','JSON','Markdown','Roff','SMT','TeX','Text','XML'"
_ANY_LENGTH = f"coalesce({{s}}.code_language IN ({_LONG_LINES}), FALSE)"
RULES: tuple[tuple[str, str], ...] = (
    ("lines", "{s}.lines <= 100000"),
    ("max_line", f"{{s}}.max_line <= 1000 OR {_ANY_LENGTH}"),
    ("mean_line", f"{{s}}.mean_line <= 100 OR {_ANY_LENGTH}"),
    ("alphabetic", "{s}.alphabetic >= 0.25"),
    ("generated", "NOT {s}.generated"),
    ("encoded", "{s}.encoded <= 0.5"),
    ("longest_encoded", "{s}.longest_encoded <= 1024"),
)
MAX_PARSED = 1 << 20  # characters of a file whose syntax is checked
_BASE64 = re.compile(r"[A-Za-z0-9+/\n=]{2,}+")
_MIN_BASE64, _MIN_DIFFERENT = 64, 12
_HEX = re.compile(r"(?:\b(?:0x|\\x)?[0-9a-fA-F]{2}(?:,\s*+|\b\s*+)){8,}+|(?:\\u[0-9a-fA-F]{4}){8,}+")
_OTHERS = re.compile(r"[\W_]+")
_DIGITS = str.maketrans("", "", "0123456789")
# What may hide a comment sign, each closed by its line's end at the latest, so that no sign is looked at twice.
_STRINGS = r""""(?:\\.|[^"\\\n])*+"?|'(?:\\.|[^'\\\n])*+'?"""
_DOC_STRING = r'''(?P<doc>^[ \t]*+[rRuU]?(?:"""(?s:.*?)(?:"""|\Z)|\'\'\'(?s:.*?)(?:\'\'\'|\Z)))'''


def code_statistics(texts: Sequence[str | None], metas: Sequence[str | None]) -> dict[str, list[Any]]:
    """The signals of each text. `metas`: JSON of what the reader knows, of which `language` is looked at."""
    rows = [_statistics(text or "", _language(text or "", meta)) for text, meta in zip(texts, metas, strict=True)]
    return {name: [row[name] for row in rows] for name in SIGNALS}


def _language(text: str, meta: str | None) -> str:
    if meta and '"language"' in meta:
        try:
            said = json.loads(meta).get("language")
        except (ValueError, AttributeError):
            said = None
        if isinstance(said, str) and said:
            return said
    return by_first_line(text[:200])


def _statistics(text: str, language: str) -> dict[str, Any]:
    lengths = [len(line) for line in text.removesuffix("\n").split("\n")]
    size = max(1, len(text))
    letters_and_digits = _OTHERS.sub("", text)
    runs = [len(run) for run in _BASE64.findall(text) if len(run) >= _MIN_BASE64 and len(set(run)) >= _MIN_DIFFERENT]
    codes = [found.end() - found.start() for found in _HEX.finditer(text)]
    return {
        "code_language": language or None,
        "lines": len(lengths),
        "max_line": max(lengths),
        "mean_line": sum(lengths) / len(lengths),
        "alphanumeric": len(letters_and_digits) / size,
        "alphabetic": len(letters_and_digits.translate(_DIGITS)) / size,
        "comments": comment_share(text, language),
        "generated": is_generated("", text),
        "base64": sum(runs) / size,
        "hex": sum(codes) / size,
        "encoded": min(1.0, (sum(runs) + sum(codes)) / size),
        "longest_encoded": max([*runs, *codes], default=0),
        "parses": _parses(text, language),
    }


def comment_share(text: str, language: str) -> float | None:
    """The share of a text's characters that are in comments; None for a language whose comments are not known."""
    if language not in COMMENTS:
        return None
    pattern = _comment_pattern(language)
    commented = sum(m.end() - m.start() for m in pattern.finditer(text) if m.lastgroup in ("doc", "line", "block"))
    return commented / max(1, len(text))


_PATTERNS: dict[str, re.Pattern[str]] = {}


def _comment_pattern(language: str) -> re.Pattern[str]:
    if language not in _PATTERNS:
        line, block = COMMENTS[language]
        parts = [_DOC_STRING] if language in ("Python", "Cython", "Starlark") else []
        if block:
            begin, end = map(re.escape, block)
            parts.append(f"(?P<block>{begin}(?s:.*?)(?:{end}|\\Z))")
        if line:
            signs = "|".join(map(re.escape, sorted(line, key=len, reverse=True)))
            parts.append(f"(?P<line>(?:{signs})[^\\n]*+)")
        if language not in ("HTML", "XML", "SVG", "Markdown", "TeX", "Batchfile", "Vim Script"):
            parts.append(_STRINGS)
        _PATTERNS[language] = re.compile("|".join(parts), re.M)
    return _PATTERNS[language]


def _parses(text: str, language: str) -> bool | None:
    """Whether a file of Python or JSON has the syntax of its language."""
    if language not in ("Python", "JSON") or len(text) > MAX_PARSED:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if language == "JSON":
                json.loads(text)
            else:
                ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True

"""Converts presentation MathML to TeX that keeps every value: fractions, powers, roots, indices, tables.

Element names are those of MathML Core (W3C). Operators stay the Unicode characters they are. Neighbours whose signs
would read as one number or one name get a space between them.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

_MAX_DEPTH = 100
_NAMES = frozenset(("mi", "mn", "mo", "ms", "mtext"))
_INVISIBLE = str.maketrans({"\u2061": " ", "\u2062": " ", "\u2063": ",", "\u2064": "+", "\u2212": "-", "\xa0": " "})
_SPECIAL = re.compile(r"([#$%&{}])")


def to_tex(markup: str) -> str:
    """TeX of a `<math>` element; its bare text where it is not well-formed."""
    try:
        return _convert(ElementTree.fromstring(markup.replace("&nbsp;", " ")), 0).strip()
    except ElementTree.ParseError:
        return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


def _convert(node: ElementTree.Element, depth: int) -> str:
    name = node.tag.rpartition("}")[2].rpartition(":")[2]
    if depth > _MAX_DEPTH or name in _NAMES:
        text = " ".join("".join(node.itertext()).translate(_INVISIBLE).split(" ")).strip(" \n\t")
        text = _SPECIAL.sub(r"\\\1", text)
        return rf"\text{{{text}}}" if name == "mtext" and text else text
    if name in ("annotation", "annotation-xml", "mphantom", "none", "mprescripts"):
        return ""
    parts = [_convert(child, depth + 1) for child in node]
    if name == "semantics":
        return parts[0] if parts else ""
    if name == "mspace":
        return " "
    if name == "msqrt":
        return rf"\sqrt{{{_join(parts)}}}"
    if name == "mfenced":
        separator = (node.get("separators", ",").strip() or "")[:1]
        return node.get("open", "(") + separator.join(parts) + node.get("close", ")")
    if name == "mtable":
        return r"\begin{matrix}" + r" \\ ".join(parts) + r"\end{matrix}"
    if name in ("mtr", "mlabeledtr"):
        return " & ".join(parts)
    if len(parts) == 2 and name == "mfrac":
        zero = node.get("linethickness", "").rstrip("%emxptin ") in ("0", "0.0")
        return rf"{chr(92)}{'binom' if zero else 'frac'}{{{parts[0]}}}{{{parts[1]}}}"
    if len(parts) == 2 and name == "mroot":
        return rf"\sqrt[{parts[1]}]{{{parts[0]}}}"
    if len(parts) == 2 and name in ("msup", "mover"):
        return f"{_base(parts[0])}^{{{parts[1]}}}"
    if len(parts) == 2 and name in ("msub", "munder"):
        return f"{_base(parts[0])}_{{{parts[1]}}}"
    if len(parts) == 3 and name in ("msubsup", "munderover"):
        return f"{_base(parts[0])}_{{{parts[1]}}}^{{{parts[2]}}}"
    if name == "mmultiscripts" and parts:
        return _multiscripts(node, parts)
    return _join(parts)


def _multiscripts(node: ElementTree.Element, parts: list[str]) -> str:
    """Base, pairs of index and power after it; after `mprescripts` those before it."""
    names = [child.tag.rpartition("}")[2] for child in node]
    split = names.index("mprescripts") if "mprescripts" in names else len(names)
    scripts = ["", ""]
    for number, (first, last) in enumerate(((1, split), (split + 1, len(parts)))):
        for k in range(first, last - 1, 2):
            scripts[number] += f"_{{{parts[k]}}}" * bool(parts[k]) + f"^{{{parts[k + 1]}}}" * bool(parts[k + 1])
    return f"{'{}' if scripts[1] else ''}{scripts[1]}{_base(parts[0])}{scripts[0]}"


def _base(text: str) -> str:
    return text if len(text) == 1 or text.isdigit() else f"{{{text}}}"


def _join(parts: list[str]) -> str:
    out = ""
    for part in parts:
        if out and part and out[-1].isalnum() and part[0].isalnum():
            both_numbers = out[-1].isdigit() and part[0].isdigit()
            longer = len(part) > 1 or (len(out) > 1 and out[-2].isalpha())
            out += " " if both_numbers or (longer and not (out[-1].isdigit() and part[0].isalpha())) else ""
        out += part
    return out

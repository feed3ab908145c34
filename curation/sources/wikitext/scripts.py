"""Writes exponents and indices as plain text, with a sign where a number would read differently without: 10^6.

Tags become signs before entities are unescaped, so that `&lt;sup&gt;` stays text and `<sup>&minus;6</sup>` is a number.
A compound exponent gets brackets, x^(n+1), as in the step `extract`. H<sub>2</sub>O and 4<sup>th</sup> need no sign.
"""

from __future__ import annotations

import re

from curation.sources.wikitext.mending import REMOVED

SUP, END_SUP, SUB, END_SUB = "\x05", "\x06", "\x07", "\x08"  # `<sup>`, `</sup>`, `<sub>`, `</sub>`
_SIGNS = re.compile("([\x05-\x08])")
_MAX_DEPTH = 4  # scripts in scripts: towers of exponents are no deeper
_SLASHES = ("/", "⁄")
_MINUS = "+-−–"
_ORDINAL = re.compile(
    r"(?:st|nd|rd|ths?|ers?|es|e|os?|a|º|ª|r?e|res|me|ères?|ièmes?|emes?|èmes?|nde?s?|te[nrs]?|ste|de)\Z", re.I
)
_NUMBER = re.compile(r"[+\-−–±]?\d+(?:[.,]\d+)*\Z")
_EXPONENT = re.compile(r"[+\-−–]?\d+(?:\.\d+)?\Z")  # after a letter 1,2 are two footnotes
_CHARGE = re.compile(r"\d+[+\-−–]\Z")
_WORD = re.compile("[+\\-−–]?[\\w.,\x7f]{1,12}\\Z")  # \x7f: a formula
_MIXED = re.compile(r"[+\-−–]?\d+[^\W\d_]{1,3}\Z")
_COMPACT = re.compile("[\\w.,()+\\-−–*/⁄·×÷^=′'|!\x7f]{1,40}\\Z")
_OPERATOR = re.compile("[+\\-−–*/⁄·×÷^=](?=[\\w(\x7f])")
_PROSE = re.compile(r"[^\W\d_]{4}")  # see-note is no difference
_VARIABLE = re.compile(r"(?:\A|[^^\w])[^\W\d_]\Z")  # a letter that is a word
_POWER = re.compile(r"[a-zα-ω]{1,3}\Z")
_POWER_OF_BRACKETS = re.compile(r"[h-z]\Z")  # a to g are footnotes


def write(text: str) -> str:
    """The text without the signs."""
    parts = _SIGNS.split(text)
    if len(parts) == 1:
        return text
    stack: list[tuple[str, list[str]]] = [("", [])]  # what is open, and the text in it
    for i, part in enumerate(parts):
        if i % 2 == 0:
            if "\n" in part:
                _close_all(stack)  # no script goes over lines
            if part:
                stack[-1][1].append(part)
        elif part in (SUP, SUB):
            if len(stack) <= _MAX_DEPTH:
                stack.append((part, []))
        elif len(stack) > 1 and stack[-1][0] == (SUP if part == END_SUP else SUB):
            sign, content = stack.pop()
            out = stack[-1][1]
            divided = sign == SUP and parts[i + 1] in _SLASHES and parts[i + 2 : i + 3] == [SUB]
            if written := _script(sign, "".join(content), _last(out), parts[i + 1][:1], divided):
                out.append(written)
    _close_all(stack)
    return "".join(stack[0][1])


def _close_all(stack: list[tuple[str, list[str]]]) -> None:
    while len(stack) > 1:
        content = stack.pop()[1]
        stack[-1][1].extend(content)


def _last(out: list[str]) -> str:
    """The last two characters."""
    last = ""
    for piece in reversed(out):
        last = piece[-2:] + last
        if len(last) > 1:
            break
    return last[-2:]


def _script(sign: str, content: str, before: str, after: str, divided: bool) -> str:
    """An exponent or index. `divided`: it is the upper part of a fraction, 2<sup>1</sup>/<sub>2</sub>."""
    bare = content.replace(REMOVED, "").strip()
    base = before[-1:]
    if not bare:
        return content
    joined = "".join(bare.split())
    expression = bool(_COMPACT.match(joined) and _OPERATOR.search(joined) and not _PROSE.search(joined))
    if divided or (sign == SUB and base in _SLASHES):
        part = f"({joined})" if expression and not _NUMBER.match(joined) else bare
        return f" {part}" if divided and base.isdigit() else part
    if not (base.isalnum() or base in ("_", ")", "]", "\x7f", "′")):
        return bare
    if sign == SUB:
        number = bool(_WORD.match(joined)) and joined[-1].isdigit() and (base.isdigit() or after.isdigit())
        changes = number or expression
    elif _ORDINAL.match(bare) or (base.isdigit() and bare.startswith("(")):  # 7–6(7–5), a tie-break
        changes = False
    elif base.isdigit():
        changes = expression or any(known.match(joined) for known in (_NUMBER, _CHARGE)) or bool(_WORD.match(bare))
    else:
        changes = expression or bool(_EXPONENT.match(joined)) or _is_power(joined, before)
    if not changes:
        return bare
    written = joined if expression or _NUMBER.match(joined) else bare
    clash = after.isalnum() and written[-1].isdigit() == after.isdigit() and (sign == SUP or written[-1].isdigit())
    letters = written.isalpha() and (base.isdigit() or len(written) == 1)
    simple = letters or _NUMBER.match(written) or _CHARGE.match(written)
    brackets = (clash or not simple) and not _in_brackets(written)
    return ("^" if sign == SUP else "_") + (f"({written})" if brackets else written)


def _is_power(content: str, before: str) -> bool:
    """Whether letters are the exponent of a variable or of brackets: x^n, e^(kt), (1 + x)^n; Dr and xth are none."""
    if before[-1:] in (")", "]"):
        return bool(_POWER_OF_BRACKETS.match(content) or _MIXED.match(content))
    if not _VARIABLE.search(before):
        return False
    bare = content.lstrip(_MINUS).removeprefix("(").removesuffix(")")
    return bool(_MIXED.match(content)) or (before[-1:].islower() and bool(_POWER.match(bare)))


def _in_brackets(text: str) -> bool:
    return text[:1] == "(" and text.find(")") == len(text) - 1

"""Writes the formulas of a page as TeX between dollar signs, inside their sentences.

A page carries a formula in one of many encodings: MathML, with its TeX in an annotation or in `alttext`; what KaTeX and
MathJax make of it; a script of type math/tex; a picture whose `alt` is the TeX. Each becomes `$TeX$`, or `$$TeX$$`
where the page displays it on a line of its own. MathML that carries no TeX is converted (mathml.py).
Wikipedia wraps the author's TeX in `{\\displaystyle …}`, which is taken off.

Exponents and indices outside formulas get their sign where the value would change without it: 10<sup>6</sup> is 10^6.
"""

from __future__ import annotations

import html
import re

from curation.extract import mathml

_ATTRIBUTES = r'((?:[^>=]++|="[^"]*"|=)*+)>'
_TAG_SIGN = re.compile("math|tex|ql-formula", re.I)  # in the tags of all elements below but math's own
_ELEMENT = re.compile(r"<(math|mjx-container|script|span|div|img|p)(?=[\s>])" + _ATTRIBUTES)
_ATTRIBUTE = re.compile(r'\s([\w-]+)="([^"]*)"')
_ANNOTATION = re.compile(r'<annotation\s[^>]*encoding="(?:application/x-tex|text/x-tex|TeX|latex)"[^>]*>([^<]*)<', re.I)
_MATH = re.compile(r"<math(?=[\s>])" + _ATTRIBUTES)
_SCRIPT = re.compile(r'<script\s[^>]*type="math/(?:la)?tex([^"]*)"[^>]*>([^<]*(?:<(?!/script)[^<]*)*)</script>')
_IMAGE = re.compile(r"<img(?=[\s>])" + _ATTRIBUTES)
_RENDERED = frozenset(("katex", "katex-display", "mathjax", "mathjax_display", "mathjax_svg", "mathjax_svg_display",
                       "mathjax_chtml", "mathjax_mathml", "mwe-math-element", "ql-formula", "ztext-math"))  # fmt: skip
_DISPLAYED = frozenset(("katex-display", "mathjax_display", "mathjax_svg_display", "mwe-math-element-block",
                        "mwe-math-fallback-image-display"))  # fmt: skip
_CARRIES_TEX = ("data-tex", "data-latex", "data-expr", "data-value")
_PICTURE = re.compile(r"(?:^|\s)(?:mwe-math-fallback-image-\w+|latex|tex|math)(?:\s|$)")
_PICTURE_SOURCE = re.compile(r"latex\.php|latex\.codecogs\.com|/cgi-bin/mathtex|/mimetex|/render/math")
_COMMENT = re.compile(r"(?<!\\)%[^\n]*\n\s*")
_DISPLAYSTYLE = re.compile(r"^\{\\(?:display|text|script)style\s*(.*)\}$", re.S)
_DELIMITED = re.compile(r"^(?:\$\$(.+)\$\$|\$(.+)\$|\\\((.+)\\\)|\\\[(.+)\\\])$", re.S)
_IN_TEXT = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)
_SCRIPTED = re.compile(r"<(su[pb])(?:\s[^>]*)?>(.{1,80}?)</\1>(\w?)", re.S)
_TAG = re.compile(r"<[^>]*>")
_ORDINAL = re.compile(r"(?:st|nd|rd|th|er|e|o|a|º|ª|re|me|ère|ème|nde?)\Z", re.I)
_EXPONENT = re.compile(r"[+\-−–]?\s?(?:\d+(?:[.,/]\d+)*|[a-zA-Z])\Z")
_UNIT = re.compile(r"(?:^|[^A-Za-zÀ-ÿ])[a-zA-Zµμ]{1,3}\Z")


def write_inline(source: str) -> str:
    """The page, as the parser writes it, with formulas and exponents as text. Only for pages that have signs of them
    (html_walk_kernel.py): the search takes a tenth of the time of a page."""
    source = _replace_formulas(source)
    return _SCRIPTED.sub(_with_sign, source) if "<sup" in source or "<sub" in source else source


def write_delimiters(text: str) -> str:
    r"""Text with `\(…\)` and `\[…\]` written with dollar signs. For pages that load a program that sets formulas."""
    return _IN_TEXT.sub(lambda m: f"${m[1].strip()}$" if m[1] else f"$${m[2].strip()}$$", text)


def _replace_formulas(source: str) -> str:
    out: list[str] = []
    at = 0
    while match := _ELEMENT.search(source, at):
        name = match[1]
        if name in ("span", "div", "p", "img") and not _TAG_SIGN.search(match[2]):
            out.append(source[at : match.end()])
            at = match.end()
            continue
        attributes = dict(_ATTRIBUTE.findall(match[2]))
        classes = set(attributes.get("class", "").lower().split())
        end = match.end()
        tex: str | None = None
        if name == "script":
            if script := _SCRIPT.match(source, match.start()):
                tex, end = _written(script[2], "mode=display" in script[1]), script.end()
        elif name == "img":
            if _PICTURE.search(attributes.get("class", "")) or _PICTURE_SOURCE.search(attributes.get("src", "")):
                alt = html.unescape(attributes.get("alt", ""))
                tex = _written(alt, bool(classes & _DISPLAYED)) or None
        elif "mathjax_preview" in classes:
            end = _element_end(source, name, match.end())
            tex = "" if _SCRIPT.search(source, end, end + (1 << 16)) else None
            end = end if tex is not None else match.end()
        elif (
            name in ("math", "mjx-container")
            or classes & _RENDERED
            or not attributes.keys().isdisjoint(_CARRIES_TEX[:2])
        ):
            end = _element_end(source, name, match.end())
            inner = source[match.start() : end]
            if "MathJax" in inner[:200] and _SCRIPT.match(source, _skip_blank(source, end)):
                tex = ""  # the script that follows holds the TeX
            else:
                tex = _formula(inner, attributes, classes)
            end = end if tex is not None else match.end()
        if tex is None:
            out.append(source[at:end])
        else:
            out += [source[at : match.start()], html.escape(tex, quote=False)]
        at = end
    return "".join([*out, source[at:]])


def _formula(element: str, attributes: dict[str, str], classes: set[str]) -> str | None:
    """The formula that an element shows, as text; None if it shows none."""
    math = _MATH.search(element)
    of_math = dict(_ATTRIBUTE.findall(math[1])) if math else {}
    display = bool(classes & _DISPLAYED) or attributes.get("display") in ("true", "block")
    display = display or of_math.get("display") == "block" or of_math.get("mode") == "display"
    tex = next((attributes[a] for a in _CARRIES_TEX if attributes.get(a)), "")
    if not tex and (annotation := _ANNOTATION.search(element)):
        tex = annotation[1]
    tex = tex or of_math.get("alttext", "")
    if not tex and (script := _SCRIPT.search(element)):
        return _written(script[2], display or "mode=display" in script[1])
    if not tex and (inner := re.search(r'\sdata-latex="([^"]+)"', element)):
        tex = inner[1]
    if not tex and not math and (image := _IMAGE.search(element)):
        of_image = dict(_ATTRIBUTE.findall(image[1]))
        tex, display = of_image.get("alt", ""), display or "display" in of_image.get("class", "")
    if tex:
        return _written(html.unescape(tex), display)
    markup = html.unescape(attributes["data-mathml"]) if attributes.get("data-mathml") else ""
    if not markup and math:
        markup = element[math.start() : _element_end(element, "math", math.end())]
    return _written(mathml.to_tex(markup), display) or None


def _written(tex: str, display: bool) -> str:
    """TeX between dollar signs; nothing for nothing."""
    tex = _COMMENT.sub("", tex).strip()
    tex = re.sub(r"\A%\s*<!\[CDATA\[|%\s*\]\]>\Z", "", tex).strip()
    if delimited := _DELIMITED.match(tex):
        tex, display = next(filter(None, delimited.groups())).strip(), display or tex[:2] in ("$$", "\\[")
    if styled := _DISPLAYSTYLE.match(tex):
        tex = styled[1].strip()
    return f"$${tex}$$" if tex and display else f"${tex}$" if tex else ""


def _element_end(source: str, name: str, at: int) -> int:
    """Where the element of this name, whose start tag ends at `at`, ends."""
    depth = 1
    for tag in re.compile(rf"<(/?){name}(?=[\s>])" + _ATTRIBUTES).finditer(source, at):
        depth += -1 if tag[1] else 1
        if not depth:
            return tag.end()
    return len(source)


def _skip_blank(source: str, at: int) -> int:
    while at < len(source) and source[at].isspace():
        at += 1
    return at


def _with_sign(match: re.Match[str]) -> str:
    """`<sup>` or `<sub>` with `^` or `_` before it where a number or a unit would read differently without."""
    if "<a" in match[2] or "<li" in match[2]:  # a footnote
        return match[0]
    content = html.unescape(_TAG.sub("", match[2])).strip()
    base = match.string[max(0, match.start() - 40) : match.start()]
    base = html.unescape(base if base.endswith((")", "]")) else _TAG.sub("", base)).rstrip("\u2062")
    if not content or not base or base[-1].isspace():
        return match[0]
    number = base[-1].isdigit()
    if match[1] == "sub":  # H2O stays; log2 8 and 1012 (base 2) would be other numbers
        changes = content[-1].isdigit() and (number or match[3].isdigit())
    elif number:
        changes = not _ORDINAL.match(content) and len(content) <= 12 and content[0] not in "[(*†‡"
    else:
        changes = _EXPONENT.match(content) is not None and (base[-1] in ")]" or _UNIT.search(base) is not None)
    if not changes:
        return match[0]
    simple = content.lstrip("+-−–").replace(".", "").isalnum()
    inner = match[2] if simple else f"({match[2]})"
    return f"{'^' if match[1] == 'sup' else '_'}{inner}{match[3]}"

"""Turns LaTeX whose macros are expanded into plain text: formulas stay TeX, all else becomes words and lines.

Headings, captions, lists, tables as rows, theorems by their titles and footnotes in brackets are kept; citations,
labels, bibliographies, drawings and page layout are left out. Of a command that is not known the arguments stay.

Work is linear: where a formula or an environment ends is looked up once for all that begin before that place.

Commands: https://latexref.xyz (LaTeX2e unofficial reference manual).
"""

from __future__ import annotations

import re
import unicodedata

from curation.sources.latex import siunitx
from curation.sources.latex.macros import (
    Definitions,
    Source,
    argument,
    group,
    group_end,
    option,
    skip_option,
    skip_space,
)

_TOKEN = re.compile(r"\\(?:([A-Za-z@]+)\*?|(.))|\$\$?|[{}~&]|---?|``|''", re.S)
_DISPLAYED = frozenset(("equation", "align", "gather", "multline", "eqnarray", "displaymath", "alignat", "flalign",
    "math",
                        "dmath", "xymatrix", "IEEEeqnarray"))  # fmt: skip
_LEFT_OUT = frozenset(("thebibliography", "comment", "tikzpicture", "pspicture", "picture", "theindex", "filecontents",
                       "CCSXML", "tikzcd"))  # fmt: skip
VERBATIM = frozenset(("verbatim", "lstlisting", "minted", "Verbatim", "BVerbatim", "LVerbatim", "alltt"))
_HEADINGS = frozenset(
    ("part", "chapter", "section", "subsection", "subsubsection", "paragraph", "subparagraph", "title")
)
_TABLES = frozenset(("tabular", "tabularx", "longtable", "array", "supertabular", "tabulary", "xltabular",
    "tabu", "longtabu", "tblr"))  # fmt: skip
# Environments whose arguments are no text: how many there are in braces. By default a table has one, others none.
_ARGUMENTS = {
    name: count
    for count, names in (
        (1, "minipage multicols adjustbox IEEEeqnarray alignat alignedat minted subfigure subtable floatingfigure "
            "wrapfloat spacing column otherlanguage textblock turn rotate subarray"),
        (2, "tabular* tabularx tabulary xltabular wrapfigure wraptable adjustwidth list CJK CJK*"),
    )
    for name in names.split()
}  # fmt: skip
# Commands whose arguments are no text: how many there are in braces.
_SILENT = {
    name: count
    for count, names in (
        (1, "label ref eqref pageref autoref cref Cref nameref index cite citep citet citealp citealt citeauthor "
        "citeyear "
            "parencite textcite autocite footcite nocite bibliography bibliographystyle vspace hspace "
            "includegraphics input "
            "usepackage documentclass pagestyle thispagestyle pagenumbering hypersetup graphicspath date thanks "
            "affiliation "
            "address email institute markboth markright vskip hskip phantom vphantom hphantom bibitem "
            "theoremstyle newlength newcounter stepcounter refstepcounter color pagecolor include RequirePackage "
            "symlabel indexdef indexsee glossary printindex sffamily linespread enlargethispage usetikzlibrary tikzset "
            "newgeometry geometry cline cmidrule hhline rowcolor cellcolor columncolor arrayrulecolor"),
        (2, "setlength addtolength setcounter addtocounter numberwithin rule DeclareFontFamily fontsize resizebox "
            "definecolor hypertarget"),
        (3, "addcontentsline specialrule"),
    )
    for name in names.split()
}  # fmt: skip
_SECOND = frozenset(
    ("href", "textcolor", "colorbox", "texorpdfstring", "parbox", "raisebox", "scalebox", "hyperref", "makebox")
)
# Cells of a table: how many arguments come before their text. A break in them is none of a row.
_CELLS = {"multicolumn": 2, "multirow": 2, "multirowcell": 1, "makecell": 0, "thead": 0, "shortstack": 0}
_ORDINALS = frozenset(("st", "nd", "rd", "th", "er", "e", "o", "a", "º", "ª", "re", "me", "ère", "ème", "nde"))
_SIGNS = {
    "ldots": "…", "dots": "…", "textellipsis": "…", "ss": "ß", "o": "ø", "O": "Ø", "ae": "æ", "AE": "Æ", "oe": "œ",
    "OE": "Œ", "aa": "å", "AA": "Å", "l": "ł", "L": "Ł", "i": "ı", "j": "ȷ", "S": "§", "P": "¶", "dag": "†",
    "ddag": "‡",
    "copyright": "©", "pounds": "£", "textdegree": "°", "textbackslash": "\\", "textasciitilde": "~", "textbar": "|",
    "textless": "<", "textgreater": ">", "textquotedblleft": "“", "textquotedblright": "”", "textendash": "–",
    "textemdash": "—", "textregistered": "®", "texttrademark": "™", "LaTeX": "LaTeX", "TeX": "TeX", "BibTeX": "BibTeX",
    "par": "\n\n", "newline": "\n", "linebreak": "\n", "quad": " ", "qquad": " ", "space": " ", "euro": "€",
    "slash": "/",
    "and": ", ", "textbullet": "•", "newpage": "\n\n", "clearpage": "\n\n", "bigskip": "\n\n", "medskip": "\n\n",
    "smallskip": "\n\n", "hline": "", "toprule": "", "midrule": "", "bottomrule": "", "noindent": "",
}  # fmt: skip
_ACCENTS = {
    "'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "=": "\u0304", ".": "\u0307",
    "u": "\u0306",
    "v": "\u030c", "H": "\u030b", "c": "\u0327", "k": "\u0328", "r": "\u030a", "d": "\u0323", "b": "\u0331",
}  # fmt: skip
_NO_PART = re.compile(r"\\(?:label\s*\{[^{}]*\}|(?:nonumber|notag|ensuremath|xspace)(?![A-Za-z]))\s*")
_IN_FORMULA = re.compile(r"\\.|[{}$]", re.S)
_MAX_INDENT = 7  # levels: eight blanks are left of any indent, and without a limit they are the square of the source
_ITEM, _LIST = "\x02", "\x03"  # the beginning of an item, and of the outermost list
_BREAK = "\x01"  # the end of a table's row


def to_text(source: str, definitions: Definitions) -> str:
    """The text of the body of a document."""
    writer = _Writer(Source(source), definitions)
    writer.write(0, len(source))
    return _tidy("".join(writer.out))


class _Writer:
    """Walks over the source once. `out` collects text; `lists` the numbers of open lists (-1: bullets)."""

    def __init__(self, source: Source, definitions: Definitions) -> None:
        self.source, self.definitions = source, definitions
        self.out: list[str] = []
        self.lists: list[int] = []
        self.tables = 0
        self.closing: list[tuple[int, str]] = []  # places where the argument of a command ends, and what to write there
        self.cell_end = 0  # of the last cell that is the argument of a command
        self.ends: dict[str, tuple[int, int]] = {}  # of each pattern, the next match that is known
        self.dollars: dict[int, int] | None = None

    def write(self, at: int, stop: int) -> None:
        source, out = self.source, self.out
        while at < stop:
            found = _TOKEN.search(source, at, stop)
            begin = found.start() if found else stop
            out.append(source[at:begin])
            if found is None:
                return
            at, token = found.end(), found[0]
            if found[1]:
                at = self._command(found[1], at, stop)
            elif found[2]:
                at = self._sign(found[2], at)
            elif token[0] == "$":
                at = self._formula(token, at, stop)
            elif token == "}":
                if self.closing and self.closing[-1][0] == begin:
                    out.append(self.closing.pop()[1])
            elif token != "{":
                cell = " | " if self.tables else " "
                out.append({"~": " ", "&": cell, "--": "–", "---": "—", "``": "“", "''": "”"}[token])

    def _formula(self, token: str, at: int, stop: int) -> int:
        """A formula between dollars; those inside the braces of a \\text are part of it."""
        if self.dollars is None:
            self.dollars = _closing_dollars(self.source)
        end = self.dollars.get(at - 1, -1)
        if not 0 <= end < min(stop, at + _MAX_FORMULA):
            self.out.append(token)
            return at
        self._math(self.source[at:end], token == "$$")
        return end + 1 + (token == "$$" and self.source[end + 1 : end + 2] == "$")

    def _next(self, pattern: str, at: int) -> tuple[int, int]:
        """Where a pattern is found next; -1 where it is not."""
        known = self.ends.get(pattern)
        if known is None or -1 < known[0] < at:
            found = re.compile(pattern).search(self.source, at)
            known = self.ends[pattern] = found.span() if found else (-1, -1)
        return known

    def _math(self, tex: str, displayed: bool) -> None:
        tex = " ".join(_NO_PART.sub("", tex).split())
        if tex:
            self.out.append(f"\n\n$${tex}$$\n\n" if displayed and not self.tables else f"${tex}$")

    def _sign(self, sign: str, at: int) -> int:
        source = self.source
        if sign in "([":
            start, end = self._next(r"\\\)" if sign == "(" else r"\\\]", at)
            if at <= start <= at + _MAX_FORMULA - 2:
                self._math(source[at:start], sign == "[")
                return end
        elif sign == "\\":
            self.out.append(" " if at < self.cell_end else _BREAK if self.tables else "\n")
            at = skip_option(source, at, after_space=False)
        elif sign in _ACCENTS:
            return self._accent(sign, at)
        elif sign not in "-/)]!@":
            self.out.append(" " if sign in " \n,;:>" else sign)
        return at

    def _accent(self, sign: str, at: int) -> int:
        letter, at = argument(self.source, at)
        letter = {"\\i": "i", "\\j": "j"}.get(letter.strip(), letter)
        self.out.append(unicodedata.normalize("NFC", letter[:1] + _ACCENTS[sign]) + letter[1:] if letter else "")
        return at

    def _command(self, name: str, at: int, stop: int) -> int:
        source, out = self.source, self.out
        if name in ("begin", "end"):
            environment, at = argument(source, at)
            return self._environment(environment.strip(), at, name == "begin")
        if name in _SIGNS:
            out.append(_SIGNS[name])
            return at + (source[at : at + 1] == " " and source[at + 1 : at + 2].isalpha())
        if name == "ensuremath":
            tex, at = argument(source, at)
            self._math(tex, False)
            return at
        if name == "item":
            given = option(source, skip_space(source, at))
            depth = "  " * min(max(0, len(self.lists) - 1), _MAX_INDENT)
            if self.lists and self.lists[-1] >= 0 and not given:
                self.lists[-1] += 1
                out.append(f"{_ITEM}{depth}{self.lists[-1]}. ")
            else:
                out.append(f"{_ITEM}{depth}- {given[0] + ' ' if given else ''}")
            return skip_space(source, given[1] if given else at)
        if name in _ACCENTS and len(name) == 1 and source[at : at + 1] in ("{", " "):
            return self._accent(name, at)
        if name == "verb" and at < stop and (end := source.find(source[at], at + 1, at + 1000)) > 0:
            out.append(source[at + 1 : end])
            return end + 1
        if name in ("url", "path", "nolinkurl") and (inner := group(source, skip_space(source, at))):
            out.append(re.sub(r"\\([%#&_~{}])", r"\1", inner[0]))
            return inner[1]
        begin = skip_space(source, at)
        if name in ("textsuperscript", "textsubscript") and (close := group_end(source, begin)):
            content = source[begin + 1 : min(close, begin + _MAX_SCRIPT)]
            out.append(_script_sign(name, "".join(out[-8:])[-1:], content, source[close + 1 : close + 2]))
            return begin
        if name in siunitx.COMMANDS:
            return self._quantity(name, at)
        if name in _CELLS:
            return self._cell(name, at)
        if name == "tabularnewline":
            return self._sign("\\", at)
        at = given[1] if (given := option(source, skip_space(source, at))) else at
        if name == "cmidrule" and source[at : at + 1] == "(":  # which ends of the line are cut
            at = max(at, source.find(")", at, at + 20) + 1)
        if name in _SILENT:
            for _ in range(_SILENT[name]):
                behind = group(source, skip_space(source, at))
                at = behind[1] if behind else at
            while name.lower().startswith("cite") and (given := option(source, at)):
                at = behind[1] if (behind := group(source, given[1])) else given[1]
            return at
        if name in _SECOND and (close := group_end(source, skip_space(source, at))):
            return close + 1 if source[close + 1 : close + 2] == "{" else at
        before, after = ("\n\n", "\n\n") if name in _HEADINGS or name == "caption" else ("", "")
        if name in ("footnote", "footnotetext"):
            before, after = " (", ")"
        if before and (close := group_end(source, skip_space(source, at))):
            out.append(before)
            self.closing.append((close, after))
            return skip_space(source, at) + 1
        if source[at : at + 1] == " " and not given:
            at += 1  # the space that ends a name
        return at

    def _quantity(self, name: str, at: int) -> int:
        arguments: list[str] = []
        for _ in siunitx.COMMANDS[name]:
            value, at = argument(self.source, skip_option(self.source, at))
            arguments.append(value)
        self.out.append(siunitx.text_of(name, arguments))
        return at

    def _cell(self, name: str, at: int) -> int:
        at = skip_option(self.source, at, after_space=False)
        for _ in range(_CELLS[name]):
            _, at = argument(self.source, at)
            at = skip_option(self.source, at, after_space=False)
        self.cell_end = max(self.cell_end, group_end(self.source, skip_space(self.source, at)) or 0)
        return at

    def _skip_arguments(self, count: int, at: int) -> int:
        """The place behind so many arguments in braces, and options before and between them."""
        for number in range(count):
            while given := option(self.source, at if number else skip_space(self.source, at)):
                at = given[1]
            if inner := group(self.source, skip_space(self.source, at)):
                at = inner[1]
        return at

    def _environment(self, full_name: str, at: int, begins: bool) -> int:
        source, out = self.source, self.out
        name = full_name.rstrip("*")
        count = _ARGUMENTS.get(full_name, _ARGUMENTS.get(name, int(name in _TABLES)))
        if name in _DISPLAYED | VERBATIM | _LEFT_OUT and begins:
            start, end = self._next(rf"\\end\s*\{{{re.escape(name)}\*?\}}", at)
            at = self._skip_arguments(count, at) if count else at
            content = source[at:start] if start >= 0 else ""
            if name in VERBATIM:
                given = None if count else option(Source(content), 0)
                out.append(f"\n\n{content[given[1] if given else 0 :]}\n\n")
            elif name in _DISPLAYED:
                several = "&" in content or r"\\" in content
                self._math(rf"\begin{{aligned}}{content}\end{{aligned}}" if several else content, name != "math")
            return max(at, end)
        if name in ("itemize", "enumerate", "description"):
            if begins:
                self.lists.append(0 if name == "enumerate" else -1)
            elif self.lists:
                self.lists.pop()
            if len(self.lists) == begins:  # the outermost one
                out.append(f"\n\n{_LIST}" if begins else "\n\n")
            return skip_option(source, at) if begins else at
        if name in _TABLES:
            self.tables = max(0, self.tables + (1 if begins else -1))
            out.append("\n\n")
            return self._skip_arguments(count, at) if begins else at
        out.append("\n\n")
        if begins and count:
            return self._skip_arguments(count, at)
        if begins and (
            title := self.definitions.theorems.get(name) or {"proof": "Proof", "abstract": "Abstract"}.get(name)
        ):
            given = option(source, skip_space(source, at))
            out.append(f"{title} ({given[0]}). " if given else f"{title}. ")
            return skip_space(source, given[1] if given else at)
        return skip_option(source, at) if begins else at


def _closing_dollars(source: str) -> dict[int, int]:
    """Of each dollar sign, the next one that is not in deeper braces."""
    closes: dict[int, int] = {}
    opened: list[tuple[int, int]] = []  # place and depth; the depths increase
    depth = 0
    for found in _IN_FORMULA.finditer(source):
        depth += (found[0] == "{") - (found[0] == "}")
        if found[0] == "$":
            while opened and opened[-1][1] >= depth:
                closes[opened.pop()[0]] = found.start()
            opened.append((found.start(), depth))
    return closes


def _script_sign(name: str, base: str, content: str, after: str) -> str:
    """The sign of an exponent or index where the value would change without it: 10^6, but 1st and H2O."""
    content = _MARKUP.sub("", content)
    if not _SCRIPT.fullmatch(content):
        return ""
    if name == "textsubscript":
        return "_" if content[-1:].isdigit() and (base.isdigit() or after.isdigit()) else ""
    power = base.isdigit() or ((base.isalpha() or base in ")]") and content.lstrip("+-−–").isdigit())
    return "^" if base and power and content.lower() not in _ORDINALS else ""


_MARKUP, _SCRIPT = re.compile(r"\\[A-Za-z]+|[{}$\s]"), re.compile(r"[+\-−–]?[\w.,]{1,12}")
_MAX_SCRIPT = 20  # characters of an exponent or index that are looked at
_MAX_FORMULA = 10_000  # characters; a dollar sign that is followed by none for so long is a dollar sign
_LONG_RUN, _LINE_END, _BLANK_LINES = re.compile(r"[ \t]{9,}"), re.compile(r"[ \t]+\n"), re.compile(r"\n{3,}")
_LINES = re.compile(r"(?:[ \t]*\n){2,}[ \t]*")
_ROW = re.compile(r"[ \t]*\n?[ \t]*\x01[ \t]*\n?[ \t]*")
_EMPTY = re.compile(r"[ \t]*(?:\([\s,;]*\)|\[[\s,;]*\])(?=[\s.,;:)])|[ \t]+(?=[.,;:](?:\s|$)|\))")


def _tidy(text: str) -> str:
    """Paragraphs in one line each, with blank lines between."""
    # Runs of spaces are cut to eight and blank lines to one, so that no search below looks at a long run repeatedly.
    text = _BLANK_LINES.sub("\n\n", _LINE_END.sub("\n", _LONG_RUN.sub(" " * 8, text)))
    text = re.sub(r"(?<!\s)\s*\x02", "\n", text).replace(f"{_LIST}\n", "").replace(_LIST, "")
    paragraphs = []
    for paragraph in _LINES.split(_ROW.sub("\x01", text)):
        lines: list[list[str]] = []
        for line in paragraph.split("\n"):
            joined = lines and not re.match(r"\s*(?:- |\d+\. )", line)
            if joined:
                lines[-1].append(line.strip())
            elif line.strip():
                lines.append([line.rstrip()])
        out = "\n".join(re.sub(r"(?<=\S)[ \t]{2,}", " ", " ".join(line)) for line in lines).replace("\x01", "\n")
        out = _EMPTY.sub("", out)
        if out.strip(" |\n"):
            paragraphs.append(out.strip("\n") if out.lstrip().startswith("- ") else out.strip())
    return "\n\n".join(paragraphs)

"""Expands what the author of a LaTeX document defined: macros with arguments, inside and outside of formulas.

Definitions take effect where they are, as in TeX. A macro whose body is a program (conditions, catcodes, csname) is
left alone. Work is bounded: macros make at most a few times the source, so one that calls itself ends with an error.

Syntax: The LaTeX Companion, appendix A (\\newcommand); The TeXbook, chapter 20 (\\def).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from curation.step import RecordError

MAX_GROWTH, FREE_GROWTH = 16, 1 << 17  # characters that macros may make: so many times the source, and 128 Ki
# And so many times they may be used: once in four characters of the source, and 100,000. Each use takes about 4 us,
# however short its body; the sample book has one in 60 characters.
FREE_USES, CHARACTERS_A_USE = 100_000, 4
_COMMAND = re.compile(r"\\(?:([A-Za-z@]+)|(.))", re.S)
_DEFINING = frozenset(
    ("newcommand", "renewcommand", "providecommand", "DeclareRobustCommand", "def", "gdef", "edef", "xdef",
     "DeclareMathOperator", "newtheorem", "let", "newenvironment", "renewenvironment")
)  # fmt: skip
_PROGRAM = re.compile(
    r"\\(?:if[a-zA-Z@]*|else|fi|expandafter|csname|catcode|futurelet|@[a-zA-Z@]+|begingroup|loop|global|numexpr|the)(?![a-zA-Z])"
)
MAX_BRACES = 2_000_000
_MAX_OPTION, _MAX_PATTERN = 1000, 200  # characters
_SPACE = re.compile(r"[ \t]*\n?[ \t]*")
_PARAMETER = re.compile(r"#([1-9])")
# Commands of LaTeX that this reader knows: authors redefine how they look, not what they mean.
_KNOWN = frozenset(
    ("section", "subsection", "subsubsection", "chapter", "part", "paragraph", "item", "caption", "footnote", "cite",
     "ref", "label", "emph", "textbf", "textit", "begin", "end", "index", "title", "author", "maketitle",
     "tableofcontents", "par", "input", "include", "bibliography")
)  # fmt: skip


@dataclass(frozen=True)
class Macro:
    parameters: int
    default: str | None  # of the first parameter, where it is optional
    body: str


# Of the four sizes of a formula the first; a space that depends on what follows.
BUILT_IN = {"mathchoice": Macro(4, None, "#1"), "xspace": Macro(0, None, "")}


@dataclass
class Definitions:
    macros: dict[str, Macro]
    theorems: dict[str, str]  # environment -> its title


class Source(str):
    """A text that remembers where its braces and brackets close: found once for a text, so that braces in braces, and
    a return to the text after each macro in it, take no work of their own."""

    _closes: dict[int, int] | None = None

    def closing(self, at: int) -> int | None:
        """The place where the brace or bracket at `at` closes. Raises RecordError."""
        if self._closes is None:
            self._closes = _closing_places(self)
        return self._closes.get(at)


def _closing_places(text: str) -> dict[int, int]:
    """Brackets do not nest: the first one that closes, outside of braces, ends all that are open."""
    closes: dict[int, int] = {}
    opened: list[int] = []  # braces
    options: list[list[int]] = [[]]  # brackets, in each of the open braces
    count = 0
    for found in _BRACE.finditer(text):
        sign, place = found[0], found.start()
        if sign in "{[":
            count += 1
            if count > MAX_BRACES:
                raise RecordError(f"more than {MAX_BRACES:,} braces and brackets")
        if sign == "{":
            opened.append(place)
            options.append([])
        elif sign == "[":
            options[-1].append(place)
        elif sign == "]":
            closes.update((start, place) for start in options[-1] if place - start < _MAX_OPTION)
            options[-1].clear()
        elif sign == "}" and opened:
            closes[opened.pop()] = place
            options.pop()
    return closes


_BRACE = re.compile(r"\\.|[{}\[\]]", re.S)


def group(text: Source, at: int) -> tuple[str, int] | None:
    """The content of the braces that begin at `at`, and the place behind them; None where none begin or they do not
    close."""
    return _inside(text, at, "{")


def group_end(text: Source, at: int) -> int | None:
    """The place of the brace that ends the group that begins at `at`, as `group`; nothing is copied, so that groups in
    groups that are walked through take no work of their own."""
    return text.closing(at) if text[at : at + 1] == "{" else None


def option(text: Source, at: int) -> tuple[str, int] | None:
    """The content of square brackets, as `group`."""
    return _inside(text, at, "[")


def _inside(text: Source, at: int, sign: str) -> tuple[str, int] | None:
    end = text.closing(at) if text[at : at + 1] == sign else None
    return None if end is None else (text[at + 1 : end], end + 1)


def skip_option(text: Source, at: int, *, after_space: bool = True) -> int:
    """The place behind square brackets, which space may stand before if `after_space`; `at` where there are none."""
    found = option(text, skip_space(text, at) if after_space else at)
    return at if found is None else found[1]


def skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def argument(text: Source, at: int) -> tuple[str, int]:
    """One argument: a group, a command or a character; empty at the end."""
    at = skip_space(text, at)
    if inner := group(text, at):
        return inner
    if text[at : at + 1] == "\\" and (command := _COMMAND.match(text, at)):
        return command[0], command.end()
    return ("", at) if text[at : at + 1] in ("", "}", "{") else (text[at], at + 1)


def expand(source: str, definitions: Definitions) -> str:
    """The source without definitions, with the author's macros expanded. Raises RecordError."""
    out: list[str] = []
    pending: list[tuple[Source, int]] = [(Source(source), 0)]
    left = MAX_GROWTH * len(source) + FREE_GROWTH
    uses = len(source) // CHARACTERS_A_USE + FREE_USES
    while pending:
        text, at = pending.pop()
        while found := _COMMAND.search(text, at):
            out.append(text[at : found.start()])
            name, at = found[1] or found[2], found.end()
            if name in _DEFINING:
                at = _define(name, text, at, definitions)
                continue
            macro = definitions.macros.get(name)
            if macro is None:
                out.append(found[0])
                continue
            body, at = _apply(macro, text, at)
            left -= len(body) + 1
            uses -= 1
            if left < 0 or uses < 0:
                raise RecordError("macros that expand without end")
            # a name that ended with the macro must not grow into the letters that follow
            follows = text[at : at + 1].isalpha() and re.search(r"\\[A-Za-z]+\Z", body) is not None
            if at < len(text):
                pending.append((text, at))
            text, at = Source(body + (" " if follows else "")), 0
        out.append(text[at:])
    return "".join(out)


def _apply(macro: Macro, text: Source, at: int) -> tuple[str, int]:
    """The body with the arguments that follow in the text."""
    values: list[str] = []
    if macro.default is not None:
        given = option(text, skip_space(text, at))
        values.append(given[0] if given else macro.default)
        at = given[1] if given else at
    while len(values) < macro.parameters:
        value, at = argument(text, at)
        values.append(value)
    if not macro.parameters:
        return macro.body, at
    return _PARAMETER.sub(lambda m: values[int(m[1]) - 1] if int(m[1]) <= len(values) else "", macro.body), at


def _define(kind: str, text: Source, at: int, definitions: Definitions) -> int:
    """Takes a definition in; returns the place behind it."""
    if text[at : at + 1] == "*":
        at += 1
    if kind == "let":
        _, at = argument(text, at)
        at = skip_space(text, at)
        _, at = argument(text, at + (text[at : at + 1] == "="))
        return at
    if kind == "newtheorem":
        name, at = argument(text, at)
        definitions.theorems[name], at = argument(text, skip_option(text, at))
        return skip_option(text, at, after_space=False)
    name, at = argument(text, at)
    name = name.strip().removeprefix("\\")
    if kind == "DeclareMathOperator":
        body, at = argument(text, at)
        definitions.macros[name] = Macro(0, None, rf"\operatorname{{{body}}}")
        return at
    count, default = 0, None
    if kind.endswith("def"):
        begin = text.find("{", at, at + _MAX_PATTERN)
        if begin < 0:
            return at
        pattern, at = text[at:begin], begin
        count = pattern.count("#")
        simple = re.fullmatch(r"\s*(?:#[1-9])*\s*", pattern) is not None
    else:
        simple = True
        if given := option(text, skip_space(text, at)):
            count, at = int(given[0]) if given[0].strip() in "123456789" and given[0].strip() else 0, given[1]
            if given := option(text, skip_space(text, at)):
                default, at = given
    body, at = argument(text, at)
    if kind.endswith("environment"):
        return argument(text, at)[1]
    if kind == "providecommand" and name in definitions.macros:
        return at
    if simple and name not in _KNOWN and not _PROGRAM.search(body):
        definitions.macros[name] = Macro(count, default, body)
    else:
        definitions.macros.pop(name, None)
    return at

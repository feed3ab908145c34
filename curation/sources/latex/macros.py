"""Expands what the author of a LaTeX document defined: macros with arguments, inside and outside of formulas.

Definitions take effect where they are, as in TeX. A macro whose body is a program (conditions, catcodes, csname) is
left alone. Work is bounded: macros make at most a few times the source, so one that calls itself ends with an error.

Syntax: The LaTeX Companion, appendix A (\\newcommand); The TeXbook, chapter 20 (\\def).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from curation.step import RecordError

MAX_GROWTH, FREE_GROWTH = 16, 1 << 17  # characters that macros may make: so many times the source, and 128 Ki
_COMMAND = re.compile(r"\\(?:([A-Za-z@]+)|(.))", re.S)
_DEFINING = frozenset(("newcommand", "renewcommand", "providecommand", "DeclareRobustCommand", "def", "gdef",
    "edef", "xdef",
                       "DeclareMathOperator", "newtheorem", "let", "newenvironment", "renewenvironment"))  # fmt: skip
_PROGRAM = re.compile(
    r"\\(?:if[a-zA-Z@]*|else|fi|expandafter|csname|catcode|futurelet|@[a-zA-Z@]+|begingroup|loop|global|numexpr|the)(?![a-zA-Z])"
)
MAX_BRACES = 2_000_000
_MAX_OPTION = 1000
_SPACE = re.compile(r"[ \t]*\n?[ \t]*")
_PARAMETER = re.compile(r"#([1-9])")
# Commands of LaTeX that this reader knows: authors redefine how they look, not what they mean.
_KNOWN = frozenset(
    ("section", "subsection", "subsubsection", "chapter", "part", "paragraph", "item", "caption", "footnote",
    "cite", "ref",
     "label", "emph", "textbf", "textit", "begin", "end", "index", "title", "author", "maketitle",
     "tableofcontents", "par",
     "input", "include", "bibliography")
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


def group(text: str, at: int) -> tuple[str, int] | None:
    """The content of the braces that begin at `at`, and the place behind them; None where none begin or they do not
    close."""
    end = _closing_braces(text).get(at) if text[at : at + 1] == "{" else None
    return None if end is None else (text[at + 1 : end], end + 1)


@functools.lru_cache(maxsize=32)
def _closing_braces(text: str) -> dict[int, int]:
    """Where each brace closes: found once for a text, so that braces in braces take no work of their own."""
    closes: dict[int, int] = {}
    opened: list[int] = []
    for found in _BRACE.finditer(text):
        if found[0] == "{":
            opened.append(found.start())
            if len(opened) + len(closes) > MAX_BRACES:
                raise RecordError(f"more than {MAX_BRACES:,} braces")
        elif found[0] == "}" and opened:
            closes[opened.pop()] = found.start()
    return closes


_BRACE = re.compile(r"\\.|[{}]", re.S)
_IN_OPTION = re.compile(r"\\.|[{}\]]", re.S)


def option(text: str, at: int) -> tuple[str, int] | None:
    """The content of square brackets, as `group`."""
    if text[at : at + 1] != "[":
        return None
    depth = 0
    for found in _IN_OPTION.finditer(text, at, at + _MAX_OPTION):
        depth += (found[0] == "{") - (found[0] == "}")
        if found[0] == "]" and not depth:
            return text[at + 1 : found.start()], found.end()
    return None


def skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def argument(text: str, at: int) -> tuple[str, int]:
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
    pending: list[tuple[str, int]] = [(source, 0)]
    left = MAX_GROWTH * len(source) + FREE_GROWTH
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
            if left < 0:
                raise RecordError("macros that expand without end")
            # a name that ended with the macro must not grow into the letters that follow
            follows = text[at : at + 1].isalpha() and re.search(r"\\[A-Za-z]+\Z", body) is not None
            pending.append((text, at))
            text, at = body + (" " if follows else ""), 0
        out.append(text[at:])
    return "".join(out)


def _apply(macro: Macro, text: str, at: int) -> tuple[str, int]:
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


def _define(kind: str, text: str, at: int, definitions: Definitions) -> int:
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
        at = shared[1] if (shared := option(text, skip_space(text, at))) else at
        definitions.theorems[name], at = argument(text, at)
        return within[1] if (within := option(text, at)) else at
    name, at = argument(text, at)
    name = name.strip().removeprefix("\\")
    if kind == "DeclareMathOperator":
        body, at = argument(text, at)
        definitions.macros[name] = Macro(0, None, rf"\operatorname{{{body}}}")
        return at
    count, default = 0, None
    if kind.endswith("def"):
        begin = text.find("{", at)
        if begin < 0 or begin - at > 200:
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

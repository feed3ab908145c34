"""Puts the files of a LaTeX submission together: finds the main file and follows what it inputs.

Files are looked up by name among those of the submission alone, never on disk. Comments are taken out on the way, since
a `\\input` in one is none. Work is linear in the source: what is not closed is looked for once.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from curation.sources import charset
from curation.sources.latex.macros import BUILT_IN, Definitions, Source, expand, group, option, skip_space
from curation.sources.latex.plain_latex import VERBATIM, to_text
from curation.step import RecordError

MAX_SOURCE = 1 << 25  # 32 MiB of text after all inputs
MAX_INPUTS, MAX_DEPTH = 2000, 16
# A comment takes the end of its line and the indent of the next one, unless that is blank: a blank line ends a
# paragraph. In code and addresses a percent sign begins none.
_PERCENT = re.compile(
    r"\\begin\{(?P<code>" + "|".join(sorted(VERBATIM)) + r")(?P<star>\*?)\}"
    r"|\\(?:url|path|nolinkurl|href)\*?[ \t]*+(?:\[[^\[\]\n]*+\][ \t]*+)?\{(?:[^{}\n\\]|\\.|\{[^{}\n]*+\})*+\}"
    r"|\\(?:verb\*?|(?:url|path|nolinkurl)(?=[|!])|lstinline(?:\[[^\[\]\n]*+\])?)(?P<delimiter>[^\sA-Za-z*{])"
    r"|\\(?:lstinline(?:\[[^\[\]\n]*+\])?|mintinline(?:\[[^\[\]\n]*+\])?\{[^{}\n]*+\})\{[^{}\n]*+\}"
    r"|(?P<name>\\[A-Za-z@]+(?=%))|\\[A-Za-z@]+|\\."
    r"|(?P<comment>%[^\n]*+(?:\n[ \t]*+(?!\n))?)"
)
_MAX_VERB = 1000  # characters, as plain_latex has it
_INPUT = re.compile(
    r"\\(?:(?:input|include|subfile|subfileinclude|loadglsentries)\s*+\{([^{}]{1,400}+)\}|input\s++([^\s{}\\]{1,300})"
    r"|(?:import|subimport|includefrom)\s*+\{([^{}]{0,300}+)\}\s*+\{([^{}]{1,300}+)\})"
)
_PACKAGES = re.compile(r"\\(?:usepackage|RequirePackage)\s*+(?:\[[^\[\]]*+\])?\s*+\{([^{}]{1,1000}+)\}")
_TITLE = re.compile(r"\\title(?![A-Za-z@])")
_MAX_TITLE, _MAX_TITLES = 4000, 100  # characters; commands looked at
_CONTROLS = dict.fromkeys([0, 1, 2, 3])
_CLASS = re.compile(r"\\document(?:class|style)\b")
_SUFFIXES = (".tex", ".ltx", ".latex")
_NAMES = ("main", "ms", "paper", "article", "manuscript", "arxiv", "root")


@dataclass
class Document:
    text: str
    title: str
    inputs: list[str] = field(default_factory=list)  # files that went in, in order, without the main file
    missing: list[str] = field(default_factory=list)


def is_source(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES)


def main_file(files: Mapping[str, bytes]) -> str:
    """The file that is typeset. Raises RecordError."""
    sources = {
        name: _without_comments(_text(data)) for name, data in files.items() if is_source(name) or len(files) == 1
    }
    mains = [n for n, text in sources.items() if _CLASS.search(text) and r"\begin{document}" in text]
    mains = mains or [n for n, text in sources.items() if _CLASS.search(text) or r"\begin{document}" in text]
    if not mains:
        raise RecordError("no main file: no file with \\documentclass")
    inputs = {name.strip() for text in sources.values() for found in _INPUT.findall(text) for name in found[:2] if name}
    apart = [n for n in mains if n not in inputs and posixpath.splitext(n)[0] not in inputs] or mains
    return min(apart, key=lambda n: (n.count("/"), _stem(n) not in _NAMES, -len(sources[n]), n))


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0].lower()


def read_document(files: Mapping[str, bytes], main: str) -> Document:
    """The text of a submission. Raises RecordError."""
    found = Document("", "")
    definitions = Definitions(dict(BUILT_IN), {})
    source = _follow(files, main, found, 0, [0])
    if not re.search(r"\\begin\s*\{document\}", source) and not _CLASS.search(source):
        raise RecordError("no \\begin{document}: it is not in the files of the submission")
    for name in (n.strip() for names in _PACKAGES.findall(source) for n in names.split(",")):
        if (path := _find(files, posixpath.dirname(main), name, (".sty",))) is not None:
            expand(_without_comments(_text(files[path])), definitions)
    preamble, begin, body = _partition(source, r"\\begin\s*\{document\}")
    expand(preamble, definitions)
    body = _partition(body if begin else source, r"\\end\s*\{document\}")[0]
    body = expand(body, definitions)
    title = _title(preamble + body)
    found.title = " ".join(to_text(expand(title, definitions), definitions).split())
    found.text = to_text(body, definitions)
    return found


def _partition(text: str, pattern: str) -> tuple[str, str, str]:
    found = re.search(pattern, text)
    return (text[: found.start()], found[0], text[found.end() :]) if found else (text, "", "")


def _text(data: bytes) -> str:
    return charset.decode(data, html=False).text.replace("\r\n", "\n").translate(_CONTROLS)


def _title(text: str) -> str:
    """The argument of the first \\title that has one."""
    source = Source(text)
    for found in itertools.islice(_TITLE.finditer(source), _MAX_TITLES):
        at = skip_space(source, found.end())
        at = skip_space(source, given[1]) if (given := option(source, at)) else at
        if (inner := group(source, at)) and len(inner[0]) <= _MAX_TITLE:
            return inner[0]
    return ""


def _without_comments(text: str) -> str:
    if "%" not in text:
        return text
    out: list[str] = []
    ends: dict[str, int] = {}  # of each environment, the next end that is known; -1 where none follows
    at, copied, name_end = 0, 0, -1
    while found := _PERCENT.search(text, at):
        at = found.end()
        if found["comment"]:
            out.append(text[copied : found.start()])
            if found.start() == name_end and text[at : at + 1].isalpha():
                out.append(" ")  # a name that ended with the line must not grow into the letters that follow
            copied = at
        elif found["name"]:
            name_end = at
        elif found["code"]:
            close = f"\\end{{{found['code']}{found['star']}}}"
            if close not in ends or -1 < ends[close] < at:
                ends[close] = text.find(close, at)
            at = max(at, ends[close])
        elif found["delimiter"]:
            end = text.find(found["delimiter"], at, at + _MAX_VERB)
            at = end + 1 if end >= 0 and "\n" not in text[at:end] else at
    out.append(text[copied:])
    return "".join(out)


def _follow(files: Mapping[str, bytes], name: str, found: Document, depth: int, size: list[int]) -> str:
    """A file with its inputs in their places."""
    text = _text(files[name])
    size[0] += len(text)  # with its comments: a file of nothing else is work too
    if size[0] > MAX_SOURCE or len(found.inputs) > MAX_INPUTS or depth > MAX_DEPTH:
        raise RecordError("inputs without end: a file that inputs itself, or more text than any document has")
    text = _without_comments(text).partition(r"\endinput")[0]

    def replace(match: re.Match[str]) -> str:
        wanted = (match[1] or match[2] or "").strip() or posixpath.join(match[3] or "", match[4] or "").strip()
        if not wanted:
            return " "
        if len(found.missing) > MAX_INPUTS:
            raise RecordError(f"more than {MAX_INPUTS:,} inputs that are missing")
        path = None
        for folder in dict.fromkeys((posixpath.dirname(name), "")):
            path = path or _find(files, folder, wanted, ("", ".tex", ".ltx", ".tikz", ".sty"))
        if path is None or path.endswith(".bbl"):
            if path is None:
                found.missing.append(wanted)
            return " "
        if path not in found.inputs:
            found.inputs.append(path)
        return f"\n{_follow(files, path, found, depth + 1, size)}\n"

    return _INPUT.sub(replace, text)


def _find(files: Mapping[str, bytes], folder: str, name: str, suffixes: tuple[str, ...]) -> str | None:
    for suffix in suffixes:
        path = posixpath.normpath(posixpath.join(folder, name.strip().strip('"') + suffix))
        if path in files:
            return path
    return None

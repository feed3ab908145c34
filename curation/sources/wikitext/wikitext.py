"""Turns wikitext into plain text in one pass over its brackets.

A stack holds what is open: templates, links and tables. What closes is resolved at once and its text given to what is
around it, so each character is looked at once however deep markup is nested. What is never closed gives back its text.
Links become their labels; files, categories and links to other languages are left out; templates, see templates.py.

Syntax: https://www.mediawiki.org/wiki/Help:Formatting, Help:Links, Help:Tables; braces as in the preprocessor:
https://www.mediawiki.org/wiki/Preprocessor_ABNF.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from curation.sources.wikitext import extension_tags, plain_lines, scripts
from curation.sources.wikitext.mending import REMOVED, mend
from curation.sources.wikitext.tables import Table
from curation.sources.wikitext.templates import Arguments, resolve

# A link without markup in it is one token: nine of ten are. Each branch begins with a character of its own, so that
# the search skips text quickly.
_TOKEN = re.compile(
    r"\[\[(?:([^\[\]{}|<>\n]++)(?:\|([^\[\]{}|\n]*+))?+\]\])?+|\]\]|\{\{++|\}\}++|\|\|?|!!"
    r"|\n[ \t:]*+(?:\{\||\|\}(?!\})|\|[-+]?|!)"
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_EXTERNAL = re.compile(r"\[(?:(?:https?|ftps?|mailto|news|irc|gopher):|//)[^\s\[\]]*+(?:[ \t]([^\[\]\n]*+))?\]")
_LANGUAGE = re.compile(r"(?:[a-z]{2,3}|simple|[a-z]{2,3}-[a-z-]{2,12}|be-x-old):[^:]")
_NO_LANGUAGES = frozenset(("wp", "mw", "doi", "arc", "rfc", "rev", "wmf"))
_FILE_NAME = re.compile(
    r"[^:]+:[^:]*\.(?:jpe?g|png|gif|svg|tiff?|ogg|ogv|oga|webm|webp|mp3|mid|pdf|djvu|xcf|wav|flac)\s*", re.I
)
_WORD = re.compile(r"__[^\W\d_]{3,40}__")
_HTML = re.compile(
    r"</?(br|p|div|blockquote|center|li|ul|ol|dl|dd|dt|tr|table|td|th|h[1-6]|hr|poem|span|small|big|b|i|u|s|em|strong|code"
    r"|tt|font|cite|abbr|del|ins|strike|sub|sup|var|kbd|samp|q|dfn|mark|bdi|bdo|wbr|time|data|ruby|rb|rt|rp|caption"
    r"|noinclude|onlyinclude|nobr|tbody|thead|ref|references|nowiki|math|gallery|pre|source|syntaxhighlight|includeonly"
    r"|timeline)(?=[\s/>])[^<>]*+>|</?br\s*+/?>?",
    re.I,
)
_LINES = frozenset(("br", "dd", "dt", "tr", "td", "th"))
_PARAGRAPHS = frozenset(
    ("p", "div", "blockquote", "center", "ul", "ol", "dl", "table", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "poem",
     "caption")
)  # fmt: skip
_SCRIPTS = {"sup": (scripts.SUP, scripts.END_SUP), "sub": (scripts.SUB, scripts.END_SUB)}
_SPACES = re.compile("  +")
_QUOTES = re.compile(r"'{5}|'{2,3}")
_INFOBOX = re.compile(
    r"(?:infobox|infoboks|taxobox|automatic taxobox|speciesbox|ficha|карточка|инфокутия|инфобокс|картка|info/)", re.I
)
_CATEGORY, _FILES = frozenset(("category",)), frozenset(("file", "image", "media"))


@dataclass(frozen=True)
class Site:
    """What a wiki calls its namespaces, in lower case."""

    categories: frozenset[str] = _CATEGORY
    files: frozenset[str] = _FILES


@dataclass
class PlainPage:
    """The text of a page, and what is told apart from it."""

    text: str = ""
    categories: list[str] = field(default_factory=list)
    infobox: dict[str, str] = field(default_factory=dict)


class _Frame:
    """Something open. `count`: braces of a template; 0: a link; -1: the page; a table has `table`."""

    __slots__ = ("arguments", "count", "current", "table")

    def __init__(self, count: int, table: Table | None = None) -> None:
        self.count = count
        self.table = table
        self.current: list[str] = []
        self.arguments: list[str] = []

    def add(self, text: str) -> None:
        if self.table is None:
            self.current.append(text)
        elif self.table.cell is not None:
            self.table.cell.append(text)

    def pipe(self) -> None:
        self.arguments.append("".join(self.current))
        self.current = []

    def all(self) -> list[str]:
        return [*self.arguments, "".join(self.current)]


def to_text(source: str, site: Site = Site(), *, infobox: bool = False) -> PlainPage:
    """The plain text of a page. `infobox`: whether to keep the fields of its first infobox."""
    page = PlainPage()
    text, kept = extension_tags.take_out(_CONTROLS.sub("", source))
    text = _resolve_brackets(text, site, page, infobox)
    text = plain_lines.write(_finish(text))
    page.text = extension_tags.restore(text, kept).strip("\n")
    if page.infobox:
        page.infobox = {k: " ".join(extension_tags.restore(_finish(v), kept).split()) for k, v in page.infobox.items()}
    page.categories = list(dict.fromkeys(page.categories))
    return page


def _resolve_brackets(source: str, site: Site, page: PlainPage, infobox: bool) -> str:
    text = "\n" + source
    stack = [_Frame(-1)]
    top = stack[0]
    at = 0
    for found in _TOKEN.finditer(text):
        start, end = found.span()
        if at < start:
            top.add(text[at:start])
        at = end
        token = found[0]
        kind = token[0]
        if kind == "[":
            if found[1] is not None:
                top.add(_link([found[1]] if found[2] is None else [found[1], found[2]], site, page))
            else:
                top = _open(stack, _Frame(0))
        elif kind == "{":
            top = _open(stack, _Frame(len(token)))
        elif kind == "}":
            _close_braces(stack, len(token), site, page, infobox)
            top = stack[-1]
        elif kind == "]":
            if top.count != 0 or top.table is not None:
                if len(stack) < 2 or stack[-2].count != 0 or stack[-2].table is not None or top.table is not None:
                    top.add(token)  # nothing is open that they close: text, as in a[b[1]]
                    continue
                _flatten(stack)
                top = stack[-1]
            stack.pop()
            link = _link(top.all(), site, page)
            top = stack[-1]
            top.add(link)
        elif kind == "\n":
            top = _line(stack, token)
        elif top.table is not None:
            if token == "|":
                top.table.pipe()
            elif token == "||" or top.table.header_line:
                top.table.open_cell(top.table.header_line)
            else:
                top.add(token)
        elif kind == "|" and top.count >= 0:
            for _ in token:
                top.pipe()
        else:
            top.add(token)
    top.add(text[at:])
    while len(stack) > 1:
        _flatten(stack)
    return "".join(stack[0].current)


def _open(stack: list[_Frame], frame: _Frame) -> _Frame:
    """Opens something. Where very much is open, all of it is taken for never closed, so that no text is joined more
    often than that."""
    if len(stack) > _MAX_DEPTH:
        while len(stack) > 1:
            _flatten(stack)
    stack.append(frame)
    return frame


_MAX_DEPTH = 100  # MediaWiki's limit ($wgMaxPPExpandDepth)


def _line(stack: list[_Frame], token: str) -> _Frame:
    """A line that begins as one of a table does."""
    top = stack[-1]
    mark = token.lstrip(" \t\n:")
    if mark == "{|":
        top.add("\n")
        return _open(stack, _Frame(-1, Table()))
    if top.table is None and mark == "|}" and len(stack) > 1 and stack[-2].table is not None:
        _flatten(stack)  # something in the last cell is not closed
        top = stack[-1]
    table = top.table
    if table is None:
        if mark[0] == "!" or top.count < 0:
            top.add(token)
        else:
            top.add("\n")
            top.pipe()
            top.add(mark[1:])
        return top
    if mark == "|}":
        stack.pop()
        stack[-1].add(table.text())
    elif mark == "|-":
        table.open_row()
    elif mark == "|+":
        table.open_caption()
    else:
        table.open_cell(mark == "!")
    return stack[-1]


def _close_braces(stack: list[_Frame], count: int, site: Site, page: PlainPage, infobox: bool) -> None:
    """Closes templates by so many closing braces: three are a parameter, two a template."""
    while count >= 2:
        depth = len(stack) - 1
        while depth and stack[depth].count < 2:
            depth -= 1
            if len(stack) - depth > _LOOK_BACK:
                depth = 0
        if not depth:
            break  # nothing is open that they close
        while len(stack) - 1 > depth:
            _flatten(stack)
        frame = stack[-1]
        used = 3 if min(count, frame.count) >= 3 else 2
        text = _template(frame.all(), page, infobox) if used == 2 else _parameter(frame.all())
        count -= used
        if frame.count - used >= 2:
            frame.count -= used
            frame.arguments, frame.current = [], [text]
        else:
            stack.pop()
            stack[-1].add("{" * (frame.count - used) + text)
    if count > 0:
        stack[-1].add("}" * count)  # {{math|{1, 2}}}: the template's end are the first two


_LOOK_BACK = 8  # open links and tables that a template's end may close: more are no slip of an editor


def _flatten(stack: list[_Frame]) -> None:
    """Gives the text of what is not closed to what is around it."""
    frame = stack.pop()
    if frame.table is not None:
        text = frame.table.text()
    elif frame.count == 0:
        text = frame.all()[-1]
    else:  # of a template, what is not on its own line
        text = " ".join(frame.all()).partition("\n")[2]
    stack[-1].add(text)


def _parameter(arguments: Sequence[str]) -> str:
    """`{{{name|default}}}`: articles have none but by mistake."""
    return arguments[1] if len(arguments) > 1 else REMOVED


def _template(arguments: Sequence[str], page: PlainPage, infobox: bool) -> str:
    name = arguments[0]
    if infobox and not page.infobox and _INFOBOX.match(name.strip()):
        fields = Arguments(arguments[1:]).named
        page.infobox = {k: v for k, v in fields.items() if v.strip(f"{REMOVED} \n")}
    return resolve(name, arguments[1:])


def _link(parts: Sequence[str], site: Site, page: PlainPage) -> str:
    """The label of a link; nothing for files, categories and pages in other languages."""
    target = parts[0].strip()
    if "]" in target:  # [[1, 2], [3, 4]]: no page has such a name
        return f"[[{'|'.join(parts)}]]"
    if ":" in target and not target.startswith(":"):
        before, _, rest = target.partition(":")
        space = before.strip().replace("_", " ").lower()
        if space in site.categories:
            if name := rest.replace("_", " ").strip(f" {REMOVED}"):
                page.categories.append(name)
            return REMOVED
        if space in site.files or _FILE_NAME.fullmatch(target):
            return REMOVED
        if _LANGUAGE.match(target) and before not in _NO_LANGUAGES:
            return REMOVED
    if len(parts) > 2 and ":" in target:
        return REMOVED  # a file by a name of its namespace that is not known: no other link has two pipes
    if len(parts) > 1 and (label := parts[-1].strip("\n")):
        return label
    target = target.removeprefix(":")
    return target.partition(":")[2] or target if len(parts) > 1 else target


def _finish(text: str) -> str:
    """Text without the markup that is left: quotes, tags, links to other sites, entities, what templates left."""
    if "''" in text:
        text = _QUOTES.sub("", text)
    if "[" in text:
        text = _EXTERNAL.sub(lambda m: m[1] or REMOVED, text)
    if "<" in text:
        text = _HTML.sub(_tag, text)
    if "&" in text:
        text = html.unescape(text).replace("\xa0", " ").replace("\xad", "")
    text = scripts.write(text)
    if "__" in text:
        text = _WORD.sub(lambda m: "" if m[0].isupper() else m[0], text)
    text = mend(text).replace("\t", " ")
    return _SPACES.sub(" ", text) if "  " in text else text


def _tag(match: re.Match[str]) -> str:
    name = (match[1] or "br").lower()
    closing = match[0].startswith("</")
    if name in _SCRIPTS:
        return _SCRIPTS[name][closing]
    if name == "li":
        return "" if closing else "\n* "
    return "\n" if name in _LINES else "\n\n" if name in _PARAGRAPHS else ""

r"""The reader of LaTeX: macros expanded, every \input in its place, each file of a submission accounted for.

Covers: macros.py, plain_latex.py
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation import document, storage
from curation.sources.latex import macros, plain_latex, submission
from curation.sources.latex.latex import LatexReader
from curation.sources.latex.macros import BUILT_IN, Definitions, expand
from curation.sources.latex.plain_latex import to_text
from curation.step import InputSplit, RecordError, UnreadableFile

BEGIN, END = r"\documentclass{a}\begin{document}", r"\end{document}"
MAIN = r"""\documentclass{article} % \input{never}
\newcommand{\mill}[2][grain]{\mathrm{grind}_{#1}(#2)}
\input{macros}
\title{On \emph{Mills}}
\begin{document}
\maketitle
\section{First}\label{s}
A mill~\cite{x} is $\mill{x} < \RR$ (see \ref{s}). % a comment
\input{sections/second}
\include{third}
\input{gone}
\bibliography{refs}
\end{document}
never
"""
FILES = {
    "main.tex": MAIN, "macros.tex": r"\def\RR{\mathbb{R}}", "sections/second.tex": "Second part.",
    "third.tex": "Third part.",
    "unused.tex": "Unused.", "refs.bib": "@book{x}", "figure.png": "\x89PNG",
}  # fmt: skip


def tar(files: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            data = data if isinstance(data, bytes) else data.encode()
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def read(root: Path, name: str) -> list[Any]:
    part = InputSplit(name, (root / name).stat().st_size, "")
    batches = LatexReader().read(part, str(root), collection="c", domain="d", rows=3)
    return [row for batch in batches for row in batch.to_pylist()]


def verdicts(rows: list[Any]) -> list[str]:
    return ["kept" if r["drop"] is None else r["drop"]["rule"] for r in rows]


TEXT = r"""First

A mill is $\mathrm{grind}_{grain}(x) < \mathbb{R}$ (see). Second part.

Third part."""


@pytest.mark.parametrize("form", ["plain", "packed", "many", "folder"])
def test_a_submission_is_a_document(tmp_path: Path, form: str) -> None:
    if form == "folder":
        for name, content in FILES.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        (book,) = read(tmp_path, "main.tex")
        assert verdicts(read(tmp_path, "third.tex")) == ["record_type"]
    else:
        one = gzip.compress(tar(FILES), mtime=0)
        many = tar(
            {
                "2401/2401.00001.gz": one,
                "2401/2401.00002.gz": gzip.compress(MAIN.encode()),
                "2401/2401.00003.pdf": "%PDF-",
            }
        )
        name = "2401.00001.tar"
        (tmp_path / name).write_bytes({"plain": tar(FILES), "packed": one, "many": many}[form])
        rows = read(tmp_path, name)
        kept = [r for r in rows if r["drop"] is None]
        book = kept[0]
        merged = [r for r in rows[:5] if r["drop"] and r["drop"]["rule"] == "merged"]
        assert len(merged) == 3 and {r["drop"]["value"] for r in merged} == {document.hex_id(book["doc_id"])}
        assert verdicts(rows[:5]).count("record_type") == 1
        assert verdicts(rows[5:]) == (["kept", "record_type"] if form == "many" else [])
        assert book["url"] == "https://arxiv.org/abs/2401.00001"
        assert len({r["doc_id"] for r in rows}) == len(rows)
        assert LatexReader().original(book["source"], str(tmp_path)).decode() == MAIN
    assert book["text"] == TEXT
    meta = json.loads(book["meta"])
    assert (meta["title"], meta["inputs"]) == ("On Mills", ["macros.tex", "sections/second.tex", "third.tex"])
    assert meta["missing"] == ["gone"]


CASES = {
    "formulas": (r"a $x$ b \(y\) c \[z\label{e}\] d $$w$$ e", "a $x$ b $y$ c\n\n$$z$$\n\nd\n\n$$w$$\n\ne"),
    "aligned": ("\\begin{align*}a &= b\\\\ c &= d\\end{align*}", "$$\\begin{aligned}a &= b\\\\ c &= d\\end{aligned}$$"),
    "equation": (r"\begin{equation}\label{e} x_{1} \nonumber\end{equation}", "$$x_{1}$$"),
    "text in a formula": (r"$x \text{ if $y$ holds}$ z", r"$x \text{ if $y$ holds}$ z"),
    "words": (r"\textbf{Bold} \emph{it}, \"o \'{e} \c{c} \ss{} \& \% \$5 ``q'' a---b 1--2 x~y",
        "Bold it, ö é ç ß & % $5 “q” a—b 1–2 x y"),
    "lists": ("\\begin{itemize}\\item one\n\\item two\\begin{enumerate}\\item a\\item b\\end{enumerate}\\end{itemize}",
              "- one\n- two\n  1. a\n  2. b"),
    "a table": ("\\begin{tabular}{l|r}\\hline a & $b$ \\\\ \\hline c & d \\\\\\end{tabular}", "a | $b$\nc | d"),
    "captions": ("\\begin{figure}[t]\\includegraphics{x}\\caption{A \\emph{m}.}\\label{f}\\end{figure}", "A m."),
    "footnotes and links": (r"A\footnote{note} \href{http://x}{link} \url{http://y}", "A (note) link http://y"),
    "left out": ("A\n\\begin{thebibliography}{9}\\bibitem{x} B\\end{thebibliography}\\vspace{1cm}\\label{x} C",
        "A C"),
    "verbatim": ("\\begin{verbatim}\n  if $x$ {\n\\end{verbatim}\\verb|a{b|", "if $x$ {\n\na{b"),
    "theorems": ("\\newtheorem{thm}[x]{Theorem}\\begin{thm}[Miller] T.\\end{thm}\\begin{proof}P.\\end{proof}",
                 "Theorem (Miller). T.\n\nProof. P."),
    "macros": (r"\newcommand\a[1]{(#1)}\def\b#1#2{#2#1}\a{\b xy} \renewcommand{\a}{z}\a{} \a b", "(yx) z z b"),
    "operators": (r"\DeclareMathOperator{\grind}{grind}$\grind x$", r"$\operatorname{grind} x$"),
    "in text and formula": (r"\newcommand{\N}{\ensuremath{\mathbb{N}}}The \N{} and $\N$.",
        r"The $\mathbb{N}$ and ${\mathbb{N}}$."),
    "programs stay": (r"\def\p{\ifx\a\b c\fi}A \p B", "A B"),
    "cells": (r"\begin{tabular}{lll}\multicolumn{2}{c|}{Score} & \multirow[t]{2}{*}{A} \\ "
        r"\cmidrule[1pt](lr){1-2}\cline{1-2}"
        r"\makecell[l]{a\\b} & \multirow{2}*{$x$} & \rowcolor{red}\textbf{c} \tabularnewline d \\ \end{tabular}",
        "Score | A\na b | $x$ | c\nd"),
    "arguments of environments": (
        r"\begin{tabular*}{\textwidth}[t]{l|l} a & b \end{tabular*}"
        r"\begin{tabularx}{5cm}{XX} c & d \end{tabularx}\begin{longtable}[c]{ll} [e] & f \end{longtable}"
        r"\begin{minipage}[t][2cm]{0.5\textwidth} g \end{minipage}"
        r"\begin{wrapfigure}[9]{r}[1cm]{0.4\textwidth} h \end{wrapfigure}"
        r"\begin{multicols}{2} i \end{multicols}\begin{adjustbox}{width=\textwidth} j \end{adjustbox}"
        r"\begin{IEEEeqnarray}{rCl} k &=& l \end{IEEEeqnarray}\begin{alignat*}{2} m &= n \end{alignat*}"
        r"\begin{minted}[x]{python}o = {}\end{minted}",
        "a | b\n\nc | d\n\n[e] | f\n\ng\n\nh\n\ni\n\nj\n\n$$\\begin{aligned} k &=& l \\end{aligned}$$\n\n"
        "$$\\begin{aligned} m &= n \\end{aligned}$$\n\no = {}"),
    "exponents": (
        r"10\textsuperscript{6}, 10\textsuperscript{$-6$}, 2\textsuperscript{\itshape nd}, 5\textsuperscript{*}, "
        r"10\textsuperscript{-3}, m\textsuperscript{2}, 1\textsuperscript{st}, "
        r"E.\textsuperscript{a}, H\textsubscript{2}O, log\textsubscript{2}8, 101\textsubscript{2}",
        "10^6, 10^$-6$, 2nd, 5*, 10^-3, m^2, 1st, E.a, H2O, log_28, 101_2"),
    "addresses": (r"\url{http://a.org/~b_c?d=1&e=f--g%20h\%20} \href{http://a.org/%20}{i}",
        "http://a.org/~b_c?d=1&e=f--g%20h%20 i"),
    "quantities": (r"\SI{5}{\meter}, \qty[x=y]{1.5e-3}{\kg}, \num{2+-1}; \ang{30}", "5 m, 1.5×10^-3 kg, 2±1; 30°"),
    "not closed": (r"A $x and \begin{equation} y {", "A $x and y"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_latex_becomes_text(name: str) -> None:
    source, text = CASES[name]
    definitions = Definitions(dict(BUILT_IN), {})
    assert to_text(expand(source, definitions), definitions) == text


HOSTILE = {
    "braces": "{" * 50_000, "dollars": "$" * 50_001, "begin": r"\begin{equation}" * 5000, "items": r"\item[" * 15_000,
    "groups": r"\section{" * 3000, "definitions": r"\newcommand{\a}" * 5000, "accents": "\\'" * 30_000,
        "tildes": "~" * 30_000,
    "lists": r"\begin{itemize}" * 5000, "options": r"\x[" * 15_000, "tables": r"\begin{tabular}{" * 5000,
    # each of these took long while the work grew with the square of their length
    "formulas in braces": "${" * 50_000, "formulas of LaTeX": r"\(" * 50_000,
    "equations": r"\begin{equation}" * 13_000,
    "code": r"\begin{minted}" * 13_000, "lines": "a\n" * 100_000, "blanks": "\u2003" * 66_000,
    "patterns": r"\def\a" * 16_000, "cells": r"\multicolumn" * 16_000,
    "scripts": r"{}" * 16_000 + r"\textsuperscript{1}" * 6_000,
    "units": r"\si{" * 6_000 + r"\si{\per" * 1_000, "a unit": r"\si{" + r"\kilo\per^" * 10_000 + "}",
    "headings": r"\section{" * 33_000 + "}" * 33_000, "links": r"\href{" * 33_000 + "}" * 33_000,
    "exponents": r"\textsuperscript{" * 26_000 + "}" * 26_000, "made cells": r"\makecell{" * 26_000 + "}" * 26_000,
    "a number": r"\num{" + "1" * 16_000 + "x}", "addresses": r"\url{" * 10_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sources_end(name: str) -> None:
    definitions = Definitions({}, {})
    to_text(expand(HOSTILE[name], definitions), definitions)


def test_an_end_that_is_missing_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[str] = []

    class CountedRe:
        def __getattr__(self, name: str) -> Any:
            return getattr(re, name)

        def compile(self, pattern: str) -> re.Pattern[str]:
            searches.append(pattern)
            return re.compile(pattern)

    monkeypatch.setattr(plain_latex, "re", CountedRe())
    for times in (50, 500):
        to_text(r"\begin{equation} \( \[ \begin{minted}" * times, Definitions({}, {}))
        assert len(searches) == len(set(searches)) == 4
        searches.clear()


def test_braces_are_looked_for_once_in_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where macros in macros come between two looks at a text."""
    scanned: list[int] = []
    closing = macros._closing_places

    def counted(text: str) -> dict[int, int]:
        scanned.append(len(text))
        return closing(text)

    monkeypatch.setattr(macros, "_closing_places", counted)
    depth, times = 40, 100
    names = [f"m{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(depth + 1)]
    chain = "".join(rf"\newcommand{{\{a}}}[1]{{\{b}{{#1}}}}" for a, b in itertools.pairwise(names))
    source = chain + rf"\{names[0]}{{x}}" * times
    expanded = expand(source, Definitions({}, {}))
    assert expanded == rf"\{names[-1]}{{x}}" * times
    assert sum(scanned) <= len(source) + depth * times * len(rf"\{names[0]}{{x}}")


@pytest.mark.parametrize("source", [r"\def\a{\a\a}\a", r"\def\a#1{\a{#1#1}}\a x", r"\def\a{\b}\def\b{\a}\a"])
def test_macros_without_end_are_an_error(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.sources.latex.macros.FREE_GROWTH", 5000)
    with pytest.raises(RecordError, match="without end"):
        expand(source, Definitions({}, {}))


def edited(name: str, old: str, new: str) -> Callable[[], bytes]:
    def make() -> bytes:
        assert old in FILES[name]
        return tar(FILES | {name: FILES[name].replace(old, new)})

    return make


def without(*names: str) -> Callable[[], bytes]:
    return lambda: tar({k: v for k, v in FILES.items() if k not in names})


SOUND = gzip.compress(tar(FILES), mtime=0)
KINDS = ("kept", "merged", "record_type", "unreadable", "empty")
DAMAGED: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "cut off": (lambda: SOUND[:300], (0, 0, 0, 1, 0)),
    "cut at its end": (lambda: SOUND[:-5], (0, 0, 0, 1, 0)),
    "broken bytes": (lambda: SOUND[:80] + b"\x00\xff" * 20 + SOUND[120:], (0, 0, 0, 1, 0)),
    "a tar that is cut off": (lambda: tar(FILES)[:1300], (0, 0, 0, 1, 0)),
    "no main file": (without("main.tex"), (0, 0, 0, 4, 0)),
    "no sources": (without(*(n for n in FILES if n.endswith("tex"))), (0, 0, 0, 1, 0)),
    "an input missing": (without("third.tex"), (1, 2, 1, 0, 0)),
    "no macros": (without("macros.tex"), (1, 2, 1, 0, 0)),
    "an input of itself": (edited("third.tex", "Third", "\\input{third}"), (0, 0, 0, 5, 0)),
    "inputs in a circle": (edited("third.tex", "Third", "\\input{main}"), (0, 0, 0, 5, 0)),
    "an input outside": (edited("third.tex", "Third", "\\input{../../etc/passwd}"), (1, 3, 1, 0, 0)),
    "no end": (edited("main.tex", "\\end{document}", ""), (1, 3, 1, 0, 0)),
    "no beginning": (edited("main.tex", "\\begin{document}", ""), (1, 3, 1, 0, 0)),
    "no class": (edited("main.tex", "\\documentclass{article}", ""), (1, 3, 1, 0, 0)),
    "nothing in it": (edited("main.tex", MAIN, "\\documentclass{a}\\begin{document}\\end{document}"), (0, 0, 4, 0, 1)),
    "braces not closed": (edited("main.tex", "{First}", "{First"), (1, 3, 1, 0, 0)),
    "environments nested wrongly": (edited("third.tex", "Third", "\\begin{a}\\begin{b}\\end{a}\\end{b}"),
        (1, 3, 1, 0, 0)),
    "another charset": (lambda: tar(FILES | {"third.tex": "Mühle".encode("latin-1")}), (1, 3, 1, 0, 0)),
    "macros without end": (edited("macros.tex", "\\mathbb{R}", "\\RR\\RR"), (0, 0, 0, 5, 0)),
    "two main files": (lambda: tar(FILES | {"other.tex": "\\documentclass{a}\\begin{document}B\\end{document}"}),
        (1, 3, 2, 0, 0)),
    "a PDF in place of a source": (lambda: tar({"2401/1.gz": gzip.compress(b"%PDF-1.4")}), (0, 0, 1, 0, 0)),
    "a broken archive among others": (
        lambda: tar({"2401/1.gz": b"\x1f\x8b\x08broken", "2401/2.gz": SOUND}), (1, 3, 1, 1, 0),
    ),
    "binary data": (lambda: bytes(range(256)) * 9, (0, 0, 0, 1, 0)),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_a_drop_with_its_reason(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.sources.latex.macros.FREE_GROWTH", 10_000)
    make, wanted = DAMAGED[damage]
    (tmp_path / "x.tar").write_bytes(make())
    rows = read(tmp_path, "x.tar")
    assert tuple(verdicts(rows).count(kind) for kind in KINDS) == wanted
    assert all(r["drop"]["value"] for r in rows if r["drop"] and r["drop"]["rule"] != "empty")
    assert len({r["doc_id"] for r in rows}) == len(rows)


ONE = {"main.tex": BEGIN + "A" + END}


@pytest.mark.parametrize("form", ["alone", "packed", "many"])
@pytest.mark.parametrize("first", [True, False])
def test_archives_inside_a_submission_stay_packed(form: str, first: bool, tmp_path: Path) -> None:
    """Whatever is in them, and wherever they are: the paper is read, and each of them is a record."""
    inner = {"anc/code.tar": tar({"b.tex": BEGIN + "B" + END}), "anc/data.tgz": SOUND, "fig.gz": gzip.compress(b"%!PS"),
             "2401/fig.pdf": "%PDF-"}  # fmt: skip
    submitted = tar(inner | ONE if first else ONE | inner)
    data = {
        "alone": submitted,
        "packed": gzip.compress(submitted),
        "many": tar({"2401/1.gz": gzip.compress(submitted), "2401/2.gz": gzip.compress(submitted)}),
    }[form]
    (tmp_path / "x.tar").write_bytes(data)
    rows = read(tmp_path, "x.tar")
    assert verdicts(rows) == ["kept", "record_type", "record_type", "record_type"] * (2 if form == "many" else 1)
    assert {r["text"] for r in rows if r["drop"] is None} == {"A"}
    assert LatexReader().original(rows[0]["source"], str(tmp_path)).decode() == ONE["main.tex"]
    with pytest.raises(RecordError, match=r"anc/code\.tar is an archive inside a submission"):
        LatexReader().original(rows[1]["source"], str(tmp_path))


def test_a_submission_of_one_file_of_any_name_beside_an_archive(tmp_path: Path) -> None:
    packed = gzip.compress(tar({"paper": ONE["main.tex"], "x.gz": b"x"}))
    (tmp_path / "x.tar").write_bytes(tar({"2401/1.gz": packed, "2401/2.pdf": "%PDF-"}))
    assert verdicts(read(tmp_path, "x.tar")) == ["kept", "record_type", "record_type"]


def test_archives_in_archives_end(tmp_path: Path) -> None:
    data = tar(ONE)
    for _ in range(600):
        data = header("x.tar", len(data)) + data + bytes(1024)
    (tmp_path / "x.tar").write_bytes(tar({"a.tar": data, "b.tar": data}))
    assert verdicts(read(tmp_path, "x.tar")) == ["unreadable", "record_type"] * 2


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("name", ["x.tex", "x.png"])
def test_a_negative_size_ends_an_archive(name: str, tmp_path: Path) -> None:
    """A size that leads back to a header that was read is no loop (CVE-2025-8194)."""
    sound = tar(ONE)[:1024]
    for size in (-512, -1024, -1536):
        data = sound + header(name, size) + bytes(1024)
        (tmp_path / "x.tar").write_bytes(data)
        assert verdicts(read(tmp_path, "x.tar")) == ["unreadable"]
        (tmp_path / "x.tar").write_bytes(tar({"2401/1.gz": gzip.compress(data), "2401/2.gz": SOUND}))
        found = verdicts(read(tmp_path, "x.tar"))
        assert found[0] == "unreadable" and found.count("kept") == 1


def test_a_chain_of_long_names_is_unreadable(tmp_path: Path) -> None:
    data = tar(ONE)[:1024] + header("x", 0, tarfile.GNUTYPE_LONGNAME) * 1500 + tar(ONE)
    (tmp_path / "x.tar").write_bytes(data)
    assert verdicts(read(tmp_path, "x.tar")) == ["unreadable"]


def test_the_rest_of_a_broken_archive_is_unread(tmp_path: Path) -> None:
    data = tar({"2401/1.gz": SOUND, "2401/2.gz": SOUND})
    (tmp_path / "x.tar").write_bytes(data[: 1024 + len(SOUND) // 512 * 512])
    with pytest.raises(UnreadableFile):
        read(tmp_path, "x.tar")


def test_the_source_of_a_book(data: Path) -> None:
    r"""Inputs counted by their commands; outside of formulas no command and no brace is left."""
    root = data / "sources" / "latex"
    rows = read(root, "book-source.tar.gz")
    with tarfile.open(root / "book-source.tar.gz") as archive:
        texts = {m.name.removeprefix("./"): archive.extractfile(m).read().decode() for m in archive if m.isfile()}  # type: ignore[union-attr]
    sources = {name for name in texts if name.endswith(".tex")}
    named = {
        n if n.endswith(".tex") else f"{n}.tex"
        for name in ("main.tex", "front.tex", "back.tex")
        for n in re.findall(r"^[^%\n]*?\\(?:input|include)\{([^}]+)\}", texts[name], re.M)
    }
    kept = [r for r in rows if r["drop"] is None]
    meta = json.loads(kept[0]["meta"])
    assert len(rows) == len(sources) and len(kept) == 1 and meta["main"] == "main.tex"
    assert set(meta["inputs"]) == named & sources
    assert {n if n.endswith(".tex") else f"{n}.tex" for n in meta["missing"]} == named - sources
    assert verdicts(rows).count("merged") == len(meta["inputs"])
    text = kept[0]["text"]
    prose, depth, inside = "", 0, False
    for part in re.split(r"(\\\\.|\$\$|[${}])", text):
        inside ^= part in ("$", "$$") and depth == 0
        depth += (part == "{") - (part == "}") if inside else 0
        prose += "" if inside else part
    assert len(re.findall(r"\\[A-Za-z]+|[{}]", prose)) < 20 and text.count("$") > 9000
    assert "%" not in text  # the book has no percent sign outside of comments
    titles = [
        t for name in ("basics.tex", "logic.tex") for t in re.findall(r"^\\section\{([\w ]+)\}", texts[name], re.M)
    ]
    assert len(titles) > 9 and all(f"\n\n{title}\n\n" in text for title in titles) and "Proof. " in text
    assert submission.main_file({k: v.encode() for k, v in texts.items()}) == "main.tex"


def test_an_input_in_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "main.tex").write_text(BEGIN + r"A \input{part} B" + END)
    (tmp_path / "part.tex").write_text("A part of the text")
    opened = storage.open_input

    def failing(error: OSError) -> None:
        def open_input(root: str, path: str, **options: Any) -> Any:
            if path == "part.tex":
                raise error
            return opened(root, path, **options)

        monkeypatch.setattr(storage, "open_input", open_input)

    failing(PermissionError(13, "Permission denied"))
    (row,) = read(tmp_path, "main.tex")
    assert row["drop"]["value"] == "part.tex, which it inputs, cannot be read: Permission denied"
    failing(OSError(5, "Input/output error"))
    with pytest.raises(OSError, match="Input/output error"):
        read(tmp_path, "main.tex")
    monkeypatch.setattr(storage, "open_input", opened)
    monkeypatch.setattr("curation.sources.latex.latex.MAX_FILE", 100)
    (tmp_path / "part.tex").write_text("A part of the text. " * 9)
    (row,) = read(tmp_path, "main.tex")
    assert row["drop"]["value"] == "part.tex, which it inputs, is larger than 100 bytes"


def test_macros_and_missing_inputs_are_followed_a_limited_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macros, "FREE_USES", 50)
    with pytest.raises(RecordError, match="without end"):
        expand(r"\def\a{\a}" + r"\a", Definitions(dict(BUILT_IN), {}))
    assert expand(r"\def\a{b}" + r"\a c " * 60, Definitions(dict(BUILT_IN), {})).count("b") == 60
    asked = []
    monkeypatch.setattr(submission, "MAX_INPUTS", 20)
    monkeypatch.setattr(submission, "_find", lambda *names: asked.append(names))
    with pytest.raises(RecordError, match="more than 20 inputs that are missing"):
        submission.read_document({"m.tex": (BEGIN + r"\input{a}" * 500 + END).encode()}, "m.tex")
    assert len(asked) == 21


def test_indents_of_lists_in_lists_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before blanks are cut: their sum was the square of the source."""
    sizes: list[int] = []
    monkeypatch.setattr(plain_latex, "_tidy", lambda text: sizes.append(len(text)) or "")
    for n in (200, 400, 800):
        to_text(r"\begin{itemize}\item a" * n + r"\end{itemize}" * n, Definitions(dict(BUILT_IN), {}))
    assert sizes[2] - sizes[1] < 2.2 * (sizes[1] - sizes[0])

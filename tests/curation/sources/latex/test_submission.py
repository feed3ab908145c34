"""Files of a submission: comments and percent signs, and sources made to take long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from curation.sources.latex import submission
from tests.curation.sources.latex.test_latex import BEGIN, END, read, tar, verdicts

HOSTILE_FILES = {
    "input": r"\input{" + " " * 5_000, "inputs": r"\input{" * 8_000, "spaces": r"\input   " * 8_000,
    "packages": r"\usepackage[" * 8_000, "titles": r"\title[" * 8_000, "braces of titles": r"\title{{" * 8_000,
    "code": r"%\begin{verbatim}" + "\n" + r"\begin{verbatim}" * 15_000, "addresses": r"\url{%" * 8_000,
    "options": "%\n" + r"\lstinline[" * 8_000, "delimiters": r"\verb|%" * 8_000 + r"\verb!%" + "a" * 200_000,
    "comments": "%" * 100_000, "lines of comments": "  % x\n" * 8_000, "names": "\\" + "a" * 100_000 + "%",
    "imports": r"\import{a}" * 8_000, "begin": r"\begin  " * 8_000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_hostile_files_end(name: str) -> None:
    files = {"main.tex": (HOSTILE_FILES[name] + "\n" + BEGIN + HOSTILE_FILES[name] + END).encode()}
    assert submission.main_file(files) == "main.tex"
    submission.read_document(files, "main.tex")


COMMENTS = {
    "lines with indent": ("\n  % TODO\n  % this leaks\n%\n\t%x\nA", "\n  A"),
    "a commented end": ("A\n  %\n  % \\end{document} \\input{x}\n% \\section{y}\nB", "A\n  B"),
    "a paragraph ends": ("Foo.% c\n\nNew % d\n  \t\nE", "Foo.\n\nNew \n  \t\nE"),
    "a line goes on": ("a%\n  b\\%c \\\\% d\ne", "ab\\%c \\\\e"),
    "a name ends with its line": ("\\alpha%\n x \\alpha%\n{y} \\bfseries% z", "\\alpha x \\alpha{y} \\bfseries"),
    "addresses": (r"\url{http://a.org/x%20y} \href{a{b}%c}{d} \url|a%b| \href{x}{y} e % f", None),
    "code in a line": (r"\verb|a%b| \verb*!%! \lstinline[language=C]|%d| \lstinline{%d} \mintinline{c}{%d} % f", None),
    "code": ("".join(f"\\begin{{{n}}}\n % a\n\n% b\n\\end{{{n}}}\n" for n in ("verbatim", "verbatim*", "lstlisting",
        "minted", "Verbatim", "alltt")) + "% f", None),
    "code that does not end": ("\\begin{verbatim}% a\n\\verb|b% c\n| \\url{d% }",
        "\\begin{verbatim}\\verb|b| \\url{d% }"),
    "addresses that do not end": ("\\url{a% b\n\\href{c% d\n}", "\\url{a\\href{c}"),
    "code in a comment": ("% \\begin{verbatim} \\verb|\na % b\n", "a "),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMENTS)
def test_comments_and_percent_signs(name: str) -> None:
    source, text = COMMENTS[name]
    wanted = re.sub(r"% f\Z", "", source) if text is None else text
    assert submission._without_comments(source) == wanted


def test_what_is_commented_stays_out(tmp_path: Path) -> None:
    body = "A\n  % x\n  % \\end{document}\n  % \\input{other}\n  % \\section{S}\nB\n"
    files = {"main.tex": BEGIN + body + END, "other.tex": f"% {BEGIN}\n C"}
    (tmp_path / "x.tar").write_bytes(tar(files))
    rows = read(tmp_path, "x.tar")
    assert verdicts(rows) == ["kept", "record_type"] and rows[0]["text"] == "A B"

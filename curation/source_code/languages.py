"""Finds the programming language of a file by its name, and where the name leaves it open, by its content.

Languages have the names of GitHub's linguist (https://github.com/github-linguist/linguist, languages.yml), which The
Stack uses too. A name decides where its suffix belongs to one language; `.h`, `.m` or `.pl` belong to several, and
their
content decides. A file without a suffix is known by its name (Makefile) or by its first line (`#!/bin/sh`).
"""

from __future__ import annotations

import posixpath
import re

HEAD = 1 << 14  # characters of a file that its content is judged by

# Suffixes of each language. One that is listed twice is in _BY_CONTENT.
_SUFFIXES = """
Ada .adb .ads
Agda .agda
Assembly .asm .s .nasm
Astro .astro
AutoHotkey .ahk
Awk .awk
Batchfile .bat .cmd
BibTeX .bib
Bluespec .bsv
C .c .h .idc
C# .cs .csx
C++ .cc .cpp .cxx .c++ .hh .hpp .hxx .h++ .ipp .inl .tcc .tpp .cppm .ixx
CMake .cmake
COBOL .cob .cbl .cobol
CSS .css
CSV .csv
Clojure .clj .cljs .cljc .edn
CoffeeScript .coffee .litcoffee
Common_Lisp .lisp .lsp .cl .asd
Coq .coq
Crystal .cr
Cuda .cu .cuh
Cython .pyx .pxd .pxi
D .d .di
Dart .dart
Diff .diff .patch
Dockerfile .dockerfile
EJS .ejs
Elixir .ex .exs
Elm .elm
Emacs_Lisp .el
Erlang .erl .hrl
F# .fs .fsx .fsi
Fortran .f .f77 .for
Fortran_Free_Form .f90 .f95 .f03 .f08
GLSL .glsl .vert .frag .geom .comp .tesc .tese
Gettext_Catalog .po .pot
Go .go
Gradle .gradle
GraphQL .graphql .gql
Graphviz_(DOT) .dot .gv
Groovy .groovy .gvy
HCL .hcl .tf .tfvars
HTML .html .htm .xhtml
Haml .haml
Handlebars .hbs .handlebars
Haskell .hs .lhs
Haxe .hx
INI .ini .cfg .properties
Idris .idr
JSON .json .geojson .topojson .webmanifest .jsonld
JSON5 .json5
JSONLines .jsonl .ndjson
Java .java
Java_Server_Pages .jsp
JavaScript .js .mjs .cjs .jsx .es6
Jinja .jinja .jinja2 .j2
Julia .jl
Jupyter_Notebook .ipynb
Kotlin .kt .kts
LLVM .ll
Lean .lean
Less .less
Liquid .liquid
Lua .lua
M4 .m4
MATLAB .matlab
Makefile .mk .mak .make
Markdown .md .markdown .mdx
Mathematica .nb .wl .wls
Meson .meson
Metal .metal
Nim .nim .nims
Nix .nix
OCaml .ml .mli .mll .mly
Objective-C .objc
Objective-C++ .mm
OpenCL .opencl
PHP .php .php3 .php4 .php5 .phtml
PLpgSQL .pgsql
Pascal .pas .pp .dpr .lpr
Perl .pm .t .perl
PowerShell .ps1 .psm1 .psd1
Prolog .prolog
Protocol_Buffer .proto
Pug .pug .jade
PureScript .purs
Python .py .pyi .pyw .py3
QML .qml
R .r .rmd
Racket .rkt .rktl
Raku .raku .rakumod .p6
Roff .1 .2 .3 .4 .5 .6 .7 .8 .man .mdoc .roff
Ruby .rb .rake .gemspec .podspec .ru .erb
Rust .rs
SCSS .scss
SQL .sql .ddl
SVG .svg
Sass .sass
Scala .scala .sbt .sc
Scheme .scm .ss .sld
Shell .sh .bash .zsh .ksh .bats .fish
Smalltalk .st
Solidity .sol
Starlark .bzl .star
Stylus .styl
Svelte .svelte
Swift .swift
SystemVerilog .sv .svh
TOML .toml
TSV .tsv
Tcl .tcl .tk .exp
TeX .tex .sty .cls .ltx .dtx .bbl
Text .txt
Thrift .thrift
TypeScript .ts .mts .cts
TSX .tsx
VHDL .vhd .vhdl
Vala .vala .vapi
Verilog .v .vh
Vim_Script .vim
Visual_Basic_.NET .vb .vbs
Vue .vue
WebAssembly .wat .wast
XML .xml .xsd .xsl .xslt .xaml .wsdl .rdf .plist .csproj .vcxproj .xlf .resx .kml .gpx .dtd
YAML .yml .yaml
Yacc .y .yy
Lex .l .lex
Zig .zig
reStructuredText .rst .rest
"""
_NAMES = """
Makefile makefile gnumakefile makefile.am makefile.in bsdmakefile
CMake cmakelists.txt
Dockerfile dockerfile containerfile
Ruby rakefile gemfile vagrantfile podfile brewfile fastfile
Groovy jenkinsfile
Starlark build workspace build.bazel workspace.bazel buck tiltfile
Python sconstruct sconscript wscript
Meson meson.build meson_options.txt
M4 configure.ac configure.in aclocal.m4
Shell .bashrc .bash_profile .profile .zshrc pkgbuild gradlew configure
Vim_Script .vimrc
INI .editorconfig .gitconfig .npmrc .pylintrc
Ignore_List .gitignore .dockerignore .npmignore
Git_Attributes .gitattributes
TOML cargo.lock poetry.lock pipfile uv.lock
JSON .babelrc .eslintrc composer.lock .prettierrc pipfile.lock
Go_Module go.mod
Go_Checksums go.sum
YAML .clang-format .clang-tidy .gemrc
Pip_Requirements requirements.txt
"""
_INTERPRETERS = {
    "sh": "Shell", "bash": "Shell", "zsh": "Shell", "ksh": "Shell", "dash": "Shell", "ash": "Shell", "fish": "Shell",
    "python": "Python", "pypy": "Python", "perl": "Perl", "ruby": "Ruby", "node": "JavaScript", "nodejs": "JavaScript",
    "deno": "TypeScript", "php": "PHP", "lua": "Lua", "tclsh": "Tcl", "wish": "Tcl", "expect": "Tcl", "awk": "Awk",
    "gawk": "Awk", "mawk": "Awk", "make": "Makefile", "rscript": "R", "julia": "Julia", "groovy": "Groovy",
    "scala": "Scala", "escript": "Erlang", "runghc": "Haskell", "runhaskell": "Haskell", "ocaml": "OCaml",
    "swift": "Swift", "guile": "Scheme", "racket": "Racket", "crystal": "Crystal", "elixir": "Elixir",
    "sbcl": "Common Lisp",
    "pwsh": "PowerShell", "raku": "Raku", "perl6": "Raku", "osascript": "AppleScript", "kotlin": "Kotlin",
}  # fmt: skip
_SHEBANG = re.compile(
    r"#![ \t]*(?:/[\w./-]*/)?(?:env[ \t]+(?:-\S+[ \t]+|\w+=\S+[ \t]+){0,9})?(?:/[\w./-]*/)?([A-Za-z]\w*)"
)
_CPP = re.compile(
    r"^[ \t]*(?:class[ \t]+\w+[^;\n]*[:{]?[ \t]*$|template[ \t]*<|namespace[ \t]+[\w:]+|namespace[ \t]*\{|using[ \t]+\w"
    r"|(?:public|private|protected)[ \t]*:"
    r"|#[ \t]*include[ \t]*<(?:string|vector|map|memory|iostream|functional|type_traits|utility|array|algorithm|atomic"
    r"|optional|tuple|unordered_\w+|set|list|mutex|c\w+)>)"
    r"|\bstd::|\bconstexpr\b|\bnullptr\b|\bstatic_cast<|\bvirtual[ \t]+\w",
    re.M,
)
# `#ifdef __cplusplus` guards mean that a header is for C as well.
_CPP_GUARD = re.compile(r"#[ \t]*if(?:def|[ \t]+defined)[ \t(]*__cplusplus")
_OBJC = re.compile(
    r"^[ \t]*(?:@(?:interface|protocol|implementation|class|property|import|end)\b|#[ \t]*import\b)", re.M
)
# Of suffixes that several languages have: languages with a pattern that the content must match, tried in this order;
# the
# last one has none.
_BY_CONTENT: dict[str, tuple[tuple[str, re.Pattern[str] | None], ...]] = {
    ".h": (("Objective-C", _OBJC), ("C++", _CPP), ("C", None)),
    ".inc": (
        ("PHP", re.compile(r"<\?(?:php|=)", re.I)),
        ("Pascal", re.compile(r"^[ \t]*(?:procedure|function|unit)\b.*;|\{\$", re.M | re.I)),
        ("Assembly", re.compile(r"^[ \t]*(?:\.?macro|\.?equ|%define|mov|push)\b", re.M | re.I)),
        ("C++", re.compile(r"^[ \t]*#[ \t]*(?:include|define|if)|;[ \t]*$", re.M)),
        ("Text", None),
    ),
    ".m": (
        ("Objective-C", re.compile(_OBJC.pattern + r"|^[ \t]*#[ \t]*(?:include|define)\b", re.M)),
        ("Mathematica", re.compile(r"\(\*|^\s*\w+\[[^\]\n]*_\][ \t]*:?=", re.M)),
        ("MATLAB", None),
    ),
    ".pl": (
        ("Prolog", re.compile(r"^[ \t]*:-|^[a-z]\w*\([^()\n]*\)[ \t]*:-", re.M)),
        ("Perl", None),
    ),
    ".pro": (
        ("Prolog", re.compile(r"^[ \t]*:-|^[a-z]\w*\([^()\n]*\)[ \t]*:-", re.M)),
        ("QMake", None),
    ),
    ".fs": (
        ("GLSL", re.compile(r"^[ \t]*(?:#version|uniform|varying|precision|void main)\b", re.M)),
        ("Forth", re.compile(r"^: \S", re.M)),
        ("F#", None),
    ),
    ".ts": (("XML", re.compile(r"\A\s*<(?:\?xml|!DOCTYPE TS)")), ("TypeScript", None)),
    ".v": (
        ("Coq", re.compile(r"^[ \t]*(?:Require|Theorem|Lemma|Proof|Definition|Inductive)\b", re.M)),
        ("V", re.compile(r"^(?:pub )?fn \w|^import [a-z]", re.M)),
        ("Verilog", None),
    ),
    ".d": (
        ("Makefile", re.compile(r"\A(?:#[^\n]*\n)*[\w./-]+\.o[ \t]*:|\\\n", re.M)),
        ("DTrace", re.compile(r"^\w+:\w*:\w*:\w*", re.M)),
        ("D", None),
    ),
    ".s": (("Assembly", None),),
    ".r": (("Rebol", re.compile(r"\bREBOL\s*\[", re.I)), ("R", None)),
    ".cls": (
        ("Visual Basic 6.0", re.compile(r"^VERSION \d|^Attribute VB_", re.M)),
        ("Apex", re.compile(r"^[ \t]*(?:public|global|private)\b[^\n]*\bclass\b", re.M | re.I)),
        ("TeX", None),
    ),
    ".mod": (
        ("Modula-2", re.compile(r"^[ \t]*(?:MODULE|DEFINITION MODULE|IMPLEMENTATION MODULE)\b", re.M)),
        ("Go Module", re.compile(r"^module \S+", re.M)),
        ("XML", re.compile(r"<!(?:ELEMENT|ENTITY|ATTLIST)")),
        ("AMPL", None),
    ),
    ".cl": (("OpenCL", re.compile(r"\b__kernel\b|^[ \t]*kernel void|^[ \t]*#", re.M)), ("Common Lisp", None)),
    ".l": (("Lex", re.compile(r"^%%|^%\{|^%option", re.M)), ("Common Lisp", re.compile(r"^\(", re.M)), ("Roff", None)),
    ".tcc": (("C++", None),),
    ".st": (("Smalltalk", re.compile(r"!\s*$|\|\s*\w+\s*\||^\s*\^", re.M)), ("StringTemplate", None)),
    ".pp": (("Puppet", re.compile(r"^[ \t]*(?:class|define|node)\b[^\n]*\{|=>", re.M)), ("Pascal", None)),
    ".sc": (("SuperCollider", re.compile(r"SynthDef|\bPbind\b")), ("Scala", None)),
    ".t": (("Turing", re.compile(r"^\s*(?:put|get|var \w+ :)", re.M)), ("Perl", None)),
    ".nb": (("Mathematica", None),),
    ".erb": (("HTML+ERB", None),),
    ".ll": (("LLVM", None),),
    ".in": (
        ("Makefile", re.compile(r"^[\w.$(){}@-]+[ \t]*:(?!=)[^\n]*\n\t", re.M)),
        ("Shell", re.compile(r"\A#!")),
        ("CMake", re.compile(r"^[ \t]*(?:set|include|if)[ \t]*\(", re.M | re.I)),
        ("C", re.compile(r"^[ \t]*#[ \t]*(?:include|define|undef|ifndef)", re.M)),
        ("", None),
    ),
}  # fmt: skip
_ROFF = re.compile(r"^[.'](?:TH|SH|Dd|\\\"|so|de|nr|ds)\b|^[.']\\\"", re.M)
_XML_DECLARATION = re.compile(r"\s*<\?xml\b")
_PHP = re.compile(r"\s*<\?php\b", re.I)


def _table(rows: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows.strip().splitlines():
        name, *keys = row.split(" ")
        for key in keys:
            found.setdefault(key, name.replace("_", " "))
    return found


_LANGUAGE_OF_SUFFIX, _LANGUAGE_OF_NAME = _table(_SUFFIXES), _table(_NAMES)
# Line comment, then begin and end of block comments. A doc string of Python is a comment too.
_C, _HASH, _XML = (("//",), ("/*", "*/")), (("#",), None), ((), ("<!--", "-->"))
_DASHES, _SEMICOLON, _PERCENT = (("--",), None), ((";",), None), (("%",), None)
COMMENTS: dict[str, tuple[tuple[str, ...], tuple[str, str] | None]] = {
    **dict.fromkeys(
        ("C", "C#", "C++", "Cuda", "D", "Dart", "Go", "Groovy", "Gradle", "GLSL", "Haxe", "Java", "JavaScript",
        "Kotlin",
         "Metal", "Objective-C", "Objective-C++", "OpenCL", "Protocol Buffer", "QML", "Rust", "SCSS", "Less", "Scala",
         "Solidity", "Swift", "SystemVerilog", "Thrift", "TSX", "TypeScript", "Vala", "Verilog", "Zig", "Yacc", "Lex",
         "JSON5", "F#", "Stylus", "Astro", "Bluespec"), _C),
    "CSS": ((), ("/*", "*/")), "PHP": (("//", "#"), ("/*", "*/")), "HCL": (("#", "//"), ("/*", "*/")),
    **dict.fromkeys(
        ("Awk", "CMake", "Crystal", "Dockerfile", "Elixir", "GraphQL", "Julia", "Makefile", "Nim", "Nix", "Perl",
        "Python",
         "Cython", "R", "Raku", "Ruby", "Shell", "Starlark", "Tcl", "TOML", "YAML", "INI", "Meson",
         "CoffeeScript"), _HASH),
    "PowerShell": (("#",), ("<#", "#>")),
    **dict.fromkeys(("HTML", "XML", "SVG", "Vue", "Svelte", "Markdown"), _XML),
    "SQL": (("--",), ("/*", "*/")), "PLpgSQL": (("--",), ("/*", "*/")), "Haskell": (("--",), ("{-", "-}")),
    "PureScript": (("--",), ("{-", "-}")), "Elm": (("--",), ("{-", "-}")), "Lua": (("--",), ("--[[", "]]")),
    **dict.fromkeys(("Ada", "VHDL", "Agda", "Idris"), _DASHES), "Lean": (("--",), ("/-", "-/")),
    **dict.fromkeys(("Assembly", "Clojure", "Common Lisp", "Emacs Lisp", "Racket", "Scheme", "LLVM",
    "AutoHotkey"), _SEMICOLON),
    **dict.fromkeys(("Erlang", "MATLAB", "TeX", "Prolog"), _PERCENT),
    "OCaml": ((), ("(*", "*)")), "Coq": ((), ("(*", "*)")), "Pascal": (("//",), ("{", "}")), "Mathematica": ((),
    ("(*", "*)")),
    "Fortran Free Form": (("!",), None), "Fortran": (("!", "C ", "c "), None), "Batchfile": (("::", "rem ",
    "REM "), None),
    "Vim Script": (('"',), None), "Visual Basic .NET": (("'",), None),
}  # fmt: skip
# Formats of data and prose, not of programs (linguist's types `data` and `prose`, and its generic configuration files).
DATA = frozenset(
    [
        "CSV",
        "TSV",
        "JSON",
        "JSONLines",
        "JSON5",
        "XML",
        "YAML",
        "SVG",
        "Gettext Catalog",
        "Go Checksums",
        "Graphviz (DOT)",
        "Diff",
        "BibTeX",
    ]
)


def detect_language(path: str, text: str) -> str:
    """The language of a file; empty if neither its name nor its content says it."""
    name = posixpath.basename(path).lower()
    head = text[:HEAD]
    if found := _LANGUAGE_OF_NAME.get(name):
        return found
    if name.startswith(("dockerfile.", "makefile.")):
        return _LANGUAGE_OF_NAME[name.partition(".")[0]]
    suffix = posixpath.splitext(name)[1]
    if suffix in _BY_CONTENT:
        return _by_content(suffix, head) or by_first_line(head)
    language = _LANGUAGE_OF_SUFFIX.get(suffix, "")
    if not language:
        return by_first_line(head)
    if language == "Roff":  # `notes.1` may be anything
        return language if _ROFF.search(head) else by_first_line(head)
    if language == "Text":
        by_name = name.startswith("requirements") or name.endswith("requirements.txt")
        return "Pip Requirements" if by_name else language
    return _contradicted(language, head)


def _by_content(suffix: str, head: str) -> str:
    for language, pattern in _BY_CONTENT[suffix]:
        if pattern is None:
            return language
        searched = _CPP_GUARD.sub("", head) if pattern is _CPP else head
        if pattern.search(searched):
            return language
    return ""


def _contradicted(language: str, head: str) -> str:
    """The language, unless the first line says that the file is of another: a shell script named .py."""
    said = by_first_line(head)
    if not said or said == language:
        return language
    if said == "XML":
        return language if language in ("HTML", "SVG", "Vue", "Text", "Markdown", "Jinja", "PHP") else said
    # a suffix is more exact about dialects than an interpreter is
    related = {("Python", "Cython"), ("JavaScript", "TypeScript"), ("Shell", "Tcl"), ("Ruby", "Crystal")}
    return language if (said, language) in related else said


def by_first_line(head: str) -> str:
    """The language that a file's first line names: an interpreter, XML or PHP; else empty."""
    head = head.removeprefix("\ufeff")
    if found := _SHEBANG.match(head):
        name = found[1].lower()
        return _INTERPRETERS.get(name) or _INTERPRETERS.get(name.rstrip("0123456789"), "")
    if _PHP.match(head):
        return "PHP"
    return "XML" if _XML_DECLARATION.match(head) else ""

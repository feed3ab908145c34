"""Languages by name, by content where names are shared, and marks of files that nobody wrote by hand."""

from __future__ import annotations

import pytest

from curation.source_code.languages import COMMENTS, detect_language

CASES = [
    ("a/x.py", "x = 1", "Python"), ("X.PY", "x = 1", "Python"), ("src/Makefile", "all:\n", "Makefile"),
    ("Dockerfile.prod", "FROM x", "Dockerfile"), ("CMakeLists.txt", "project(x)", "CMake"), ("notes.txt", "a", "Text"),
    ("x.h", "#ifndef X\nint f(void);\n", "C"), ("x.h", "namespace a {\n}\n", "C++"), ("x.h", "#include <vector>\n",
    "C++"),
    ("x.h", '#ifdef __cplusplus\nextern "C" {\n#endif\nint f(void);\n', "C"), ("x.h", "@interface A : B\n@end",
    "Objective-C"),
    ("x.m", "#import <A.h>\n@implementation A", "Objective-C"), ("x.m", "function y = f(x)\ny = x;", "MATLAB"),
    ("x.pl", "use strict;\nmy $x;", "Perl"), ("x.pl", ":- module(x, []).\n", "Prolog"),
    ("x.ts", "let x: number = 1", "TypeScript"), ("x.ts", "<?xml version='1.0'?><!DOCTYPE TS>", "XML"),
    ("x.v", "module m(input a);", "Verilog"), ("x.v", "Theorem t : True.\nProof.", "Coq"),
    ("x.fs", "module A\nlet x = 1", "F#"), ("x.cls", "\\ProvidesClass{a}", "TeX"),
    ("run", "#!/bin/sh\n", "Shell"), ("run", "#!/usr/bin/env python3\n", "Python"), ("run",
    "#!/usr/bin/env -S node\n", "JavaScript"),
    ("run.py", "#!/bin/bash\necho", "Shell"), ("x.html", "<?php echo 1;", "PHP"), ("x.1", ".TH A 1\n", "Roff"),
    ("notes.1", "a list", ""), ("x.unknown", "text", ""), ("", "text", ""), ("requirements-dev.txt", "a==1",
    "Pip Requirements"),
    ("x.svg", "<?xml version='1.0'?><svg/>", "SVG"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text", "language"), CASES)
def test_detect_language(path: str, text: str, language: str) -> None:
    assert detect_language(path, text) == language


def test_comments_belong_to_languages_that_are_known() -> None:
    import curation.source_code.languages as module

    known = {*module._LANGUAGE_OF_SUFFIX.values(), *module._LANGUAGE_OF_NAME.values()}
    known |= {language for rules in module._BY_CONTENT.values() for language, _ in rules}
    assert not set(COMMENTS) - known

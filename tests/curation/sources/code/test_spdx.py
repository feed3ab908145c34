"""SPDX expressions: what a tag says, and what a list of licences allows."""

from __future__ import annotations

import pytest

from curation.sources.code.spdx import is_allowed, tagged_expression


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("// SPDX-License-Identifier: MIT", "MIT"),
        (
            "/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */",
            "GPL-2.0-or-later WITH Linux-syscall-note",
        ),
        ("# SPDX-License-Identifier: (MIT or Apache-2.0) and Zlib", "(MIT OR Apache-2.0) AND Zlib"),
        ("<!-- SPDX-License-Identifier: CC-BY-4.0 -->", "CC-BY-4.0"),
        ("# SPDX-License-Identifier: MIT see LICENSE", "MIT"),
        ("x = 1", ""),
        ("# SPDX-License-Identifier: ", ""),
    ],
)
def test_tags(line: str, said: str) -> None:
    assert tagged_expression(f"#!/bin/sh\n{line}\nx") == said


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True), ("mit", True), ("GPL-3.0-only", False), ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND Apache-2.0", True), ("Apache-2.0 WITH LLVM-exception", True), ("", False),
        ("MIT OR", False),
        ("LGPL-2.1-or-later", True), ("LGPL-2.1-only", True), ("(" * 1000 + "MIT", False), ("(MIT", False),
        ("MIT MIT", False),
    ],
)  # fmt: skip
def test_allowed(expression: str, allowed: bool) -> None:
    assert is_allowed(expression, ["MIT", "Apache-2.0", "LGPL-2.1"]) is allowed

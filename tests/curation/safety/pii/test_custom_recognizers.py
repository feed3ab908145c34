"""Users' recognizer files: what they find, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.core.errors import UserError
from curation.safety.pii.pii import Pii
from tests.curation.safety.pii.test_pii import run

OWN = """
recognizers:
  - name: employee numbers
    supported_entity: EMPLOYEE_ID
    supported_language: en
    patterns:
      - {name: number, regex: '\\bE-[0-9]{6}\\b', score: 0.6}
    context: [employee]
  - name: projects
    supported_entity: PROJECT
    supported_languages: [en, de]
    deny_list: [Bluebird, Redstart]
  - {name: unused, enabled: false, supported_entity: UNUSED, deny_list: [x]}
"""


def test_own_recognizers(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    options = {"recognizers": [str(tmp_path / "own.yaml")], "entities": ["EMAIL_ADDRESS", "EMPLOYEE_ID", "PROJECT"]}
    step = Pii(**options)  # type: ignore[arg-type]
    assert step.inputs() == (str(tmp_path / "own.yaml"),)
    texts, counts = run(["E-123456 of bluebird, bob@python.org, E-12"], **options)
    assert texts == ["<EMPLOYEE_ID> of <PROJECT>, <EMAIL_ADDRESS>, E-12"]
    assert (counts[0]["employee_id"], counts[0]["project"], counts[0]["email_address"]) == (1, 1, 1)
    german, _ = run(["E-123456 of Bluebird"], **(options | {"language": "de", "entities": ["PROJECT"]}))
    assert german == ["E-123456 of <PROJECT>"]
    long = "word " * 250_000
    assert run([f"{long}E-123456 {long}Redstart"], **options)[0] == [f"{long}<EMPLOYEE_ID> {long}<PROJECT>"]
    with pytest.raises(UserError, match="unknown entity EMPLOYEE_ID"):
        Pii(**(options | {"language": "de"})).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("recognizers: [", "line 1: not valid YAML"),
        ("recognizers: []", "expected a list `recognizers`"),
        ("- name: x", "expected a list `recognizers`"),
        ("recognizers: [7]", r"recognizers\[0\]: is 7"),
        ("recognizers: [{name: x, supported_entity: A, patern: []}]", "unknown key patern"),
        ("recognizers: [{name: x, supported_entity: A}]", "`patterns` or `deny_list` is required"),
        ("recognizers: [{supported_entity: A, deny_list: [x]}]", "`name` is missing"),
        ("recognizers: [{name: x, supported_entity: a b, deny_list: [x]}]", "capital letters"),
        ("recognizers: [{name: x, supported_entity: A, deny_list: x}]", "expected a list of strings"),
        ("recognizers: [{name: x, supported_entity: A, deny_list: [x], deny_list_score: 60}]", "is 60"),
        ("recognizers: [{name: x, type: predefined, supported_entity: A}]", "name its entity"),
        (
            "recognizers: [{name: x, supported_entity: A, patterns: [{regex: a, score: 1}]}]",
            "keys name, regex and score",
        ),
        (
            "recognizers: [{name: x, supported_entity: A, patterns: [{name: p, regex: '(', score: 1}]}]",
            "does not compile",
        ),
        (
            "recognizers: [{name: x, supported_entity: A, patterns: [{name: p, regex: 'a*', score: 1}]}]",
            "matches the empty string",
        ),
    ],
)
def test_bad_recognizers_are_refused(tmp_path: Path, written: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(written)
    with pytest.raises(UserError, match=message):
        Pii(recognizers=[str(tmp_path / "own.yaml")], entities=["A"]).check()

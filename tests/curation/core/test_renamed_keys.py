"""Old keys are refused with the name that replaced them, at file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.config.load_pipeline import load_pipeline
from curation.core.errors import UserError
from curation.core.renamed_keys import PIPELINE_KEYS, renamed

BASE = "sources: [{name: web, read: text, path: '*.jsonl'}]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("quarantine: [bad.jsonl]", "web.yaml:2: quarantine: `quarantine` was renamed to `exclude`"),
        (
            "steps:\n  - language: {}\n    only: domain = 'web'",
            "web.yaml:4: steps[0].only: `only` was renamed to `where`",
        ),
        ("steps: [c4_lines]", "web.yaml:2: steps[0]: `c4_lines` was renamed to `c4_line_filter`"),
        ("steps:\n  - c4_lines: {}", "web.yaml:3: steps[0].c4_lines: `c4_lines` was renamed to `c4_line_filter`"),
        (
            "steps:\n  - exact_dedup: {against: run0}",
            "web.yaml:3: steps[0].exact_dedup.against: `against` was renamed to `prior_run`",
        ),
        (
            "steps:\n  - minhash_dedup:\n      bands: 9\n      rows: 3",
            "web.yaml:4: steps[0].minhash_dedup.bands: `bands` was renamed to `num_bands`\n"
            "web.yaml:5: steps[0].minhash_dedup.rows: `rows` was renamed to `rows_per_band`",
        ),
    ],
)
def test_an_old_key_of_a_pipeline_file(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(BASE + text)
    with pytest.raises(UserError) as error:
        load_pipeline(str(file))
    assert str(error.value).replace(f"{tmp_path}/", "") == expected


def test_an_old_key_in_an_override(tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(BASE + "steps: [language]")
    for given, expected in (
        ("steps.language.only=domain = 'web'", "`only` was renamed to `where`"),
        ("quarantine=[bad.jsonl]", "`quarantine` was renamed to `exclude`"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            load_pipeline(str(file), sets=[given])
        assert str(error.value).startswith(f"--set {given}: ")


def test_names_that_stay() -> None:
    assert renamed(("steps", 0, "decontaminate", "against"), PIPELINE_KEYS) is None
    assert renamed(("steps", 2, "minhash_dedup", "rows"), PIPELINE_KEYS) == "`rows` was renamed to `rows_per_band`"

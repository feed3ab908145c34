"""Fingerprints of code: they follow its meaning and that of all modules it imports, not its comments."""

from __future__ import annotations

from pathlib import Path

from curation.engine.planning import fingerprints


def test_prose_does_not_count_and_code_does(tmp_path: Path) -> None:
    file = tmp_path / "step.py"
    file.write_text('"""A docstring."""\n\ndef f(x):\n    """Another."""\n    return x + 1\n')
    first = fingerprints.module_fingerprint(str(file))
    file.write_text('"""Other words."""\n\ndef f(x):\n    # a comment\n    return x + 1  # one more\n')
    assert fingerprints.module_fingerprint(str(file)) == first
    file.write_text("def f(x):\n    return x + 2\n")
    assert fingerprints.module_fingerprint(str(file)) != first


def test_modules_that_are_imported_count(tmp_path: Path) -> None:
    file = tmp_path / "step.py"
    file.write_text("x = 1\n")
    alone = fingerprints.module_fingerprint(str(file))
    file.write_text("from curation import seeded_hash\n\nx = 1\n")
    _, imported = fingerprints._module(str(file), 0, 0)
    assert imported == [fingerprints.module_file("curation.seeded_hash")]
    assert fingerprints.module_fingerprint(str(file)) != alone


def test_a_module_is_found_without_importing_it() -> None:
    assert fingerprints.module_file("curation.engine.runtime.run").endswith("curation/engine/runtime/run.py")

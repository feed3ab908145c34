"""One vocabulary: old names are gone from schemas, command line and code, and user-facing text is plain English."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from curation.core.renamed_keys import COMMANDS, PIPELINE_KEYS, TRAINING_KEYS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("curation", "training", "pipelines")
TABLE = ROOT / "curation" / "core" / "renamed_keys.py"  # the one file that may hold old names

# Words that make a reader stop: archaic, or private to this project. Checked in every string that a user may see.
BANNED = {
    "stand": r"\b(stands?|stood)\b(?! ?-?in\b| ?-?alone)",
    "lie": r"\b(lies|lay)\b",
    "hang on": r"\bhangs? on\b",
    "tell": r"\b(tells|told)\b",
    "behind": r"\bbehind\b",
    "nought": r"\b(nought|naught)\b",
    "out of the frame": r"\bout of the frame\b|\bleft the frame\b",
    "goes on": r"\b(goes|go|went) on\b",
    "is none": r"\b(is|are) none\b",
    "no telling": r"\bno telling\b",
    "forget": r"\bforg[eo]t(ten|s|ting)?\b",
    "culprit": r"\bculprits?\b",
    "iteration": r"\biterations?\b",
    "mill": r"\bthe (whole )?mill\b",
}

# Names of words.md that are gone: modules, classes, functions, parameters and attributes.
GONE = {
    *("Piece", "tally", "trail", "eras", "Earlier", "turned", "forget", "forgotten", "Shape", "turns", "rotate"),
    *("agree", "_At"),
    *("kv_heads", "recompute", "largest_share", "keyed", "located", "c4_lines", "journal", "Journal", "meter"),
    *("Meter", "findings", "readings", "originals", "storages"),
}  # fmt: skip
MODULES = {
    *("keyed", "located", "near", "again", "before", "shuffle", "gather", "sample", "related", "pieces", "journal"),
    *("meter", "account"),
    *("forecast", "planning", "ahead", "remote", "storages", "findings", "readings", "figures", "texts", "originals"),
    *("pairs", "sizes", "trained", "screen", "look", "spill", "apply", "intake", "c4_lines", "incident"),
    *("tombstones", "forget"),
}  # fmt: skip


def _files() -> list[Path]:
    found = [p for package in PACKAGES for p in (ROOT / package).rglob("*.py") if "__pycache__" not in p.parts]
    return sorted(p for p in found if p != TABLE)


def test_no_module_has_an_old_name() -> None:
    assert not [str(p.relative_to(ROOT)) for p in _files() if p.stem in MODULES]


def _names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Everything that code defines: classes, functions, parameters, attributes and variables with an annotation."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno


def test_no_old_identifier() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in _files()
        for name, line in _names(ast.parse(path.read_text("utf-8")))
        if name in GONE
    ]
    assert not found, "\n".join(found)


def _fields(model: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a pydantic model, those of models inside it too."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for candidate in inner:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from _fields(candidate, f"{prefix}{name}.")


def test_no_old_key_in_a_file() -> None:
    from curation.config.catalogue import READERS, STEPS
    from curation.config.pipeline import File
    from curation.config.step_options import find_class
    from curation.core.yaml_lines import YamlTree
    from training.config import TrainConfig

    assert not set(_fields(TrainConfig)) & set(TRAINING_KEYS)
    assert not set(_fields(File)) & set(PIPELINE_KEYS)
    for kind in STEPS:
        cls = find_class(kind, STEPS, YamlTree("test", {}), (), "step")
        options = {f"steps.{kind}.{f.name}" for f in dataclasses.fields(cls)}
        assert not options & set(PIPELINE_KEYS)
    assert not (set(STEPS) | set(READERS)) & set(PIPELINE_KEYS)


def _commands() -> Iterator[tuple[str, Any]]:
    import typer

    from pipelines.cli.main import app

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        yield " ".join(path), command
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, (*path, name))

    yield from walk(typer.main.get_command(app), ())


def test_no_old_command() -> None:
    assert not {path for path, _ in _commands()} & set(COMMANDS)


def _strings(path: Path) -> Iterator[tuple[str, int]]:
    """String constants that are no docstrings, and the first line of the module's docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(id(first.value))
                if isinstance(node, ast.Module) and isinstance(first.value.value, str):
                    yield first.value.value.strip().partition("\n")[0], 1
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno


@functools.cache
def _shown() -> list[tuple[Path, str, int]]:
    """The strings of several words, which users may see: found once for all banned words."""
    return [(path, text, line) for path in _files() for text, line in _strings(path) if " " in text.strip()]


@pytest.mark.parametrize("word", sorted(BANNED))
def test_user_facing_text_is_plain(word: str) -> None:
    pattern = re.compile(BANNED[word], re.I)
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.strip()[:100]!r}"
        for path, text, line in _shown()
        if pattern.search(text)
    ]
    found += [f"help of {path!r}: {m.group()}" for path, c in _commands() for m in pattern.finditer(c.help or "")]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_the_guide_is_plain(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.S)
    if page == "docs/line_dedup.md":
        text = text.partition("## On a crawl")[0]  # the rest quotes pages of the crawl
    found = {word: re.findall(pattern, text, re.I) for word, pattern in BANNED.items()}
    assert not {word: hits for word, hits in found.items() if hits}

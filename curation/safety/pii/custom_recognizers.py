"""Reads users' own PII recognizers from YAML files in presidio's format, and checks them before anything runs.

    recognizers:
      - name: employee numbers
        supported_entity: EMPLOYEE_ID
        supported_language: en              # or supported_languages: [en, de]; without either: every language
        patterns:
          - {name: number, regex: "\\bE-[0-9]{6}\\b", score: 0.6}
        context: [employee, staff]          # raises no score here: that needs a spaCy pipeline with lemmas
      - name: projects
        supported_entity: PROJECT
        deny_list: [Bluebird, Redstart]     # whole words

Each becomes a presidio PatternRecognizer. What presidio would ignore or fail on later (a misspelt key, a pattern that
does not compile, a score of 60) is refused here, naming the file and the entry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from curation.core import yaml_lines
from curation.core.errors import UserError
from curation.safety.pii.presidio_import import import_presidio
from curation.storage import filesystem

ENTITY = re.compile(r"[A-Z][A-Z0-9_]*")
_KEYS = (
    *("name", "type", "enabled", "supported_entity", "supported_language", "supported_languages"),
    *("patterns", "context", "deny_list", "deny_list_score", "version", "country_code"),
)
_FLAGS = 26  # presidio's own: ignore case, multiline, dot matches all


def read_file(path: str) -> str:
    """The text of a recognizer file. Raises UserError if it cannot be read."""
    fs, inner = filesystem(path)
    try:
        return str(fs.cat_file(inner).decode())
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: cannot be read as a recognizer file: {e}") from None


def parse_recognizers(text: str, path: str) -> list[dict[str, Any]]:
    """The entries of a file, in the form of PatternRecognizer.from_dict. Raises UserError."""
    import yaml

    try:
        yaml_lines.compose(text, path, yaml.SafeLoader)  # whose aliases have a budget
        tree = yaml.safe_load(text)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {getattr(e, 'problem', None) or e}") from None
    entries = tree.get("recognizers") if isinstance(tree, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: expected a list `recognizers` at the top level, as in presidio's own files")
    found = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(f"{path}, recognizers[{number}]: is {entry!r}; expected a mapping with name and patterns")
        place = f"{path}, recognizers[{number}] ({entry.get('name', 'without a name')})"
        _check_entry(entry, place)
        if entry.get("enabled", True):
            found.append(entry)
    return found


def _check_entry(entry: dict[str, Any], place: str) -> None:
    def refuse(problem: str) -> UserError:
        return UserError(f"{place}: {problem}")

    unknown = [str(k) for k in entry if k not in _KEYS]
    if unknown:
        raise refuse(f"unknown key {', '.join(unknown)}; presidio's are {', '.join(_KEYS)}")
    if entry.get("type", "custom") != "custom":
        raise refuse(
            "only custom recognizers are allowed here; to use one of presidio's, name its entity in `entities`"
        )
    if not isinstance(entry.get("name"), str) or not entry["name"]:
        raise refuse("`name` is missing; expected a string")
    entity = entry.get("supported_entity")
    if not isinstance(entity, str) or not ENTITY.fullmatch(entity):
        raise refuse(f"`supported_entity` is {entity!r}; expected capital letters, digits and '_' (EMPLOYEE_ID)")
    for key in ("context", "deny_list", "supported_languages"):
        value = entry.get(key)
        if value is not None and not (
            isinstance(value, list) and value and all(isinstance(v, str) and v for v in value)
        ):
            raise refuse(f"`{key}` is {value!r}; expected a list of strings")
    if not isinstance(entry.get("supported_language", "en"), str):
        raise refuse(f"`supported_language` is {entry['supported_language']!r}; expected a code such as en")
    if "patterns" not in entry and "deny_list" not in entry:
        raise refuse("`patterns` or `deny_list` is required")
    _check_score(entry.get("deny_list_score", 1.0), "`deny_list_score`", place)
    patterns = entry.get("patterns", [])
    if not isinstance(patterns, list) or not all(isinstance(p, dict) for p in patterns):
        raise refuse("`patterns` must be a list of {name, regex, score}")
    for pattern in patterns:
        _check_pattern(pattern, place)


def _check_pattern(pattern: dict[str, Any], place: str) -> None:
    import regex

    if set(pattern) != {"name", "regex", "score"}:
        raise UserError(
            f"{place}: a pattern must have the keys name, regex and score, not {', '.join(map(str, pattern))}"
        )
    if not isinstance(pattern["regex"], str) or not isinstance(pattern["name"], str):
        raise UserError(f"{place}: name and regex of a pattern must be strings")
    _check_score(pattern["score"], f"the score of pattern {pattern['name']!r}", place)
    try:
        compiled = regex.compile(pattern["regex"], flags=_FLAGS)
    except regex.error as e:
        raise UserError(f"{place}: the regex of pattern {pattern['name']!r} does not compile: {e}") from None
    if compiled.fullmatch(""):
        raise UserError(f"{place}: the regex of pattern {pattern['name']!r} matches the empty string")


def _check_score(score: Any, what: str, place: str) -> None:
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 < score <= 1:
        raise UserError(f"{place}: {what} is {score!r}; expected a number above 0 and up to 1")


def build_recognizers(entries: Sequence[dict[str, Any]], language: str) -> list[Any]:
    """presidio's PatternRecognizers for one language."""
    import_presidio()
    from presidio_analyzer import PatternRecognizer

    made = []
    for entry in entries:
        named = entry.get("supported_languages") or (
            [entry["supported_language"]] if "supported_language" in entry else []
        )
        if not named or language in named:
            plain = {k: v for k, v in entry.items() if k not in ("type", "enabled", "supported_languages")}
            made.append(PatternRecognizer.from_dict(plain | {"supported_language": language}))
    return made

"""Finds personal data in texts with presidio: by windows where that is exact, else in the whole text.

Four methods: windows around possible matches for the six default entities (fast; candidate_windows.py), presidio over
the whole text for its other entities and for custom recognizers, a spaCy pipeline for names and places if one is
configured, and patterns of our own for secrets in code (secrets.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.core.errors import UserError
from curation.safety.pii import named_entities
from curation.safety.pii.finding_columns import Column, Findings, Row, Texts
from curation.safety.pii.presidio_engine import DEFAULT_ENTITIES
from curation.safety.pii.secrets import SECRETS, find_secrets

FINDING_TYPE = pa.struct([("entity", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("score", pa.float64())])

# presidio gets whole texts up to spaCy's limit, longer ones in overlapping windows.
_WINDOW, _OVERLAP = 1_000_000, 2_000


def analyze(texts: pa.Array, entities: Sequence[str], language: str = "en") -> pa.ListArray:
    """presidio's findings in each text: list<struct<entity, start, end, score>>, sorted by position.

    Positions are in characters. The six default entities are searched in windows around possible matches, whatever the
    length of the text. Any other entity is searched in the whole text; texts over 1,000,000 characters are cut into
    windows of that size that overlap by 2,000, and a finding counts in the window in whose own part it starts (parts
    meet in the middle of each overlap).
    Raises UserError for an entity that presidio has no recognizer for in this language.
    """
    found, _ = find(Texts.of(texts), list(dict.fromkeys(entities)), Recognizers(language))
    names = pa.array(found.entities, pa.string()).take(pa.array(found.entity))
    columns = [names, pa.array(found.start), pa.array(found.end), pa.array(found.score)]
    offsets = np.searchsorted(found.text, np.arange(len(texts) + 1))
    values = pa.StructArray.from_arrays(columns, fields=list(FINDING_TYPE))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


@dataclass(frozen=True)
class Recognizers:
    """The configured recognizers: presidio in a language, custom recognizers, a spaCy pipeline."""

    language: str
    custom: tuple[str, ...] = ()  # contents of users' recognizer files
    ner: str | None = None
    regions: tuple[str, ...] = ()  # of telephone numbers; none: presidio's eight
    context: bool = False  # leaves out numbers that are nobody's (number_context.py)

    def pattern_entities(self) -> list[str]:
        """Entities that presidio's and custom recognizers find, sorted."""
        from curation.safety.pii import presidio_engine

        return presidio_engine.supported_entities(self.language, self.custom)

    def ner_entities(self) -> list[str]:
        """Entities that the spaCy pipeline finds, without the default ones."""
        if self.ner is None:
            return []
        return [e for e in named_entities.supported_entities(self.ner, self.language) if e not in DEFAULT_ENTITIES]

    def check_entities(self, entities: Sequence[str]) -> None:
        """Raises UserError for an entity without a recognizer."""
        known = {*self.pattern_entities(), *self.ner_entities(), *SECRETS}
        unknown = [e for e in entities if e not in known]
        if not unknown:
            return
        message = (
            f"unknown entity {', '.join(unknown)}; presidio has no recognizer for it in language "
            f"{self.language!r}; it has {', '.join(sorted(known))}"
        )
        by_model = [e for e in unknown if e in named_entities.NER_ENTITIES]
        if self.ner is None and by_model:
            message += (
                f". {', '.join(by_model)} needs a spaCy pipeline: install one (such as "
                "`python -m spacy download en_core_web_sm`) and name it, or the folder of one, in `ner`"
            )
        raise UserError(message)


def find(texts: Texts, entities: list[str], by: Recognizers) -> tuple[Findings, Column]:
    """The findings in all texts; and how many numbers of each text were left out as nobody's.

    Raises UserError for an entity without a recognizer.
    """
    from curation.safety.pii import candidate_windows

    fast = candidate_windows.supported_entities(entities, by.language, by.custom)
    secrets = [e for e in entities if e in SECRETS and e not in fast]
    slow = [e for e in entities if e not in fast and e not in secrets]
    if slow:
        by.check_entities(slow)
    found, left_out = candidate_windows.find_in_windows(texts, fast, by.language, by.regions, by.context)
    rows: list[Row] = []
    if secrets:
        found = found.with_entities(secrets)
        for i in range(len(texts)):
            text = bytes(texts.data[texts.offsets[i] : texts.offsets[i + 1]]).decode()
            for start, end, entity, score in find_secrets(text, secrets):
                rows.append((i, start, end, found.entities.index(entity), score))
        found = found.with_rows(rows)
    if slow:
        by_pattern, by_model = by.pattern_entities(), by.ner_entities()
        patterns = tuple(e for e in slow if e in by_pattern)
        model = tuple(e for e in slow if e in by_model)
        found = found.with_entities(slow)
        rows = []
        for i in range(len(texts)):
            text = bytes(texts.data[texts.offsets[i] : texts.offsets[i + 1]]).decode()
            for start, end, entity, score in _find_in_whole_text(text, patterns, model, by):
                rows.append((i, start, end, found.entities.index(entity), score))
        found = found.with_rows(rows)
    return found, left_out


def _find_in_whole_text(
    text: str, patterns: tuple[str, ...], model: tuple[str, ...], by: Recognizers
) -> list[tuple[int, int, str, float]]:
    """(start, end, entity, score) of each finding."""
    from curation.safety.pii import presidio_engine

    detections: dict[tuple[int, int, str, float], None] = {}  # a pattern and the pipeline may find the same
    for start in range(0, max(1, len(text) - _OVERLAP), _WINDOW - _OVERLAP):
        own_start = start + _OVERLAP // 2 if start else 0
        last = start + _WINDOW >= len(text)
        until = len(text) if last else start + _WINDOW - _OVERLAP // 2
        window = text[start : start + _WINDOW]
        found = presidio_engine.analyze_text(window, patterns, by.language, by.custom) if patterns else []
        if model and by.ner:
            found += named_entities.find_entities(window, model, by.ner, by.language)
        for entity, lo, hi, score in found:
            if own_start <= start + lo < until:
                detections[start + lo, start + hi, entity, score] = None
        if last:
            break
    return list(detections)

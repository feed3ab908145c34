"""What is personal data in a text: presidio's findings, by windows where that is exact, else by the whole text.

Three finders: windows around possible matches for the six default entities (fast, `pii_windows`), presidio over the
whole text for its other entities and users' own recognizers, a spaCy pipeline for names and places where one is
installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from curation.core.errors import UserError
from curation.safety.pii import named_entities
from curation.safety.pii.actions import Finding
from curation.safety.pii.presidio_engine import DEFAULT

FINDING = pa.struct([("entity", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("score", pa.float64())])

# Texts are shown to presidio whole up to what spaCy allows, longer ones by windows that overlap.
_WINDOW, _OVERLAP = 1_000_000, 2_000


def analyze(texts: pa.Array, entities: Sequence[str], language: str = "en") -> pa.ListArray:
    """presidio's findings in each text: list<struct<entity, start, end, score>>, sorted by position; null: none.

    Positions count characters. The six default entities come through windows around possible matches, whatever the
    length of the text. Any other entity needs all of it; there, texts over 1,000,000 characters are cut into windows
    of that size that overlap by 2,000, and a finding counts where it starts in a window's own part (the middle of each
    overlap is where one's part ends and the next one's begins).
    Raises UserError for an entity that presidio has no recognizer for in this language.
    """
    found = find(texts, list(dict.fromkeys(entities)), Recognition(language))
    offsets = [0]
    flat: list[Finding] = []
    for findings in found:
        flat.extend(findings)
        offsets.append(len(flat))
    values = pa.StructArray.from_arrays(
        [
            pa.array([f[2] for f in flat], pa.string()),
            pa.array([f[0] for f in flat], pa.int64()),
            pa.array([f[1] for f in flat], pa.int64()),
            pa.array([f[3] for f in flat], pa.float64()),
        ],
        fields=list(FINDING),
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


@dataclass(frozen=True)
class Recognition:
    """By what values are recognized: presidio in a language, users' own recognizers, a spaCy pipeline."""

    language: str
    own: tuple[str, ...] = ()  # contents of users' recognizer files
    ner: str | None = None

    def by_pattern(self) -> list[str]:
        """Entities that recognizers find, sorted."""
        from curation.safety.pii import presidio_engine

        return presidio_engine.supported(self.language, self.own)

    def by_model(self) -> list[str]:
        """Entities that the spaCy pipeline finds; the default ones are never left to it."""
        if self.ner is None:
            return []
        return [e for e in named_entities.supported(self.ner, self.language) if e not in DEFAULT]

    def refuse_unknown(self, entities: Sequence[str]) -> None:
        """Raises UserError for an entity that nothing here finds."""
        known = {*self.by_pattern(), *self.by_model()}
        unknown = [e for e in entities if e not in known]
        if not unknown:
            return
        said = (
            f"unknown entity {', '.join(unknown)}; presidio knows no entity {', '.join(unknown)} in language "
            f"{self.language!r}; it knows {', '.join(sorted(known))}"
        )
        if self.ner is None and set(unknown) & set(named_entities.USUAL):
            said += (
                f". {', '.join(e for e in unknown if e in named_entities.USUAL)} needs a spaCy pipeline: install one (such as "
                "`python -m spacy download en_core_web_sm`) and name it, or the folder of one, in `ner`"
            )
        raise UserError(said)


def find(texts: pa.Array, entities: list[str], by: Recognition) -> list[list[Finding]]:
    """The findings in each text, sorted. Raises UserError for an entity that nothing finds."""
    import numpy as np

    from curation.safety.pii import candidate_windows

    fast = candidate_windows.windowed(entities, by.language, by.own)
    slow = [e for e in entities if e not in fast]
    if slow:
        by.refuse_unknown(slow)
    texts = texts.fill_null("").cast(pa.large_string())
    found: list[list[Finding]] = [[] for _ in range(len(texts))]
    _, offsets, data = texts.buffers()
    if fast and len(texts) and data is not None:
        where = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        found = candidate_windows.find_all(np.frombuffer(data, np.uint8), where, fast, by.language)
    if slow:
        patterns = tuple(e for e in slow if e in by.by_pattern())
        model = tuple(e for e in slow if e in by.by_model())
        for findings, text in zip(found, texts.to_pylist(), strict=True):
            findings.extend(_whole(text, patterns, model, by))
            findings.sort()
    return found


def _whole(text: str, patterns: tuple[str, ...], model: tuple[str, ...], by: Recognition) -> list[Finding]:
    from curation.safety.pii import presidio_engine

    findings: dict[Finding, None] = {}  # a pattern and the pipeline may say the same
    for start in range(0, max(1, len(text) - _OVERLAP), _WINDOW - _OVERLAP):
        own = start + _OVERLAP // 2 if start else 0
        last = start + _WINDOW >= len(text)
        until = len(text) if last else start + _WINDOW - _OVERLAP // 2
        window = text[start : start + _WINDOW]
        found = presidio_engine.find(window, patterns, by.language, by.own) if patterns else []
        if model and by.ner:
            found += named_entities.find(window, model, by.ner, by.language)
        for entity, lo, hi, score in found:
            if own <= start + lo < until:
                findings[start + lo, start + hi, entity, score] = None
        if last:
            break
    return list(findings)

"""The step `pii`: finds personal data with presidio, and masks, pseudonymizes or removes it.

The findings are exactly those of presidio on a blank spaCy pipeline (detect.py; candidate_windows.py makes it fast,
actions.py decides what is replaced). No value is stored anywhere: not in signals, not in reasons. The step must run
before anything is written, and the engine sends every other string that it stores through `scrub`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from curation.core.errors import UserError
from curation.document import with_column
from curation.safety.pii import custom_recognizers, named_entities, structured_strings
from curation.safety.pii.actions import Action, Finding, findings_to_replace, merge_overlaps, replacement
from curation.safety.pii.detect import Recognizers, find
from curation.safety.pii.presidio_engine import DEFAULT_ENTITIES
from curation.step import MapStep


@dataclass
class Pii(MapStep):
    """Finds personal data and replaces it in the text.

    entities      presidio's names; the six defaults need no model and are fast, any other is as slow as presidio
    actions       by entity: mask (`<EMAIL_ADDRESS>`, the default), pseudonym (made with the key) or remove
    key           name of the environment variable with the key of the pseudonyms; its value is never written
    max_findings  drop documents with more replaced values than this (Dolma: 5); None: keep them all
    max_by_entity  the same for single entities: {EMAIL_ADDRESS: 5}
    decisions     corpus: numbers that are nobody's (versions, section numbers, ISBNs, tables) are left out; presidio:
                  whatever presidio finds
    regions       whose telephone numbers are found, as [US, CN, JP]; none: presidio's US, GB, DE, FR, IL, IN, CA, BR.
                  Numbers with a + are found of all countries
    language      use presidio's recognizers for this language
    recognizers   YAML files of custom recognizers, in presidio's format; name their entities in `entities`
    ner           an installed spaCy pipeline, or the folder of one, for PERSON, LOCATION and others that it finds
    """

    scrubs = True
    rewrites = True

    entities: list[str] = field(default_factory=lambda: list(DEFAULT_ENTITIES))
    actions: dict[str, Action] = field(default_factory=dict)
    key: str = "GRISTMILL_PII_KEY"
    max_findings: int | None = None
    max_by_entity: dict[str, int] = field(default_factory=dict)
    decisions: Literal["corpus", "presidio"] = "corpus"
    regions: list[str] = field(default_factory=list)
    language: str = "en"
    recognizers: list[str] = field(default_factory=list)
    ner: str | None = None
    name: str = "pii"

    _secret: bytes = field(init=False, repr=False, compare=False, default=b"")
    _recognizers: Recognizers | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def version(self) -> str:  # type: ignore[override]
        """Part of the fingerprint, which another key or another installed pipeline changes."""
        secret = self._read_key()
        mark = hmac.new(secret, b"fingerprint of the key", hashlib.sha256).hexdigest() if secret else ""
        return f"4 {mark} {named_entities.pipeline_version(self.ner) if self.ner else ''}"

    @property
    def signals(self) -> pa.Schema:
        counts = [(entity.lower(), pa.int64()) for entity in self.entities]
        # total: values replaced; spared: findings that are not personal, and numbers that are nobody's, which have no
        # span (a table has thousands); spans: JSON of [entity, start, end, action],
        # in characters of the original text
        return pa.schema([("total", pa.int64()), ("spared", pa.int64()), ("spans", pa.string()), *counts])

    def rules(self) -> Mapping[str, str]:
        rules = {} if self.max_findings is None else {"pii_count": f"{self.name}.total <= {self.max_findings}"}
        for entity, most in self.max_by_entity.items():
            rules[f"pii_{entity.lower()}"] = f"{self.name}.{entity.lower()} <= {most}"
        return rules

    def evidence(self) -> Sequence[str]:
        return ("spans",)

    def packages(self) -> Sequence[str]:
        return ("presidio_analyzer", "spacy", "phonenumbers", "tldextract", "regex", "numba")

    def inputs(self) -> Sequence[str]:
        return (*self.recognizers, *((self.ner,) if self.ner and not named_entities.is_package_name(self.ner) else ()))

    def check(self) -> None:
        if not self.entities:
            raise UserError(f"step {self.name}: `entities` is empty")
        if len(set(self.entities)) < len(self.entities):
            raise UserError(f"step {self.name}: `entities` names an entity twice")
        for option in ("actions", "max_by_entity"):
            others = sorted(set(getattr(self, option)) - set(self.entities))
            if others:
                raise UserError(f"step {self.name}: `{option}` names {', '.join(others)}, not in `entities`")
        for option, most in (("max_findings", self.max_findings), *self.max_by_entity.items()):
            if most is not None and most < 0:
                raise UserError(f"step {self.name}: {option} is {most}; expected 0 or more")
        taken = [
            e for e in self.entities if e in ("TOTAL", "SPARED", "SPANS") or not custom_recognizers.ENTITY.fullmatch(e)
        ]
        if taken:
            raise UserError(
                f"step {self.name}: an entity cannot be named {', '.join(taken)}, because the name is used for a signal"
            )
        self._check_regions()
        if (
            any(e not in DEFAULT_ENTITIES for e in self.entities)
            or self.language != "en"
            or self.recognizers
            or self.ner
        ):
            try:
                self._load_recognizers().check_entities(self.entities)
            except UserError as e:
                raise UserError(f"step {self.name}: {e}") from None
        self._read_key()

    def _check_regions(self) -> None:
        if not self.regions:
            return
        import phonenumbers

        unknown = [r for r in self.regions if r not in phonenumbers.SUPPORTED_REGIONS]
        if unknown or len(self.regions) > 60:
            raise UserError(
                f"step {self.name}: `regions` names {', '.join(unknown) or 'more than 60 regions'}; expected up to 60 "
                "countries by their two letters (ISO 3166), such as US, CN or JP"
            )

    def _load_recognizers(self) -> Recognizers:
        texts = [custom_recognizers.read_file(path) for path in self.recognizers]
        for text, path in zip(texts, self.recognizers, strict=True):
            custom_recognizers.parse_recognizers(text, path)
        return Recognizers(
            self.language, tuple(texts), self.ner, tuple(sorted(set(self.regions))), self.decisions == "corpus"
        )

    def _read_key(self) -> bytes:
        if "pseudonym" not in self.actions.values():
            return b""
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key) or self.key in os.environ.values():
            raise UserError(
                f"step {self.name}: `key` must be the name of an environment variable, not the key itself and not "
                "${...}: it is written into the run"
            )
        secret = os.environ.get(self.key, "")
        if not secret:
            raise UserError(
                f"step {self.name}: pseudonyms need a key: set the environment variable {self.key} on every worker "
                "machine (any long random string; the same key gives the same pseudonyms)"
            )
        return secret.encode("utf-8", "surrogateescape")

    def open(self) -> None:
        from curation.safety.pii import candidate_windows

        self._secret = self._read_key()
        self._recognizers = self._load_recognizers()
        candidate_windows.supported_entities(self.entities, self.language, self._recognizers.custom)  # loads presidio
        self._recognizers.ner_entities()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_secret": b"", "_by": None}  # the key must not be pickled

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Replaces in `text`, adds the counts and spans. A null text stays null."""
        texts = batch.column("text")
        rows = self._replace_in_texts(texts)
        columns: dict[str, list[Any]] = {f.name: [] for f in self.signals}
        for row in rows:
            done = [entity for entity, *_, what in row.spans if what != SPARED]
            columns["total"].append(len(done))
            columns["spared"].append(len(row.spans) - len(done) + row.left_out)
            columns["spans"].append(json.dumps(row.spans, separators=(",", ":")) if row.spans else None)
            for entity in self.entities:
                columns[entity.lower()].append(done.count(entity))
        arrays = [pa.array(columns[f.name], f.type) for f in self.signals]
        if any(row.text is not None for row in rows):
            old = texts.to_pylist()
            new = [o if row.text is None else row.text for o, row in zip(old, rows, strict=True)]
            batch = with_column(batch, "text", pa.array(new, texts.type))
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    def scrub(self, strings: pa.Array) -> pa.Array:
        """URLs, JSON, reasons and titles with personal data replaced; type and nulls stay.

        JSON stays JSON; an e-mail address in a URL is also found with its @ written as %40.
        """
        return pa.array(structured_strings.replace_in_strings(strings.to_pylist(), self._scrub_strings), strings.type)

    def _scrub_strings(self, strings: list[str]) -> list[str]:
        """Searches each string as it is and with escapes decoded, and replaces what either search finds."""
        readings = [structured_strings.decode_escapes(s) for s in strings]
        plain = [r[0] for r in readings if r is not None]
        found = iter(self._findings([*strings, *plain]))
        raw = [next(found) for _ in strings]
        new = []
        for text, reading, detections in zip(strings, readings, raw, strict=True):
            values = {f: text[f[0] : f[1]] for f in detections}
            seen = set(detections)
            if reading is not None:
                for f in findings_to_replace(next(found), reading[0]):
                    place = (reading[1][f[0]], reading[1][f[1]], f[2], f[3])
                    values[place] = reading[0][f[0] : f[1]]
            new.append(
                self._apply(text, findings_to_replace(detections, text) + [f for f in values if f not in seen], values)[
                    0
                ]
            )
        return new

    def _findings(self, texts: list[str]) -> list[list[Finding]]:
        if self._recognizers is None:
            self.open()
        assert self._recognizers is not None
        # a string beside a text has no line around it that could say what a number is: presidio decides
        by = replace(self._recognizers, context=False)
        return find(pa.array(texts, pa.large_string()), self.entities, by)[0]

    def _replace_in_texts(self, texts: pa.Array) -> list[_Replaced]:
        if self._recognizers is None:
            self.open()
        assert self._recognizers is not None
        rows: list[_Replaced] = []
        for i, (detections, left_out) in enumerate(zip(*find(texts, self.entities, self._recognizers), strict=True)):
            if not detections:
                rows.append(_Replaced(None, [], left_out))
                continue
            text = texts[i].as_py()
            acted_on = findings_to_replace(detections, text)
            new, spans = self._apply(text, acted_on, {})
            acted = {f[:3] for f in acted_on}
            left = [(e, lo, hi, SPARED) for lo, hi, e, _ in detections if (lo, hi, e) not in acted]
            rows.append(
                _Replaced(new if spans else None, sorted(spans + left, key=lambda s: (s[1], s[2], s[0])), left_out)
            )
        return rows

    def _apply(
        self, text: str, detections: list[Finding], values: Mapping[Finding, str]
    ) -> tuple[str, list[tuple[str, int, int, str]]]:
        """The text with the findings replaced, and (entity, start, end, action) of each. `values`: decoded values, if
        any."""
        parts, position, spans = [], 0, []
        for start, end, entity, score in merge_overlaps(detections):
            action = self.actions.get(entity, "mask")
            value = values.get((start, end, entity, score), text[start:end])
            parts += [text[position:start], replacement(entity, value, action, self._secret)]
            position = end
            spans.append((entity, start, end, str(action)))
        parts.append(text[position:])
        return "".join(parts), spans


SPARED = "spared"


@dataclass(frozen=True)
class _Replaced:
    """One new text (None: unchanged), (entity, start, end, action) of each finding, and numbers that are nobody's."""

    text: str | None
    spans: list[tuple[str, int, int, str]]
    left_out: int

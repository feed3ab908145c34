"""The step `pii`: finds personal data with presidio, and masks, pseudonymizes or removes it.

The findings are exactly those of presidio on a blank spaCy pipeline (detect.py; candidate_windows.py makes it fast,
actions.py decides what is replaced, replace_findings.py does it). No value is stored anywhere: not in signals, not in
reasons. The step must run before anything is written, and the engine sends every other string that it stores through
`scrub`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.core.errors import UserError
from curation.document import with_column
from curation.safety.pii import custom_recognizers, named_entities, structured_strings
from curation.safety.pii.actions import Action
from curation.safety.pii.detect import Recognizers, find
from curation.safety.pii.finding_columns import Texts
from curation.safety.pii.presidio_engine import DEFAULT_ENTITIES
from curation.safety.pii.replace_findings import describe_spans, merge_overlaps, replace_in_texts, to_replace
from curation.safety.pii.secrets import SECRETS
from curation.step import MapStep


@dataclass
class Pii(MapStep):
    """Finds personal data and replaces it in the text.

    entities      presidio's names; the six defaults need no model and are fast, any other is as slow as presidio;
                  and for source code API_KEY, PRIVATE_KEY and PASSWORD, which are patterns of our own
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
        return f"5 {mark} {named_entities.pipeline_version(self.ner) if self.ner else ''}"

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
            any(e not in DEFAULT_ENTITIES and e not in SECRETS for e in self.entities)
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
        column = batch.column("text")
        texts = Texts.of(column)
        found, left_out = find(texts, self.entities, self._opened())
        acted_on = to_replace(found, texts)
        merged = merge_overlaps(found.where(acted_on))
        spans, spared = describe_spans(found, acted_on, merged, self.actions, len(texts))
        columns: dict[str, Any] = {
            "total": np.bincount(merged.text, minlength=len(texts)),
            "spared": spared + left_out,
            "spans": spans,
        }
        for entity in self.entities:
            of_entity = merged.entity == merged.entities.index(entity)
            columns[entity.lower()] = np.bincount(merged.text[of_entity], minlength=len(texts))
        arrays = [pa.array(columns[f.name], f.type) for f in self.signals]
        if len(merged):
            new = replace_in_texts(texts, merged, self.actions, self._secret).cast(column.type)
            batch = with_column(batch, "text", pc.if_else(column.is_valid(), new, column) if column.null_count else new)
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    def scrub(self, strings: pa.Array) -> pa.Array:
        """URLs, JSON, reasons and titles with personal data replaced; type and nulls stay.

        JSON stays JSON; an e-mail address in a URL is also found with its @ written as %40.
        """
        return pa.array(structured_strings.replace_in_strings(strings.to_pylist(), self._scrub_strings), strings.type)

    def _scrub_strings(self, strings: list[str]) -> list[str]:
        """Searches each string as it is and with escapes decoded, and replaces what either search finds."""
        readings = [structured_strings.decode_escapes(s) for s in strings]
        decoded = [(i, reading) for i, reading in enumerate(readings) if reading is not None]
        both = Texts.of(pa.array([*strings, *(plain for _, (plain, _) in decoded)], pa.large_string()))
        # a string beside a text has no line around it that could say what a number is: presidio decides
        found, _ = find(both, self.entities, replace(self._opened(), context=False))
        acted_on = to_replace(found, both)
        raw = found.text < len(strings)
        merged, values = found.where(acted_on & raw), {}
        if decoded:
            places = structured_strings.places_in_originals(found.where(acted_on & ~raw), len(strings), decoded)
            known = set(found.where(raw).rows())
            values = {row: decoded[t - len(strings)][1][0][lo:hi] for row, (t, lo, hi) in places.items()}
            merged = merged.with_rows([row for row in values if row not in known])
        merged = merge_overlaps(merged)
        changed = np.unique(merged.text)
        texts = Texts(both.data, both.offsets[: len(strings) + 1])
        replaced = replace_in_texts(texts, merged, self.actions, self._secret, values).take(pa.array(changed))
        new = list(strings)
        for i, text in zip(changed.tolist(), replaced.to_pylist(), strict=True):
            new[i] = text
        return new

    def _opened(self) -> Recognizers:
        if self._recognizers is None:
            self.open()
        assert self._recognizers is not None
        return self._recognizers

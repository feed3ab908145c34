"""Personal data out of the text: presidio finds it, a mask or a stand-in takes its place, counts are what remains.

What is found is exactly what presidio finds on a blank spaCy pipeline; `pii_windows` says how that is had without
showing presidio every character, `pii_actions` what is done with it. No value is kept anywhere: not in signals, not in
reasons. A step like this belongs before anything is written, and through `scrub` the engine sends every other string
that it stores.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.record import with_column
from curation.safety.pii_actions import Action, Finding, meant, replacement, settle
from curation.step import MapStep, UserError

DEFAULT = ("EMAIL_ADDRESS", "IP_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN")
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
    found = _find(texts, list(dict.fromkeys(entities)), language)
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


def _find(texts: pa.Array, entities: list[str], language: str) -> list[list[Finding]]:
    import numpy as np

    from curation.safety import pii_presidio, pii_windows

    fast = pii_windows.windowed(entities, language)
    slow = [e for e in entities if e not in fast]
    unknown = sorted(set(slow) - set(pii_presidio.supported(language))) if slow else []
    if unknown:
        raise UserError(
            f"presidio knows no entity {', '.join(unknown)} in language {language!r}; "
            f"it knows {', '.join(pii_presidio.supported(language))}"
        )
    texts = texts.fill_null("").cast(pa.large_string())
    found: list[list[Finding]] = [[] for _ in range(len(texts))]
    _, offsets, data = texts.buffers()
    if fast and len(texts) and data is not None:
        where = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        found = pii_windows.find_all(np.frombuffer(data, np.uint8), where, fast, language)
    if slow:
        for findings, text in zip(found, texts.to_pylist(), strict=True):
            findings.extend(_whole(text, tuple(slow), language))
            findings.sort()
    return found


def _whole(text: str, entities: tuple[str, ...], language: str) -> list[Finding]:
    from curation.safety import pii_presidio

    findings = []
    for start in range(0, max(1, len(text) - _OVERLAP), _WINDOW - _OVERLAP):
        own = start + _OVERLAP // 2 if start else 0
        last = start + _WINDOW >= len(text)
        until = len(text) if last else start + _WINDOW - _OVERLAP // 2
        for entity, lo, hi, score in pii_presidio.find(text[start : start + _WINDOW], entities, language):
            if own <= start + lo < until:
                findings.append((start + lo, start + hi, entity, score))
        if last:
            break
    return findings


@dataclass
class Pii(MapStep):
    """Finds personal data and replaces it in the text.

    entities      presidio's names; the six defaults need no model and are fast, any other is as slow as presidio
    actions       by entity: mask (`<EMAIL_ADDRESS>`, the default), pseudonym (a stand-in made with the key) or remove
    key           name of the environment variable that holds the key of the pseudonyms; its value is never written
    max_findings  drop documents with more replaced values than this (Dolma: 5); None: keep them all
    language      presidio's recognizers of this language
    """

    scrubs = True
    rewrites = True

    entities: list[str] = field(default_factory=lambda: list(DEFAULT))
    actions: dict[str, Action] = field(default_factory=dict)
    key: str = "GRISTMILL_PII_KEY"
    max_findings: int | None = None
    language: str = "en"
    name: str = "pii"

    _secret: bytes = field(init=False, repr=False, compare=False, default=b"")

    @property
    def signals(self) -> pa.Schema:
        counts = [(entity.lower(), pa.int64()) for entity in self.entities]
        # replaced in all, and left alone because they concern nobody
        return pa.schema([("total", pa.int64()), ("spared", pa.int64()), *counts])

    def rules(self) -> Mapping[str, str]:
        return {} if self.max_findings is None else {"pii_count": f"{self.name}.total <= {self.max_findings}"}

    def check(self) -> None:
        if not self.entities:
            raise UserError(f"step {self.name}: `entities` is empty")
        if len(set(self.entities)) < len(self.entities):
            raise UserError(f"step {self.name}: an entity stands twice in `entities`")
        others = sorted(set(self.actions) - set(self.entities))
        if others:
            raise UserError(f"step {self.name}: `actions` speaks of {', '.join(others)}, not among `entities`")
        if any(e not in DEFAULT for e in self.entities) or self.language != "en":
            from curation.safety.pii_presidio import supported

            unknown = [e for e in self.entities if e not in supported(self.language)]
            if unknown:
                raise UserError(
                    f"step {self.name}: unknown entity {', '.join(unknown)}; "
                    f"presidio knows {', '.join(supported(self.language))}"
                )
        self._read_key()

    def _read_key(self) -> bytes:
        if "pseudonym" not in self.actions.values():
            return b""
        secret = os.environ.get(self.key, "")
        if not secret:
            raise UserError(
                f"step {self.name}: pseudonyms need a key: set the environment variable {self.key} on every machine "
                "that works (any long random string; the same key gives the same stand-ins)"
            )
        return secret.encode("utf-8", "surrogateescape")

    def open(self) -> None:
        from curation.safety import pii_windows

        self._secret = self._read_key()
        pii_windows.windowed(self.entities, self.language)  # loads presidio

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_secret": b""}  # the key is not written, not even by pickle

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Replaces in `text`, adds the counts. A null text stays null."""
        texts = batch.column("text")
        rows = self._replace(texts)
        counts: dict[str, list[int]] = {f.name: [] for f in self.signals}
        for _, done, spared in rows:
            counts["total"].append(len(done))
            counts["spared"].append(spared)
            for entity in self.entities:
                counts[entity.lower()].append(done.count(entity))
        arrays = [pa.array(c, pa.int64()) for c in counts.values()]
        batch = with_column(batch, "text", self._strings(texts, rows))
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    def scrub(self, strings: pa.Array) -> pa.Array:
        """URLs, JSON, reasons, titles: the same strings with personal data replaced, type and nulls as they were.

        In JSON the values are scrubbed, so that it stays JSON; an address in a URL is found behind its %40, too.
        """
        plain = [_readable(s) for s in strings.to_pylist()]
        scrubbed = self._strings(strings, self._replace(pa.array(plain, pa.large_string())))
        return pa.array(
            [
                self._scrub_json(old) if _looks_like_json(old) else old if seen == new else new
                for old, seen, new in zip(strings.to_pylist(), plain, scrubbed.to_pylist(), strict=True)
            ],
            strings.type,
        )

    def _scrub_json(self, text: str) -> str:
        try:
            value = json.loads(text)
        except ValueError:  # only looked like it
            return self._strings_of([text])[0]
        scrubbed = self._scrub_value(value)
        return text if scrubbed == value else json.dumps(scrubbed, ensure_ascii=False)

    def _scrub_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            keys = self._strings_of(list(value))
            return {k: self._scrub_value(v) for k, v in zip(keys, value.values(), strict=True)}
        if isinstance(value, list):
            return [self._scrub_value(v) for v in value]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._strings_of([value])[0]
        scrubbed = self._strings_of([str(value)])[0]  # a telephone number may well be an integer
        return value if scrubbed == str(value) else scrubbed

    def _strings_of(self, strings: list[str]) -> list[str]:
        array = pa.array([_readable(s) for s in strings], pa.large_string())
        new = self._strings(array, self._replace(array)).to_pylist()
        return [n if n != r else s for s, r, n in zip(strings, array.to_pylist(), new, strict=True)]

    def _replace(self, texts: pa.Array) -> list[tuple[str | None, list[str], int]]:
        """For each text: the new one (None: unchanged), the entities replaced in it, how many findings were spared."""
        rows: list[tuple[str | None, list[str], int]] = []
        for i, findings in enumerate(_find(texts, self.entities, self.language)):
            if not findings:
                rows.append((None, [], 0))
                continue
            text = texts[i].as_py()
            acted_on = meant(findings, text)
            parts, position, done = [], 0, []
            for start, end, entity, _ in settle(acted_on):
                action = self.actions.get(entity, "mask")
                parts += [text[position:start], replacement(entity, text[start:end], action, self._secret)]
                position = end
                done.append(entity)
            parts.append(text[position:])
            rows.append(("".join(parts) if done else None, done, len(findings) - len(acted_on)))
        return rows

    @staticmethod
    def _strings(texts: pa.Array, rows: Sequence[tuple[str | None, list[str], int]]) -> pa.Array:
        if all(new is None for new, _, _ in rows):
            return texts
        old = texts.to_pylist()
        return pa.array([o if new is None else new for o, (new, _, _) in zip(old, rows, strict=True)], texts.type)


def _readable(text: str | None) -> str | None:
    return text if text is None or "%40" not in text else text.replace("%40", "@")


def _looks_like_json(text: str | None) -> bool:
    return text is not None and text[:1] in ("{", "[") and text[-1:] in ("}", "]")

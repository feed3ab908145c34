"""Estimates what a finished run would keep under other rules, from its stored signals (`gristmill what-if`).

Nothing is read or scored again: rule_replay.py decides the rules from the ledger. Where no document comes back and no
verdict of a global step depends on one that goes, the answer is exactly what a run does. Otherwise the number of
documents that are kept is estimated: of those that come back, the same share as of the documents of their domain and
language that passed the same point.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from curation.core.errors import UserError
from curation.storage import Storage
from pipelines.lookup.document_samples import Sample, load_texts
from pipelines.lookup.ledger import ledger_directory
from pipelines.lookup.token_counts import DocumentSizes, measure_documents
from pipelines.what_if.rule_changes import Step, apply_change, load_steps
from pipelines.what_if.rule_replay import BACK, KEPT, READ, Ints, Mask, Replay, RuleReplay

EXAMPLES = 20
TEXT_LENGTH = 300  # characters of an example's text


@dataclass
class Answer:
    """What changes: documents, bytes of text and tokens that are kept before and after."""

    changes: list[dict[str, str | None]]  # step, rule, SQL before and after
    exact: bool
    notes: list[str]  # what is uncertain
    before: dict[str, float]
    after: dict[str, float]
    groups: dict[str, dict[str, dict[str, Any]]]  # domain, language, rule -> name -> figures
    examples: dict[str, list[dict[str, Any]]]  # lost, gained
    quantiles: list[dict[str, Any]]
    tokens: str  # how they were counted
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def what_if(run_dir: str, sets: Sequence[str], examples: int = EXAMPLES) -> Answer:
    """What the run would keep under other rules. Changes nothing.

    sets   `rule=SQL`, `step.rule=SQL` or `steps.STEP.keep.RULE=SQL`; `null` for the SQL removes a rule; a rule with a
           new name is added after the step's others
    Raises UserError for an unfinished run, an unknown rule, and SQL that does not fit the ledger.
    """
    started = time.monotonic()
    store = Storage(run_dir)
    if ledger_directory(store) is None or not store.exists("pipeline.yaml"):
        raise UserError(f"{run_dir} has no ledger\n  give the directory of a finished run of gristmill curate")
    run = store.read_json("run.json")
    steps, language, pinned = load_steps(store, run_dir, run.get("undecided", []))
    changes = [apply_change(steps, s) for s in sets]
    if not changes:
        raise UserError("what-if: no rule is changed; give --set RULE='SQL', or --set RULE=null to remove a rule")
    replayer = RuleReplay(store, steps, run.get("quantiles", []) if pinned else [])
    replay = replayer.run()
    languages = _languages(replayer, language, len(replay.old))
    answer = _summarize(store, run, steps, changes, replay, languages, examples)
    answer.seconds = round(time.monotonic() - started, 3)
    return answer


def _languages(replayer: RuleReplay, step: str | None, rows: int) -> list[str]:
    if step is None:
        return [""] * rows
    column = replayer.columns([step]).column(0)
    return [c or "" for chunk in column.chunks for c in pc.struct_field(chunk, "code").to_pylist()]


def _summarize(
    store: Storage, run: Mapping[str, Any], steps: Sequence[Step], changes: list[dict[str, str | None]],
    replay: Replay, languages: list[str], examples: int,
) -> Answer:  # fmt: skip
    """Adds up the replay by domain, language and rule."""
    old, new, notes = replay.old, replay.new, list(replay.notes)
    domains = [d or "" for d in replay.base.column("domain").to_pylist()]
    sizes = measure_documents(store, run, replay.base, old == KEPT)
    back = new == BACK
    expected = np.zeros(len(old))
    if back.any():
        expected[back] = _expected_kept(np.flatnonzero(back), old, domains, languages)
        notes.append(
            f"{int(back.sum()):,} documents come back and were never scored by the later steps; about "
            f"{expected.sum():,.0f} of them are expected to be kept, like others of their domain and language"
        )
    before, after = old == KEPT, new == KEPT
    groups: dict[str, dict[str, dict[str, Any]]] = {"domain": {}, "language": {}, "rule": {}}
    for kind, names in (("domain", domains), ("language", languages)):
        for name, rows in sorted(_rows_by(names).items()):
            figures = _group_figures(sizes, rows, before, after, back, expected)
            if figures["lost"]["documents"] or figures["gained"]["documents"] or figures["back"]["documents"]:
                groups[kind][name or "-"] = figures
    for was, now, rows in _changed_outcomes(steps, replay):
        totals = sizes.total(rows)
        groups["rule"][f"{was} -> {now}"] = {k: float(totals[k]) for k in ("documents", "bytes", "tokens")}
    lost, gained = np.flatnonzero(before & ~after), np.flatnonzero(~before & (after | back))
    return Answer(
        changes=changes,
        exact=not notes,
        notes=notes,
        before=sizes.total(np.flatnonzero(before)),
        after=sizes.total(np.flatnonzero(after)) | {"expected_back": round(float(expected.sum()), 1)},
        groups=groups,
        examples={
            "lost": _examples(store, run, steps, replay, lost[:examples], new, replay.new_rule, languages),
            "gained": _examples(store, run, steps, replay, gained[:examples], old, replay.old_rule, languages),
        },
        quantiles=replay.quantiles,
        tokens=sizes.method,
    )


def _expected_kept(rows: Ints, old: Ints, domains: list[str], languages: list[str]) -> npt.NDArray[np.float64]:
    """For each document that comes back, the share of similar documents that were kept.

    Similar: of the same domain and language (of all, if there are none), and passed the point where it was dropped.
    """
    out = np.zeros(len(rows))
    passed_and_kept: dict[tuple[int, str, str], tuple[int, int]] = {}
    kinds = list(zip(domains, languages, strict=True))
    for end in sorted({int(e) for e in old[rows]}):
        passed: Counter[tuple[str, str]] = Counter()
        kept: Counter[tuple[str, str]] = Counter()
        for i in np.flatnonzero(old > end).tolist():
            passed[kinds[i]] += 1
            kept[kinds[i]] += int(old[i] == KEPT)
        for kind in set(passed):
            passed_and_kept[end, *kind] = (passed[kind], kept[kind])
        passed_and_kept[end, "", "*"] = (passed.total(), kept.total())
    for k, row in enumerate(rows.tolist()):
        end = int(old[row])
        n_passed, n_kept = passed_and_kept.get((end, *kinds[row]), passed_and_kept[end, "", "*"])
        out[k] = n_kept / n_passed if n_passed else 0.0
    return out


def _changed_outcomes(steps: Sequence[Step], replay: Replay) -> Iterator[tuple[str, str, Ints]]:
    """(outcome before, outcome after, rows) of the documents whose outcome changes."""
    moved = np.flatnonzero((replay.old != replay.new) | (replay.old_rule != replay.new_rule))
    names = [
        (
            _outcome(steps, int(replay.old[i]), replay.old_rule[i]),
            _outcome(steps, int(replay.new[i]), replay.new_rule[i]),
        )
        for i in moved.tolist()
    ]
    for (was, now), at in sorted(_rows_by(names).items()):
        yield was, now, moved[at]


def _outcome(steps: Sequence[Step], end: int, rule: str) -> str:
    if end == KEPT:
        return "kept"
    if end == BACK:
        return "comes back"
    return f"read.{rule}" if end == READ else f"{steps[end].name}.{rule}"


def _examples(
    store: Storage, run: Mapping[str, Any], steps: Sequence[Step], replay: Replay, rows: Ints, end: Ints,
    rule: npt.NDArray[np.object_], languages: list[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Documents as examples. Rows are in the order of document ids, which are hashes: the first are a random sample."""
    out, samples = [], []
    for i in rows.tolist():
        row = replay.base.slice(i, 1).to_pylist()[0]
        value = replay.values.get(int(end[i]), {}).get(i) or row["value"]
        samples.append(Sample(row["doc_id"].hex(), row["url"], row["domain"], None, source=row["source"]))
        out.append(
            {
                "doc_id": row["doc_id"].hex(),
                "url": row["url"],
                "domain": row["domain"],
                "language": languages[i] or None,
                "rule": _outcome(steps, int(end[i]), rule[i]),
                "value": json.loads(value) if value else None,
            }
        )
    load_texts(store, run, samples, TEXT_LENGTH)
    for example, sample in zip(out, samples, strict=True):
        example["text"] = None if sample.text is None else " ".join(sample.text.split())[:TEXT_LENGTH]
    return out


def _rows_by(names: Sequence[Any]) -> dict[Any, Ints]:
    rows: dict[Any, list[int]] = {}
    for i, name in enumerate(names):
        rows.setdefault(name, []).append(i)
    return {name: np.array(at, np.int64) for name, at in rows.items()}


def _group_figures(
    sizes: DocumentSizes, rows: Ints, before: Mask, after: Mask, back: Mask, expected: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Documents, bytes and tokens of a group: kept before and after, lost, gained, and coming back."""
    parts: Mapping[str, Mask] = {
        "before": before,
        "after": after,
        "lost": before & ~after,
        "gained": ~before & after,
        "back": back,
    }
    out: dict[str, Any] = {name: sizes.total(rows[mask[rows]]) for name, mask in parts.items()}
    return out | {"expected_back": round(float(expected[rows].sum()), 1)}

"""Gathers what the cards of a curation run state, from its directory: sources, steps with figures, mix, known limits.

Document counts are exact, from run.json. Signals (personal data, languages) are counted over the first `ROWS` rows of
the ledger, which is sorted by a hash of the document id and so a random sample; the card says of how many rows.
"""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.config.pipeline import File
from curation.core.errors import UserError
from curation.core.relative_paths import check_all_relative
from curation.storage import Storage
from pipelines.lookup.ledger import read_batches

ROWS = 200_000
MAX_LENGTH = 256  # characters of a string signal; a longer one is free text (such as what line_dedup cut)
MAX_VALUES = 1000  # distinct values of a string signal; one with more is an id or a title
UNDECLARED = "unknown, not declared"
_NOT_SIGNALS = ("source", "read")


@dataclass
class Signal:
    """A signal over the documents that have it: quantiles of a number, counts of string and boolean values."""

    count: int = 0
    total: float = 0.0
    quantiles: tuple[float, float, float] | None = None  # 10 %, 50 %, 90 %
    values: Counter[str] = field(default_factory=Counter)


@dataclass
class CardData:
    """Everything that the cards of a run state."""

    run: dict[str, Any]  # run.json
    pipeline: dict[str, Any]  # pipeline.yaml
    sources: list[dict[str, Any]]
    steps: list[dict[str, Any]]  # name, kind, options, rules with dropped documents, documents left
    file: dict[str, Any]  # the pipeline as a pipeline file
    signals: dict[str, dict[str, Signal]]  # step -> signal
    kept_languages: Counter[str]
    rows: int  # rows of the ledger over which signals were counted
    manifest: dict[str, Any] | None
    generation: int
    deleted: int
    made: str | None  # date of run.json, for a local run
    limits: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.run["name"])

    @property
    def records(self) -> int:
        return int(self.run["counts"]["read"]["records"])

    @property
    def kept(self) -> int:
        return int(self.run["counts"]["kept"])

    @property
    def files(self) -> list[dict[str, Any]]:
        """Path, bytes and SHA-256 of everything in result/."""
        files = list(self.run.get("files", []))
        check_all_relative([f["path"] for f in files], "run.json")
        return files


def gather(run_dir: str) -> CardData:
    """Reads a finished run. Raises UserError for a directory without one."""
    from curation.config.stored_pipeline import read_stored_pipeline
    from curation.engine.results import generations
    from curation.engine.runtime.run_record import read_run

    store = Storage(run_dir)
    run = read_run(store)
    if not run.get("done"):
        raise UserError(f"{run_dir} is not finished\n  let gristmill curate finish first")
    pipeline = read_stored_pipeline(store)
    signals, languages, rows = _signals(store, _language_step(pipeline))
    card = CardData(
        run=run,
        pipeline=pipeline,
        sources=_sources(pipeline, run),
        steps=_steps(pipeline, run),
        file=_as_file(pipeline, run),
        signals=signals,
        kept_languages=languages,
        rows=rows,
        manifest=store.read_plain_json("result/shards/manifest.json")
        if store.exists("result/shards/manifest.json")
        else None,
        generation=generations.next_generation(store),
        deleted=len(generations.deleted_entries(store)),
        made=_date(store),
    )
    card.limits = _known_limits(card)
    return card


def _as_file(pipeline: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """The resolved pipeline as a pipeline file, without default values; a removed rule is null."""
    from curation.config.catalogue import STEPS
    from curation.config.step_options import build, find_known_class
    from curation.core.yaml_lines import YamlTree

    steps: list[dict[str, Any]] = []
    for s in pipeline["steps"]:
        try:
            at = YamlTree(run.get("file") or "", {})
            own = dict(build(find_known_class(s["step"], STEPS, at.file), s["options"], at, (), s["name"]).rules())
        except UserError:  # a user's own step
            own = {}
        keep = {name: s["rules"].get(name) for name in {**own, **s["rules"]} if own.get(name) != s["rules"].get(name)}
        steps.append({s["step"]: s["options"], **({"keep": keep} if keep else {})})
    default = File.model_construct(sources=[])
    given = {k: v for k, v in pipeline.items() if v not in (None, [], {})}
    for key in ("mix", "shards", "engine", "tokenizer"):
        if given.get(key):
            given[key] = _without_defaults(given[key], getattr(default, key))
    return {
        k: v for k, v in (given | {"steps": steps}).items() if v not in (None, [], {}) and v != getattr(default, k, 0)
    }


def _without_defaults(values: dict[str, Any], default: Any) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v is not None and (default is None or v != getattr(default, k))}


def _date(store: Storage) -> str | None:
    import os

    if not store.local:
        return None
    return datetime.datetime.fromtimestamp(os.path.getmtime(store.full("run.json")), datetime.UTC).date().isoformat()


def _language_step(pipeline: dict[str, Any]) -> str | None:
    return next((s["name"] for s in pipeline["steps"] if s["step"] == "language"), None)


def _sources(pipeline: dict[str, Any], run: dict[str, Any]) -> list[dict[str, Any]]:
    read = {i["source"]: i for i in run["inputs"]}
    return [
        s
        | {"files": read[s["name"]]["files"], "bytes": read[s["name"]]["bytes"]}
        | {"licence": s.get("licence") or UNDECLARED}
        for s in pipeline["sources"]
    ]


def _steps(pipeline: dict[str, Any], run: dict[str, Any]) -> list[dict[str, Any]]:
    """Reading and each step, with the documents that each rule dropped and that were left after the step."""
    dropped: dict[str, dict[str, int]] = {}
    for row in run["counts"]["steps"]:
        dropped.setdefault(row["step"], {})[row["rule"]] = row["dropped"]
    left = run["counts"]["read"]["records"]
    rows = []
    for step in [{"step": "read", "name": "read", "options": {}, "rules": {}}, *pipeline["steps"]]:
        here = dropped.get(step["name"], {})
        rules = {r: {"sql": sql, "dropped": here.get(r, 0)} for r, sql in step["rules"].items()}
        rules |= {r: {"sql": None, "dropped": n} for r, n in here.items() if r not in rules}
        reached, left = left, left - sum(here.values())
        rows.append({**step, "rules": rules, "reached": reached, "left": left})
    return rows


def _signals(store: Storage, language: str | None) -> tuple[dict[str, dict[str, Signal]], Counter[str], int]:
    found: dict[str, dict[str, Signal]] = {}
    numbers: dict[tuple[str, str], list[Any]] = {}
    languages: Counter[str] = Counter()
    rows = 0
    for batch in read_batches(store, "result/ledger"):
        for column in batch.schema:
            if not pa.types.is_struct(column.type) or column.name in _NOT_SIGNALS:
                continue
            structs = batch.column(column.name)
            for child, array in zip(column.type, structs.flatten(), strict=True):
                into = found.setdefault(column.name, {}).setdefault(child.name, Signal())
                values = array.drop_null()
                into.count += len(values)
                if pa.types.is_floating(child.type) or pa.types.is_integer(child.type):
                    numbers.setdefault((column.name, child.name), []).append(np.asarray(values.cast(pa.float64())))
                elif pa.types.is_boolean(child.type):
                    into.values.update({"true": pc.sum(values).as_py() or 0})
                elif (
                    pa.types.is_string(child.type)
                    and len(into.values) < MAX_VALUES
                    and (pc.max(pc.utf8_length(values)).as_py() or 0) <= MAX_LENGTH
                ):
                    into.values.update({v["values"]: v["counts"] for v in pc.value_counts(values).to_pylist()})
            if column.name == language:
                codes = pc.struct_field(structs.filter(batch.column("step").is_null()), "code").drop_null()
                languages.update({v["values"]: v["counts"] for v in pc.value_counts(codes).to_pylist()})
        rows += batch.num_rows
        if rows >= ROWS:
            break
    for (step, name), parts in numbers.items():
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]
        if len(values):
            signal = found[step][name]
            signal.total = float(values.sum())
            low, middle, high = (float(q) for q in np.quantile(values, [0.1, 0.5, 0.9], method="inverted_cdf"))
            signal.quantiles = (low, middle, high)
    return found, languages, rows


def _known_limits(card: CardData) -> list[str]:
    """What a user of the data must know, as far as it follows from the run."""
    run, kinds = card.run, {s["step"] for s in card.steps}
    limits = []
    undeclared = [s["name"] for s in card.sources if s["licence"] == UNDECLARED]
    if undeclared:
        limits.append(
            f"The licence of {', '.join(undeclared)} is not declared in the pipeline file. Crawled texts belong to "
            "their authors; check that your use of them is permitted."
        )
    if run.get("limit") or run.get("sample"):
        part = f"{run['limit']:,} records" if run.get("limit") else f"a sample of {run['sample']:g}"
        limits.append(f"This run is partial: it read only {part} of the input.")
    if run["counts"]["read"]["unread_bytes"] or run["unread"]:
        limits.append(
            f"{run['counts']['read']['unread_bytes']:,} stored bytes of {len(run['unread'])} files could not be read "
            "and are not included."
        )
    if card.generation:
        limits.append(
            f"This is generation {card.generation}: documents were deleted, while the tokenizer and the quantiles "
            "are still those of the generation before. A fresh run computes its own."
        )
    if "pii" not in kinds:
        limits.append("Personal data was not removed: the pipeline has no pii step.")
    else:
        limits.append(
            "Personal data is found by patterns and by the entities that the pii step names. Names, addresses and "
            "whatever identifies a person only in context remain."
        )
    if "toxicity" not in kinds:
        limits.append("Toxic text was not removed: the pipeline has no toxicity step.")
    if not kinds & {"exact_dedup", "minhash_dedup", "line_dedup", "url_dedup"}:
        limits.append("Duplicates were not removed: the pipeline has no deduplication step.")
    unmet = sum(t.get("counters", {}).get("unmet", 0) for stages in run["stages"].values() for t in stages)
    if unmet:
        limits.append(f"{unmet:,} members of very large buckets were not compared with all others (see docs/dedup.md).")
    if "decontaminate" not in kinds:
        limits.append(
            "Text of evaluation sets was not removed (no decontaminate step): benchmark scores may be inflated."
        )
    if "language" in kinds:
        limits.append(
            "Languages are predicted by a classifier, which is least reliable on short and mixed-language texts."
        )
    return limits

"""Plans the phases of a run: which steps are fused, where barriers are, and what everything computed is named.

The plan depends on the input and the configuration only, not on workers. Adjacent map steps form one phase; a global
step, a rule that needs a quantile, or a step of other `resources`, ends it. Names of what is computed come from
fingerprints:

- a step's *signals* from its code, options and models, and from the steps that rewrote the text before it;
- a task's *key* from its reader and its input (path, size, version), so that a changed file is another task;
- a task's *decision* from all of that and the rules, so that after a changed rule only rules are evaluated again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation import storage
from curation.config import rules
from curation.config.pipeline import Pipeline
from curation.config.resources import ORDINARY, Resources
from curation.config.rules import ParsedRule, Quantile
from curation.core import imported_code
from curation.core.errors import UserError
from curation.core.imported_code import ImportedCode
from curation.engine.planning import fingerprints, prior_run
from curation.engine.planning.duplicate_files import refuse_duplicate_files
from curation.engine.planning.exclude_list import ExcludeList, read_exclude_lists
from curation.engine.planning.map_spec import Op, Source
from curation.input_files import InputFile, list_inputs
from curation.packing import mixing, shard_writer
from curation.step import GlobalStep, MapStep, Reader, Step

# What writes files of a run, first those of documents and signals. The versions of what these import count, those of
# what only schedules and shows (Ray, psutil) do not.
_WRITERS = (
    "curation.engine.tasks.map_task",
    "curation.engine.tasks.stage_task",
    "curation.engine.results.ledger",
    "curation.packing.document_writer",
    "curation.packing.shard_writer",
    "curation.packing.tokenizer.train_tokenizer",
)


TEXT_FORMAT = 2  # of stored texts (tasks/task_documents.py), part of their name: those of 1 had no hash beside them


@dataclass(frozen=True)
class PlannedOp:
    """A step of a phase, whose rules may contain quantiles that are not computed yet."""

    kind: str
    step: Step
    position: int
    rules: tuple[ParsedRule, ...]
    fingerprint: str  # of the step's signals; for a global step, of the step alone
    after: tuple[str, ...] = ()  # global steps whose signals it reads, itself or through other steps

    @property
    def store(self) -> str:
        return f"cache/signals/{self.step.name}-{self.fingerprint[:16]}"


@dataclass(frozen=True)
class Segment:
    """A map phase and the barrier at its end."""

    index: int
    ops: tuple[PlannedOp, ...]
    text_fingerprint: str | None  # of the text it stores; None if it stores none
    then: GlobalStep | None  # the global step after it
    quantiles: tuple[Quantile, ...]  # computed after it
    text_after: tuple[str, ...] = ()  # global steps whose signals went into the text
    resources: Resources = ORDINARY  # of a task

    @property
    def shown_ops(self) -> list[PlannedOp]:
        """Those of steps that the pipeline file names for this phase."""
        return [op for op in self.ops if op.kind != "features"]

    @property
    def name(self) -> str:
        steps = [op.step.name if op.kind != "rules" else f"{op.step.name} rules" for op in self.shown_ops or self.ops]
        return ", ".join(["read", *steps] if self.index == 0 else steps) or "nothing"


@dataclass
class Plan:
    """All that is known before the first task runs."""

    pipeline: Pipeline
    segments: list[Segment]
    types: dict[str, pa.DataType]  # struct type of each step's signals
    scrubber: MapStep | None
    scrub_before: int
    sources: list[Source]
    files: list[list[InputFile]]  # a list a source
    beside: list[str]  # a fingerprint a source: of what its reader may read besides (`Reader.reads_beside`), or empty
    fingerprint: str  # of the whole run: equal means nothing to do
    base_fingerprint: str
    excluded: ExcludeList
    step_fingerprints: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)  # the machine and all distributions that the run uses
    pinned: dict[Quantile, Any] = field(default_factory=dict)  # quantiles taken from another run instead of computed

    @property
    def input_bytes(self) -> int:
        return sum(f.size for files in self.files for f in files)


def make_plan(pipeline: Pipeline, *, limit: int | None = None, sample: float | None = None) -> Plan:
    """Lists the input, checks what could not be checked before, and names everything. Reads no input file.

    Raises UserError for a source without files, a missing model or list, and an invalid limit or sample.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}: expected a number of records, 1 or more")
    if sample is not None and not 0 < sample <= 1:
        raise UserError(f"sample is {sample:g}: expected a share of the documents, above 0 and at most 1")
    steps = [entry.step for entry in pipeline.steps]
    for step in steps:
        step.check()
    weights = None if pipeline.mix.weights == "natural" else dict(pipeline.mix.weights)
    mixing.check_mix_options(weights, pipeline.mix.budget, pipeline.mix.max_epochs)
    shard_writer.check_shard_options(pipeline.validation, pipeline.shards.tokens_per_shard)
    own = {step.name: fingerprints.step_fingerprint(step) for step in steps}
    scrubber, scrub_before = None, 0
    for position, step in enumerate(steps):
        if isinstance(step, MapStep) and step.scrubs:
            scrubber, scrub_before = step, position
            break
    writers = [fingerprints.module_code(fingerprints.module_file(name)) for name in _WRITERS]
    scrub = own[scrubber.name] if scrubber is not None else None
    level = pipeline.engine.cpu_level
    base = storage.fingerprint([fingerprints.environment(writers[:1], level), scrub])
    sources = [Source(s.reader, s.root, s.collection, s.domain) for s in pipeline.sources]
    files = [_files(s.name, s.root, s.path) for s in pipeline.sources]
    refuse_duplicate_files(pipeline.sources, files)
    excluded = read_exclude_lists(pipeline.exclude)
    beside = [_beside(source, listed) for source, listed in zip(sources, files, strict=True)]
    plan = Plan(
        pipeline, [], {s.name: pa.struct(list(s.signals)) for s in steps}, scrubber, scrub_before, sources, files,
        beside, "", base, excluded, own, fingerprints.environment([*writers, *_used_code(pipeline)], level),
    )  # fmt: skip
    plan.segments = _segments(plan, base)
    if pipeline.quantiles:
        plan.pinned = _pinned(pipeline.quantiles, plan.segments)
    plan.fingerprint = storage.fingerprint(
        {
            "pipeline": pipeline.resolved(),
            # the first rule that fails and the first group that holds decide, and sorted JSON has no order
            "order": [[list(e.rules) for e in pipeline.steps], list(pipeline.mix.groups)],
            "steps": own,
            "engine": fingerprints.source_fingerprint(fingerprints.module_file("curation.engine.runtime.run")),
            "environment": plan.environment,
            "files": [[(f.path, f.size, f.version) for f in listed] for listed in files],
            "beside": plan.beside,
            "exclude": excluded.fingerprint(),
            "prior_run": [_prior_run(step, pipeline.seed) for step in steps],
            "quantiles": sorted([str(q), str(value)] for q, value in plan.pinned.items()),
            "limit": limit,
            "sample": sample,
            "tokenizer": _tokenizer_fingerprint(pipeline),
        }
    )
    return plan


def _used_code(pipeline: Pipeline) -> list[ImportedCode]:
    """The code of all readers and steps, and of what steps import by name."""
    steps = [entry.step for entry in pipeline.steps]
    classes = [*(type(s.reader) for s in pipeline.sources), *(c for s in steps for c in (type(s), *s.plugins()))]
    packages = ImportedCode({}, imported_code.providers(p for s in steps for p in s.packages()))
    return [*map(fingerprints.code_of, classes), packages]


def _prior_run(step: Step, seed: int) -> str | None:
    """Fingerprint of the record of this step's prior run; raises UserError if it is missing or of other options."""
    earlier = prior_run.load_prior_run(step, seed) if isinstance(step, GlobalStep) else None
    return earlier.fingerprint if earlier is not None else None


def _files(name: str, root: str, path: str) -> list[InputFile]:
    try:
        found = list_inputs(root, path)
    except FileNotFoundError:
        raise UserError(f"source {name!r}: its root {root} does not exist") from None
    if not found:
        raise UserError(f"source {name!r} is empty: no file below {root} matches {path!r}")
    for file in found:
        try:
            file.path.encode()
        except UnicodeEncodeError:  # a document names its file, and every column is UTF-8
            shown = file.path.encode("utf-8", "surrogateescape")
            raise UserError(
                f"source {name!r}: the name of the file {shown!r} below {root} is not UTF-8. Rename it, or leave it "
                f"out by another pattern than {path!r}."
            ) from None
    return found


def reads_beside(reader: Reader, path: str) -> tuple[str, ...]:
    """Endings of the files below the root that a reader may read for this one."""
    asked = getattr(reader, "reads_beside", None)
    return tuple(asked(path)) if asked is not None else ()


def _beside(source: Source, listed: Sequence[InputFile]) -> str:
    """A fingerprint of the files that the reader may read besides those of the source; empty if there are none."""
    endings = tuple(sorted({e for f in listed for e in reads_beside(source.reader, f.path)}))
    if not endings:
        return ""
    there = [f for f in list_inputs(source.root, "**/*") if f.path.lower().endswith(endings)]
    return storage.fingerprint([(f.path, f.size, f.version) for f in there])


def _pinned(path: str, segments: Sequence[Segment]) -> dict[Quantile, Any]:
    """The values of all quantiles that rules use, from the run.json of another run."""
    import json

    from curation.core import checked_json

    fs, inner = storage.filesystem(path)
    try:
        data = fs.cat_file(inner)
        # a file of this program has a checksum, one that somebody wrote by hand has none
        made = checked_json.decode(data, path) if checked_json.is_checked(data) else json.loads(data)
        there = {Quantile(q["signal"], q["p"], q["by"]): q["value"] for q in made["quantiles"]}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"quantiles: {path} cannot be read as the run.json of a finished run ({type(e).__name__}: {e})"
        ) from None
    for segment in segments:
        for q in segment.quantiles:
            if q not in there:
                raise UserError(
                    f"quantiles: {path} has no {q}, which a rule of the step {segment.ops[-1].step.name} uses; "
                    f"it has {', '.join(sorted(map(str, there))) or 'none'}. Pin from a run whose rules use it, or "
                    "remove `quantiles`."
                )
    return {q: there[q] for segment in segments for q in segment.quantiles}


def _tokenizer_fingerprint(pipeline: Pipeline) -> Any:
    path = pipeline.tokenizer.file if pipeline.tokenizer is not None else None
    return list(fingerprints.file_checksums([path])) if path else None


def _segments(plan: Plan, base: str) -> list[Segment]:
    segments: list[Segment] = []
    ops: list[PlannedOp] = []
    text = base  # extended by every step that rewrites text
    rewritten = True  # the first phase always stores text
    prints: dict[str, str] = {}
    # A global step's signals of a document depend on all others, so its own fingerprint does not identify them: what is
    # computed from them is named for them too, once they are known (see `resolve_ops`).
    depends_on: dict[str, set[str]] = {}
    text_depends_on: set[str] = set()
    needs: Resources | None = ORDINARY  # of the phase's map steps, None while it has none; reading is one

    def close(then: GlobalStep | None = None, quantiles: tuple[Quantile, ...] = ()) -> None:
        nonlocal ops, rewritten, needs
        stored = storage.fingerprint([text, "text", TEXT_FORMAT]) if rewritten else None
        after = tuple(sorted(text_depends_on))
        segments.append(Segment(len(segments), tuple(ops), stored, then, quantiles, after, needs or ORDINARY))
        ops, rewritten, needs = [], False, None

    for position, entry in enumerate(plan.pipeline.steps):
        step = entry.step
        parsed = tuple(rules.parse(n, sql, f"steps.{step.name}.keep.{n}") for n, sql in entry.rules.items())
        wanted = tuple(dict.fromkeys(q for rule in parsed for q in rule.quantiles))
        if isinstance(step, GlobalStep):
            features = step.features()
            if features is not None:
                if needs not in (None, entry.resources):
                    close()
                needs = entry.resources
                own = fingerprints.step_fingerprint(features)
                after = tuple(sorted(text_depends_on))
                ops.append(PlannedOp("features", features, position, (), storage.fingerprint([own, text]), after))
            close(then=step)
            if entry.resources != ORDINARY:  # its last stage may run in the phase that joins its signals
                needs = entry.resources
            print_ = storage.fingerprint([plan.step_fingerprints[step.name], plan.pipeline.seed])
            kind, depends_on[step.name] = "join", {step.name}
            if step.rewrites:  # its signals also depend on the text before it
                text, rewritten = storage.fingerprint([text, print_]), True
                text_depends_on = {step.name}
        else:
            assert isinstance(step, MapStep)
            if needs not in (None, entry.resources):
                close()
            needs = entry.resources
            scrubbed = plan.scrubber is not None and position < plan.scrub_before
            heads = [r.partition(".")[0] for r in step.reads]
            read = [prints[h] for h in heads if h in prints]  # signals of earlier steps that it reads
            print_ = storage.fingerprint([plan.step_fingerprints[step.name], text, read, scrubbed and base])
            kind, depends_on[step.name] = (
                "map",
                text_depends_on.union(*(depends_on[h] for h in heads if h in depends_on)),
            )
            if step.rewrites:
                text, rewritten = storage.fingerprint([text, print_]), True
                text_depends_on = depends_on[step.name]
        after = tuple(sorted(depends_on[step.name])) if kind == "map" else ()
        prints[step.name] = print_
        if wanted:
            ops.append(PlannedOp(kind, step, position, (), print_, after))
            close(quantiles=wanted)
            ops.append(PlannedOp("rules", step, position, parsed, print_, after))
        else:
            ops.append(PlannedOp(kind, step, position, parsed, print_, after))
    if ops or not segments or segments[-1].then is not None:
        close()
    return segments


def resolve_ops(segment: Segment, values: Mapping[Quantile, Any], stores: Mapping[str, str]) -> tuple[Op, ...]:
    """The segment's ops with the values of quantiles in their rules and the names of their stores, now known."""
    return tuple(
        Op(
            op.kind,
            op.step,
            op.position,
            {r.name: rules.substitute(r, values) if r.quantiles else r.sql for r in op.rules},
            stores.get(op.step.name, op.store + store_suffix(op.after, stores)),
        )
        for op in segment.ops
    )


def store_suffix(steps: Sequence[str], stores: Mapping[str, str]) -> str:
    """The suffix of a store's name: of what was computed from signals of these global steps, a fingerprint of those."""
    return "-" + storage.fingerprint([stores[name] for name in steps])[:16] if steps else ""

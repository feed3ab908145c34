"""From a pipeline and its input to phases: what is fused, how input is cut into tasks, and what each is named.

The plan depends on the input and the configuration only, never on who will run it. Adjacent map steps form one
phase; a global step, or a rule that needs a quantile, ends it. Names of what is computed come from fingerprints:

- a step's *signals* from its code, options and models, and from the steps that rewrote the text before it;
- a task's *key* from its reader and its input (path, size, version), so that a changed file is another task;
- a task's *decision* from all of that and the rules, so that a changed rule decides again and computes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import xxhash

from curation import storage
from curation.config import rules
from curation.config.pipeline import Pipeline
from curation.config.rules import ParsedRule, Quantile
from curation.core.errors import UserError
from curation.engine.planning import fingerprint as identity
from curation.engine.planning import prior_run
from curation.engine.planning.map_spec import MapSpec, Op, Source
from curation.engine.tasks.input_rows import url_key
from curation.packing import mixing, shard_writer
from curation.step import GlobalStep, InputSplit, MapStep, Step

# Tasks of this size unless the pipeline says otherwise: small enough that 2 cores share the work evenly on a laptop's
# crawl, large enough that 4,096 tasks read 8 GB. Beyond that tasks grow by fours, so that they seldom change.
TASK_BYTES = 2 << 20
MAX_TASKS = 4096
MAX_TASK_BYTES = 512 << 20


@dataclass(frozen=True)
class PlannedOp:
    """An op whose rules may still hold quantiles to be computed."""

    kind: str
    step: Step
    position: int
    rules: tuple[ParsedRule, ...]
    fingerprint: str  # of the step's signals; for a global step, of the step alone
    after: tuple[str, ...] = ()  # global steps whose signals it looks at, itself or through other steps

    @property
    def store(self) -> str:
        return f"cache/signals/{self.step.name}-{self.fingerprint[:16]}"


@dataclass(frozen=True)
class Segment:
    """A map phase, and what ends it."""

    index: int
    ops: tuple[PlannedOp, ...]
    text_fingerprint: str | None  # of the text it stores; None if it stores none
    then: GlobalStep | None  # the global step after it
    quantiles: tuple[Quantile, ...]  # computed after it
    text_after: tuple[str, ...] = ()  # global steps whose signals went into the text

    @property
    def name(self) -> str:
        steps = [op.step.name if op.kind != "rules" else f"{op.step.name} rules" for op in self.ops]
        return ", ".join(["read", *steps] if self.index == 0 else steps) or "nothing"


@dataclass
class Plan:
    """Everything known before the first task runs."""

    pipeline: Pipeline
    segments: list[Segment]
    types: dict[str, pa.DataType]  # struct type of each step's signals
    scrubber: MapStep | None
    scrub_before: int
    sources: list[Source]
    files: list[list[storage.InputFile]]  # a list a source
    fingerprint: str  # of the whole run: equal means nothing to do
    base_fingerprint: str
    excluded_ids: Mapping[bytes, str | None]
    excluded_urls: Mapping[str, str | None]
    exclude_fingerprint: str
    step_fingerprints: dict[str, str] = field(default_factory=dict)
    pinned: dict[Quantile, Any] = field(default_factory=dict)  # quantiles of another run, not computed on this one's

    @property
    def input_bytes(self) -> int:
        return sum(f.size for files in self.files for f in files)


def make(pipeline: Pipeline, *, limit: int | None = None, sample: float | None = None) -> Plan:
    """Looks at the input, checks what only now can be checked, and names everything. Reads no input file.

    Raises UserError for a source without files, an absent model or list, a limit or sample that is none.
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
    own = {step.name: identity.step_fingerprint(step) for step in steps}
    scrubber, scrub_before = None, 0
    for position, step in enumerate(steps):
        if isinstance(step, MapStep) and step.scrubs:
            scrubber, scrub_before = step, position
            break
    environment = identity.environment_fingerprint()
    scrub = own[scrubber.name] if scrubber is not None else None
    base = storage.fingerprint([environment, scrub])
    sources = [Source(s.reader, s.root, s.collection, s.domain) for s in pipeline.sources]
    files = [_files(s.name, s.root, s.path) for s in pipeline.sources]
    ids, urls, exclude = _exclude_lists(pipeline.exclude)
    plan = Plan(
        pipeline, [], {s.name: pa.struct(list(s.signals)) for s in steps}, scrubber, scrub_before, sources, files, "",
        base, ids, urls, exclude, own,
    )  # fmt: skip
    plan.segments = _segments(plan, base)
    if pipeline.quantiles:
        plan.pinned = _pinned(pipeline.quantiles, plan.segments)
    plan.fingerprint = storage.fingerprint(
        {
            "pipeline": pipeline.resolved(),
            # the first rule that fails and the first group that holds decide: their order is none of JSON's
            "order": [[list(e.rules) for e in pipeline.steps], list(pipeline.mix.groups)],
            "steps": own,
            "engine": _engine_code(),
            "environment": environment,
            "files": [[(f.path, f.size, f.version) for f in listed] for listed in files],
            "exclude": exclude,
            "prior_run": [_prior_run(step, pipeline.seed) for step in steps],
            "quantiles": sorted([str(q), str(value)] for q, value in plan.pinned.items()),
            "limit": limit,
            "sample": sample,
            "tokenizer": _tokenizer_fingerprint(pipeline),
        }
    )
    return plan


def _prior_run(step: Step, seed: int) -> str | None:
    """Of what an earlier run left for this step, refused here if it is not there or not alike."""
    earlier = prior_run.load(step, seed) if isinstance(step, GlobalStep) else None
    return earlier.fingerprint if earlier is not None else None


def _engine_code() -> str:
    from curation.engine.runtime import run

    return identity.module_fingerprint(run.__file__)


def _files(name: str, root: str, path: str) -> list[storage.InputFile]:
    try:
        found = storage.list_inputs(root, path)
    except FileNotFoundError:
        raise UserError(f"source {name!r}: its root {root} does not exist") from None
    if not found:
        raise UserError(f"source {name!r} is empty: no file below {root} matches {path!r}")
    for file in found:
        try:
            file.path.encode()
        except UnicodeEncodeError:  # a document says which file it is from, and every column is UTF-8
            shown = file.path.encode("utf-8", "surrogateescape")
            raise UserError(
                f"source {name!r}: the name of the file {shown!r} below {root} is not UTF-8. Rename it, or leave it "
                f"out by another pattern than {path!r}."
            ) from None
    return found


def _pinned(path: str, segments: Sequence[Segment]) -> dict[Quantile, Any]:
    """The values of all quantiles that rules ask for, from the run.json of another run."""
    import json

    fs, inner = storage.filesystem(path)
    try:
        there = {
            Quantile(q["signal"], q["p"], q["by"]): q["value"] for q in json.loads(fs.cat_file(inner))["quantiles"]
        }
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"quantiles: {path} cannot be read as the run.json of a finished run ({type(e).__name__}: {e})"
        ) from None
    for segment in segments:
        for q in segment.quantiles:
            if q not in there:
                raise UserError(
                    f"quantiles: {path} has no {q}, which a rule of the step {segment.ops[-1].step.name} asks for; "
                    f"it has {', '.join(sorted(map(str, there))) or 'none'}. Pin from a run whose rules ask for it, or "
                    "take `quantiles` out."
                )
    return {q: there[q] for segment in segments for q in segment.quantiles}


def _tokenizer_fingerprint(pipeline: Pipeline) -> Any:
    path = pipeline.tokenizer.file if pipeline.tokenizer is not None else None
    return list(identity.file_checksums([path])) if path else None


def _exclude_lists(paths: Sequence[str]) -> tuple[dict[bytes, str | None], dict[str, str | None], str]:
    """The ids and URLs on exclude lists (JSONL: doc_id or url, reason, by) with what the first entry of each says,
    and a fingerprint of it all."""
    import json

    ids: dict[bytes, str | None] = {}
    urls: dict[str, str | None] = {}
    for path in paths:
        fs, inner = storage.filesystem(path)
        if not fs.exists(inner):
            raise UserError(f"the exclude list {path} does not exist (an empty file is a valid list)")
        with fs.open(inner, "rb") as f:
            for number, line in enumerate(f.read().splitlines(), 1):
                if not line.strip():
                    continue
                try:
                    entry = json.loads(line)
                    if entry.get("doc_id"):
                        (doc,) = struct.unpack("16s", bytes.fromhex(entry["doc_id"]))
                        ids.setdefault(doc, _why(entry))
                    else:
                        url_key(entry["url"])
                        urls.setdefault(entry["url"], _why(entry))
                except (ValueError, KeyError, AttributeError, TypeError, struct.error):
                    raise UserError(
                        f"{path}, line {number}: expected an object with `doc_id` (32 hexadecimal digits) or `url`, "
                        f"found {line[:80].decode(errors='replace')}"
                    ) from None
    return ids, urls, storage.fingerprint([sorted((i.hex(), w) for i, w in ids.items()), sorted(urls.items())])


def _why(entry: Mapping[str, Any]) -> str | None:
    """What an entry says of itself: `a spike (by training)`."""
    said = [str(entry[k]) if entry.get(k) else "" for k in ("reason", "by")]
    reason, by = (s.encode("utf-8", "replace").decode() for s in said)
    return f"{reason} (by {by})".lstrip() if by else reason or None


def _segments(plan: Plan, base: str) -> list[Segment]:
    segments: list[Segment] = []
    ops: list[PlannedOp] = []
    text = base  # grows with every step that rewrites text
    rewritten = True  # the first phase always stores text
    prints: dict[str, str] = {}
    # What a global step says of a document depends on all others, so its own fingerprint does not tell its signals:
    # what is made of those is named for them too, once they are known (see `bind`).
    looks_at: dict[str, set[str]] = {}
    text_behind: set[str] = set()

    def close(then: GlobalStep | None = None, quantiles: tuple[Quantile, ...] = ()) -> None:
        nonlocal ops, rewritten
        stored = storage.fingerprint([text, "text"]) if rewritten else None
        segments.append(Segment(len(segments), tuple(ops), stored, then, quantiles, tuple(sorted(text_behind))))
        ops, rewritten = [], False

    for position, entry in enumerate(plan.pipeline.steps):
        step = entry.step
        parsed = tuple(rules.parse(n, sql, f"steps.{step.name}.keep.{n}") for n, sql in entry.rules.items())
        wanted = tuple(dict.fromkeys(q for rule in parsed for q in rule.quantiles))
        if isinstance(step, GlobalStep):
            close(then=step)
            print_ = storage.fingerprint([plan.step_fingerprints[step.name], plan.pipeline.seed])
            kind, looks_at[step.name] = "join", {step.name}
            if step.rewrites:  # by its signals, which say what became of the text before it too
                text, rewritten = storage.fingerprint([text, print_]), True
                text_behind = {step.name}
        else:
            assert isinstance(step, MapStep)
            scrubbed = plan.scrubber is not None and position < plan.scrub_before
            heads = [r.partition(".")[0] for r in step.reads]
            read = [prints[h] for h in heads if h in prints]  # signals of earlier steps that it looks at
            print_ = storage.fingerprint([plan.step_fingerprints[step.name], text, read, scrubbed and base])
            kind, looks_at[step.name] = "map", text_behind.union(*(looks_at[h] for h in heads if h in looks_at))
            if step.rewrites:
                text, rewritten = storage.fingerprint([text, print_]), True
                text_behind = looks_at[step.name]
        after = tuple(sorted(looks_at[step.name])) if kind == "map" else ()
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


def target_bytes(plan: Plan) -> int:
    """Stored bytes that a task aims at."""
    return plan.pipeline.engine.task_bytes or task_bytes(plan.input_bytes)


def tasks(
    plan: Plan, *, limit: int | None = None, cuts: Mapping[tuple[int, str], list[InputSplit]] | None = None
) -> list[MapSpec]:
    """The input cut into tasks: large files split where that is exact, small ones grouped, in order of path.

    A task's splits are of one source. `cuts` are splits of large files, by (source, path). A group ends at a file whose
    own path says so, with a chance of its share of a task, and at twice a task's size: so a file that comes, goes or
    grows leaves the groups of all others alone but for a few beside it, where filling tasks up one after another would
    deal all files behind it anew. `limit` is spread over the tasks, so that a first look sees all of the input.
    """
    target = target_bytes(plan)
    specs: list[MapSpec] = []
    for number, (source, listed) in enumerate(zip(plan.sources, plan.files, strict=True)):
        reader = storage.fingerprint(
            [type(source.reader).__qualname__, identity.options(source.reader),
             identity.code_fingerprint(type(source.reader)), source.collection, source.domain, plan.base_fingerprint]
        )  # fmt: skip
        group: list[InputSplit] = []
        size = 0

        def end(number: int = number, reader: str = reader) -> None:
            nonlocal group, size
            if group:
                specs.append(MapSpec(len(specs), _key(reader, group), "", number, tuple(group)))
            group, size = [], 0

        for file in listed:
            whole = InputSplit(file.path, file.size, file.version)
            for split in (cuts or {}).get((number, file.path)) or _split(source, whole, target):
                length = (split.stop or file.size) - (split.start or 0) if split.stop or split.start else file.size
                if group and size + length > 2 * target:
                    end()
                group.append(split)
                size += length
                if split.start is not None or _ends_group(file.path, length / target):
                    end()
        end()
    if limit is not None:
        share = -(-limit // max(1, len(specs)))
        specs = [_limited(s, share) for s in specs]
    return specs


def _split(source: Source, whole: InputSplit, target: int) -> list[InputSplit]:
    try:
        return source.reader.split(whole, source.root, target)
    except (PermissionError, FileNotFoundError):
        return [whole]  # its task says that it cannot be read


def _ends_group(path: str, share: float) -> bool:
    return xxhash.xxh3_64_intdigest(path.encode("utf-8", "surrogateescape")) < share * 2.0**64


def task_bytes(total: int) -> int:
    """Bytes of input a task takes: TASK_BYTES, times four as often as it takes to stay within MAX_TASKS."""
    size = TASK_BYTES
    while total > size * MAX_TASKS and size < MAX_TASK_BYTES:
        size *= 4
    return size


def _key(reader: str, splits: Sequence[InputSplit]) -> str:
    parts = [(p.path, p.size, p.version, p.start, p.stop, dict(p.extra or {})) for p in splits]
    return storage.fingerprint([reader, parts])[:24]


def _limited(spec: MapSpec, share: int) -> MapSpec:
    import dataclasses

    return dataclasses.replace(spec, key=storage.fingerprint([spec.key, share])[:24], limit=share)


def bind(segment: Segment, values: Mapping[Quantile, Any], stores: Mapping[str, str]) -> tuple[Op, ...]:
    """The segment's ops with quantiles put in, and for global steps the store that their stages' result goes to."""
    return tuple(
        Op(
            op.kind,
            op.step,
            op.position,
            {r.name: rules.substitute(r, values) if r.quantiles else r.sql for r in op.rules},
            stores.get(op.step.name, op.store + behind(op.after, stores)),
        )
        for op in segment.ops
    )


def behind(steps: Sequence[str], stores: Mapping[str, str]) -> str:
    """What the name of a store ends with if what it holds was made of the signals of these global steps."""
    return "-" + storage.fingerprint([stores[name] for name in steps])[:16] if steps else ""

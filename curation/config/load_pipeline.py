"""Loads a pipeline file: YAML becomes a checked `Pipeline`, or an error that says where, what and what to do.

Everything is checked before any work starts: keys, types, steps, options, the SQL of rules and the signals they name,
and that nothing unscrubbed would be written. What comes out are plain values and ready steps; nothing below this file
looks at YAML again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from curation import document
from curation.config import rules
from curation.config.catalogue import READERS, STEPS
from curation.config.overrides import BESIDE_STEP, apply_overrides
from curation.config.pipeline import FILES, File, Mix, Pipeline, Source, SourceFile, StepEntry, Tokenizer
from curation.config.resources import ORDINARY, Resources
from curation.config.step_options import anchor, build, find_class, user_target
from curation.config.where_condition import limit_rule
from curation.core import yaml_lines
from curation.core.errors import UserError
from curation.core.packages import require
from curation.core.renamed_keys import PIPELINE_KEYS, refuse_renamed
from curation.core.schema import nearest, validate
from curation.core.yaml_lines import Path, YamlTree
from curation.step import GlobalStep, MapStep
from curation.storage import open_input, path_beside

_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")  # a name that is also a folder's
_SQL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # a name that SQL takes without quotes
_TAKEN = {*document.BASE.names, "read", "drop", "address", "to", "step", "rule", "value", "evidence"}


def load_pipeline(
    path: str,
    *,
    catalogue: Mapping[str, str | type] = STEPS,
    readers: Mapping[str, str | type] = READERS,
    sets: Sequence[str] = (),
) -> Pipeline:
    """Reads and checks a pipeline file (a path or any URL that fsspec knows). Raises UserError; does no work.

    catalogue, readers   word of the file -> class, or "module:Class" to import when it is used
    sets                 overrides such as "steps.language.keep.language=language.score > 0.9"
    """
    tree = yaml_lines.load(path, opener=partial(open_input, ""))
    apply_overrides(tree, sets)
    return _pipeline(path, tree, catalogue, readers)


def load_stored_pipeline(
    path: str,
    resolved: Mapping[str, Any],
    *,
    catalogue: Mapping[str, str | type] = STEPS,
    readers: Mapping[str, str | type] = READERS,
) -> Pipeline:
    """The pipeline that a run directory stores.

    path      the file it was read from, which may be gone: relative paths are relative to its folder
    resolved  what the run's pipeline.yaml holds, see `Pipeline.resolved`
    """
    steps = []
    for entry in resolved["steps"]:
        cls = find_class(entry["step"], catalogue, YamlTree(path, {}), (), "step")
        own = build(cls, entry["options"], YamlTree(path, {}), (), entry["name"]).rules()
        needs = {"resources": entry["resources"]} if "resources" in entry else {}
        steps.append({entry["step"]: entry["options"], "keep": dict.fromkeys(own) | entry["rules"], **needs})
    return _pipeline(path, YamlTree(path, {**resolved, "steps": steps}), catalogue, readers)


def _pipeline(
    path: str, tree: YamlTree, catalogue: Mapping[str, str | type], readers: Mapping[str, str | type]
) -> Pipeline:
    if not isinstance(tree.root, dict):
        raise UserError(f"{path}: is not a mapping of keys\n  expected the keys {', '.join(File.model_fields)}")
    written = tree.root.get("steps")
    without_options = (
        [("steps", i, s) for i, s in enumerate(written) if isinstance(s, str)] if isinstance(written, list) else []
    )
    refuse_renamed(tree, PIPELINE_KEYS, without_options)
    top = validate(File, tree.root, tree)
    name = top.name or re.sub(r"\.ya?ml$", "", path.rpartition("/")[2])
    _check_name(name, tree, ("name",), "a pipeline's name")
    sources = tuple(_source(i, tree, readers) for i in range(len(top.sources)))
    _check_unique([(s.name, ("sources", i, "name")) for i, s in enumerate(sources)], tree, "source")
    steps = _steps(tree, catalogue, top.store_raw)
    _check_mix(top.mix, sources, steps, tree)
    return Pipeline(
        file=path,
        name=name,
        seed=top.seed,
        sources=sources,
        exclude=tuple(path_beside(path, x) for x in top.exclude),
        steps=steps,
        mix=top.mix,
        tokenizer=_tokenizer(top.tokenizer, tree),
        shards=top.shards,
        validation=top.validation,
        retention=top.retention,
        store_raw=top.store_raw,
        quantiles=path_beside(path, top.quantiles) if top.quantiles else None,
        engine=top.engine,
        tree=tree,
    )


def _tokenizer(tokenizer: Tokenizer | None, tree: YamlTree) -> Tokenizer | None:
    """The section checked, its paths relative to the file's folder."""
    if tokenizer is None:
        return None
    given = [k for k in ("train", *FILES) if getattr(tokenizer, k) is not None]
    if len(given) != 1:
        raise UserError(
            f"{tree.where('tokenizer')}: has {' and '.join(given) or 'none'} of train, "
            f"{', '.join(FILES[:-1])} and {FILES[-1]}\n  expected exactly one of them"
        )
    if tokenizer.train is not None and tokenizer.eos is not None:
        where = tree.where("tokenizer", "eos")
        raise UserError(f"{where}: a trained tokenizer has an end-of-text token of its own\n  remove `eos`")
    needed = ["sentencepiece"] if tokenizer.sentencepiece is not None else ["tokenizers", "tiktoken"]
    require(f"{tree.where('tokenizer')}: tokenizer", needed)
    paths = {k: path_beside(tree.file, v) for k in FILES if (v := getattr(tokenizer, k)) is not None}
    return tokenizer.model_copy(update=paths)


def _check_name(name: str, tree: YamlTree, path: Path, what: str) -> None:
    if not _SAFE.fullmatch(name):
        raise UserError(
            f"{tree.where(*path)}: is {name!r}, which cannot be {what}\n"
            "  expected letters, digits, '.', '_' and '-', not starting with '.': it names a folder"
        )


def _check_unique(names: Sequence[tuple[str, Path]], tree: YamlTree, what: str) -> None:
    seen: dict[str, Path] = {}
    for name, path in names:
        if name in seen:
            raise UserError(
                f"{tree.where(*path)}: a second {what} named {name!r}\n"
                f"  the first is at {tree.where(*seen[name])}; give one of them another `name`"
            )
        seen[name] = path


def _source(i: int, tree: YamlTree, readers: Mapping[str, str | type]) -> Source:
    written = tree.root["sources"][i]
    path: Path = ("sources", i)
    base = validate(SourceFile, {k: v for k, v in written.items() if k in SourceFile.model_fields}, tree, path)
    _check_name(base.name, tree, (*path, "name"), "a source's name")
    domain = base.domain or base.name
    _check_name(domain, tree, (*path, "domain"), "a domain")
    cls = find_class(base.read, readers, tree, (*path, "read"), "reader")
    options = {k: v for k, v in written.items() if k not in SourceFile.model_fields}
    reader = build(cls, options, tree, path, f"the source {base.name!r} (read: {base.read})")
    packages = reader.packages() if hasattr(reader, "packages") else ()
    require(f"{tree.where(*path, 'read')}: reader {base.read}", packages)
    return Source(
        name=base.name,
        domain=domain,
        collection=base.collection or base.name,
        read=base.read,
        root=path_beside(tree.file, base.root),
        path=base.path,
        reader=reader,
        written={
            **base.model_dump(exclude_none=True),
            "domain": domain,
            "collection": base.collection or base.name,
            **options,
        },
    )


def _check_mix(mix: Mix, sources: Sequence[Source], steps: Sequence[StepEntry], tree: YamlTree) -> None:
    available = rules.flatten(pa.schema([*document.BASE, pa.field("read", document.READ)]))
    available |= {f"{e.name}.{s.name}": s.type for e in steps for s in e.step.signals}
    for name, sql in mix.groups.items():
        where = tree.where("mix", "groups", name)
        _check_name(name, tree, ("mix", "groups", name), "a group's name")
        rules.check_columns(rules.parse(name, sql, where), available)
    if mix.weights == "natural":
        return
    domains = {s.domain for s in sources} | set(mix.groups)
    for domain in mix.weights:
        if domain not in domains:
            where = tree.where("mix", "weights", domain)
            raise UserError(f"{where}: no source has the domain {domain!r}\n  {nearest(domain, domains)}")
    if not math.fsum(mix.weights.values()) > 0:
        raise UserError(f"{tree.where('mix', 'weights')}: all weights are 0\n  expected at least one above 0")


def _steps(tree: YamlTree, catalogue: Mapping[str, str | type], store_raw: bool) -> tuple[StepEntry, ...]:
    entries: list[StepEntry] = []
    available = rules.flatten(pa.schema([*document.BASE, pa.field("read", document.READ)]))
    places: list[tuple[str, Path]] = []
    columns = {*document.BASE.names, "read"}
    for i, item in enumerate(tree.root.get("steps") or []):
        entry, path = _step(i, item, tree, catalogue)
        places.append((entry.name, path))
        _check_unique(places, tree, "step")
        for column in entry.step.reads:
            if column not in columns:
                raise UserError(
                    f"{tree.where(*path)}: {entry.name} reads {column!r}, which no earlier step computes\n"
                    f"  put the step {column!r} before it"
                )
        if isinstance(entry.step, GlobalStep):
            for name, sql in entry.step.expressions().items():
                option = (*path, name.removeprefix("@"))
                rules.check_columns(rules.parse(name, sql, tree.where(*option)), available, any_type=True)
        columns.add(entry.name)
        for signal in entry.step.signals:
            available[f"{entry.name}.{signal.name}"] = signal.type
        for rule in entry.parsed:
            rules.check_columns(rule, available)
        entries.append(entry)
    if not store_raw:
        _check_scrubbed(entries)
    return tuple(entries)


def _step(i: int, item: Any, tree: YamlTree, catalogue: Mapping[str, str | type]) -> tuple[StepEntry, Path]:
    entry = {item: None} if isinstance(item, str) else item
    kinds = [k for k in entry if k not in BESIDE_STEP] if isinstance(entry, dict) else []
    if len(kinds) != 1:
        got = f"the keys {', '.join(kinds)}" if kinds else repr(item)
        raise UserError(
            f"{tree.where('steps', i)}: is {got}\n"
            "  expected one step with its options, such as `language: {model: lid.176}`; only `keep:`, `where:` and "
            "`resources:` may follow it"
        )
    kind = kinds[0]
    path: Path = ("steps", i, kind)
    cls = find_class(kind, catalogue, tree, path, "step")
    if not issubclass(cls, (MapStep, GlobalStep)):
        raise UserError(
            f"{tree.where(*path)}: {cls.__name__} is not a step\n  expected a subclass of MapStep or GlobalStep"
        )
    options = entry[kind] or {}
    if not isinstance(options, dict):
        raise UserError(f"{tree.where(*path)}: is {options!r}\n  expected the step's options as a mapping")
    step = build(cls, options, tree, path, f"the step {kind!r}")
    if not _SQL_NAME.fullmatch(step.name) or step.name in _TAKEN:
        raise UserError(
            f"{tree.where(*path, 'name')}: a step cannot be named {step.name!r}\n"
            f"  expected letters, digits and '_' (rules name it in SQL), and none of {', '.join(sorted(_TAKEN))}"
        )
    try:
        step = anchor(step, step.inputs(), tree.file, must_exist=False)
        step = anchor(step, step.models(), tree.file, must_exist=True)
        if isinstance(step, GlobalStep) and step.prior_run is not None:
            step = anchor(step, [step.prior_run], tree.file, must_exist=False)
        require(f"step {step.name}", step.packages())
        step.check()  # after its paths are anchored: a check may look at its files
    except UserError as error:
        raise UserError(f"{tree.where(*path)}: {error}") from None
    keep = _where(i, _keep(i, kind, step, entry.get("keep"), tree), entry.get("where"), tree)
    parsed = tuple(rules.parse(n, sql, tree.where("steps", i, "keep", n)) for n, sql in keep.items())
    target = user_target(kind, tree.file) if kind not in catalogue else f"{cls.__module__}:{cls.__qualname__}"
    needs = validate(Resources, entry.get("resources") or {}, tree, ("steps", i, "resources"))
    return StepEntry(step, kind, target, keep, parsed, options, tree.where(*path).split(": ")[0], needs), path


def _keep(i: int, kind: str, step: MapStep | GlobalStep, given: Any, tree: YamlTree) -> dict[str, str]:
    """The step's own rules with the file's laid over them; null removes one."""
    merged = dict(step.rules())
    if given is None:
        return merged
    if not isinstance(given, dict):
        where = tree.where("steps", i, "keep")
        raise UserError(f'{where}: is {given!r}\n  expected rules by name: {{{step.name}: "SQL"}}')
    for name, sql in given.items():
        where = tree.where("steps", i, "keep", name)
        if sql is None:
            if name not in merged:
                raise UserError(f"{where}: {kind} has no rule {name!r} to remove\n  {nearest(name, merged)}")
            del merged[name]
        elif isinstance(sql, str):
            merged[name] = sql
        else:
            raise UserError(f"{where}: is {sql!r}\n  expected SQL in quotes, or null to remove the rule")
    return merged


def _where(i: int, keep: dict[str, str], condition: Any, tree: YamlTree) -> dict[str, str]:
    """The rules, limited to documents for which the SQL of `where:` is TRUE; all others pass."""
    if condition is None:
        return keep
    where = tree.where("steps", i, "where")
    if not isinstance(condition, str):
        raise UserError(f"{where}: is {condition!r}\n  expected SQL in quotes, such as \"domain = 'web'\"")
    rules.parse("where", condition, where)
    for name, sql in keep.items():  # each by itself: what is no expression alone may be one inside of another
        rules.parse(name, sql, tree.where("steps", i, "keep", name))
    return {name: limit_rule(sql, condition) for name, sql in keep.items()}


def _check_scrubbed(entries: Sequence[StepEntry]) -> None:
    """Raises UserError where text would be stored unscrubbed: a phase ends, and stores its documents, at a global step,
    after a quantile and before a step with `resources`, so the scrubbing step has to come before."""
    scrubber = next((i for i, e in enumerate(entries) if isinstance(e.step, MapStep) and e.step.scrubs), None)
    if scrubber is None:
        return
    for i, e in enumerate(entries[: scrubber + 1]):
        if e.resources != ORDINARY:  # a phase of its own, after one that reads and stores
            raise UserError(
                f"{e.line}: {e.name} has `resources`, and so does not run in the tasks that read: text would be stored "
                f"before {entries[scrubber].name} has scrubbed it\n  remove them, "
                + ("" if i == scrubber else f"put {entries[scrubber].name} before {e.name}, ")
                + "or set store_raw: true"
            )
        ends = isinstance(e.step, GlobalStep) or any(r.quantiles for r in e.parsed)
        if ends and i < scrubber:
            why = "needs all documents" if isinstance(e.step, GlobalStep) else "has a rule with a quantile"
            raise UserError(
                f"{e.line}: {e.name} {why}, so text would be stored before {entries[scrubber].name} has scrubbed it\n"
                f"  put {entries[scrubber].name} before {e.name}, or set store_raw: true"
            )

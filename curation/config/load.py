"""The pipeline file: from YAML to validated values, or to an error that names file, line, key and what was expected.

Everything is checked before any work starts: keys, types, steps, options, the SQL of rules and the signals they name,
and that nothing unscrubbed would be written. What comes out are plain values and ready steps; nothing below this file
looks at YAML again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from curation import document
from curation.config import rules
from curation.config.pipeline import FILES, File, Mix, Pipeline, Source, SourceFile, StepEntry
from curation.config.step_options import anchor, build, find_class, nearest, user_target
from curation.core import yaml_lines as yaml_file
from curation.core.errors import UserError
from curation.core.packages import require
from curation.core.renamed_keys import PIPELINE_KEYS, renamed
from curation.core.yaml_lines import Located
from curation.step import GlobalStep, MapStep

_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")  # a name that is also a folder's
_SQL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # a name that SQL takes without quotes
_BESIDE = ("keep", "where")  # keys that stand beside a step's name
_TAKEN = {*document.BASE.names, "read", "drop", "address", "to", "step", "rule", "value", "evidence"}


def load(
    path: str,
    *,
    catalogue: Mapping[str, str | type],
    readers: Mapping[str, str | type],
    sets: Sequence[str] = (),
) -> Pipeline:
    """Reads and checks a pipeline file, with `a.b=c` overrides laid over it. Raises UserError, and does no work.

    catalogue, readers   word -> class, or "module:Class" to import when it is used
    """
    located = yaml_file.load(path)
    yaml_file.override(located, sets)
    return _pipeline(path, located, catalogue, readers)


def stored(
    path: str, resolved: Mapping[str, Any], *, catalogue: Mapping[str, str | type], readers: Mapping[str, str | type]
) -> Pipeline:
    """The pipeline that a run directory holds, resolved, as it was read from the file at `path`, which may be gone."""
    steps = []
    for entry in resolved["steps"]:
        cls = find_class(entry["step"], catalogue, Located(path, {}), (), "step")
        own = build(cls, entry["options"], Located(path, {}), (), entry["name"]).rules()
        steps.append({entry["step"]: entry["options"], "keep": dict.fromkeys(own) | entry["rules"]})
    return _pipeline(path, Located(path, {**resolved, "steps": steps}), catalogue, readers)


def _pipeline(
    path: str, located: Located, catalogue: Mapping[str, str | type], readers: Mapping[str, str | type]
) -> Pipeline:
    if not isinstance(located.tree, dict):
        raise UserError(f"{path}: holds no mapping\n  expected the keys {', '.join(File.model_fields)}")
    _refuse_renamed(located)
    top = _validate(File, located.tree, located, ())
    name = top.name or re.sub(r"\.ya?ml$", "", path.rpartition("/")[2])
    _check_name(name, located, ("name",), "a pipeline's name")
    sources = tuple(_source(i, located, readers) for i in range(len(top.sources)))
    _check_unique([(s.name, ("sources", i, "name")) for i, s in enumerate(sources)], located, "source")
    steps = _steps(located, catalogue, top.store_raw)
    _check_mix(top.mix, sources, steps, located)
    tokenizer = top.tokenizer
    if tokenizer is not None:
        given = [k for k in ("train", *FILES) if getattr(tokenizer, k) is not None]
        if len(given) != 1:
            raise UserError(
                f"{located.where('tokenizer')}: has {' and '.join(given) or 'none'} of train, "
                f"{', '.join(FILES[:-1])} and {FILES[-1]}\n  expected exactly one of them"
            )
        if tokenizer.train is not None and tokenizer.eos is not None:
            where = located.where("tokenizer", "eos")
            raise UserError(f"{where}: a trained tokenizer has an end-of-text token of its own\n  take `eos` out")
        kind = "sentencepiece" if tokenizer.sentencepiece is not None else "tokenizers"
        try:
            require("tokenizer", [kind] if kind == "sentencepiece" else [kind, "tiktoken"])
        except UserError as error:
            raise UserError(f"{located.where('tokenizer')}: {error}") from None
        moved = {k: yaml_file.beside(path, v) for k in FILES if (v := getattr(tokenizer, k)) is not None}
        tokenizer = tokenizer.model_copy(update=moved)
    return Pipeline(
        file=path,
        name=name,
        seed=top.seed,
        sources=sources,
        exclude=tuple(yaml_file.beside(path, x) for x in top.exclude),
        steps=steps,
        mix=top.mix,
        tokenizer=tokenizer,
        shards=top.shards,
        validation=top.validation,
        retention=top.retention,
        store_raw=top.store_raw,
        quantiles=yaml_file.beside(path, top.quantiles) if top.quantiles else None,
        engine=top.engine,
        places=located,
    )


def _refuse_renamed(located: Located) -> None:
    """Raises UserError that names every old key of the file and what replaced it."""
    paths = [*located.places, *(("steps", item) for item in located.tree.get("steps") or () if isinstance(item, str))]
    found = [(path, message) for path in paths if (message := renamed(path, PIPELINE_KEYS))]
    if found:
        raise UserError("\n".join(f"{located.where(*path)}: {message}" for path, message in found))


def _validate(model: type[Any], value: Any, located: Located, path: yaml_file.Path) -> Any:
    """The model of a value; pydantic's errors in the file's own words, all of them at once."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        said: dict[str, list[str]] = {}
        for e in error.errors():
            at: yaml_file.Path = path
            names: Any = model.model_fields
            tree = value
            for part in e["loc"]:
                if (isinstance(tree, dict) and part in tree) or (isinstance(tree, list) and isinstance(part, int)):
                    at, tree = (*at, part), tree[part]  # type: ignore[index]
            where = located.where(*at)
            if e["type"] == "extra_forbidden":
                names = _keys(model, e["loc"][:-1])
                said[f"{where}: unknown key {e['loc'][-1]!r}"] = [nearest(str(e["loc"][-1]), names)]
            elif e["type"] == "missing":
                said[f"{where}: {e['loc'][-1]!r} is missing"] = ["expected it here"]
            else:
                said.setdefault(f"{where}: is {e['input']!r}", []).append(_expected(e["msg"]))
        text = "\n".join(f"{where}\n  {_either(expected)}" for where, expected in said.items())
        raise UserError(text) from None


def _either(expected: Sequence[str]) -> str:
    first, *others = dict.fromkeys(expected)
    return " or ".join([first, *(o.removeprefix("expected ") for o in others)])


def _expected(message: str) -> str:
    return "expected " + message.removeprefix("Input should be ").removeprefix("a valid ")


def _keys(model: Any, loc: Sequence[int | str]) -> list[str]:
    """The keys a model of the file has below a path of keys."""
    for part in loc:
        annotation = model.model_fields[str(part)].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)


def _check_name(name: str, located: Located, path: yaml_file.Path, what: str) -> None:
    if not _SAFE.fullmatch(name):
        raise UserError(
            f"{located.where(*path)}: is {name!r}, which cannot be {what}\n"
            "  expected letters, digits, '.', '_' and '-', the first no '.': it names a folder"
        )


def _check_unique(names: Sequence[tuple[str, yaml_file.Path]], located: Located, what: str) -> None:
    seen: dict[str, yaml_file.Path] = {}
    for name, path in names:
        if name in seen:
            raise UserError(
                f"{located.where(*path)}: a second {what} named {name!r}\n"
                f"  the first is at {located.where(*seen[name])}; give one of them another `name`"
            )
        seen[name] = path


def _source(i: int, located: Located, readers: Mapping[str, str | type]) -> Source:
    written = located.tree["sources"][i]
    path: yaml_file.Path = ("sources", i)
    base = _validate(SourceFile, {k: v for k, v in written.items() if k in SourceFile.model_fields}, located, path)
    _check_name(base.name, located, (*path, "name"), "a source's name")
    domain = base.domain or base.name
    _check_name(domain, located, (*path, "domain"), "a domain")
    cls = find_class(base.read, readers, located, (*path, "read"), "reader")
    options = {k: v for k, v in written.items() if k not in SourceFile.model_fields}
    reader = build(cls, options, located, path, f"the source {base.name!r} (read: {base.read})")
    try:
        require(f"reader {base.read}", reader.packages() if hasattr(reader, "packages") else ())
    except UserError as error:
        raise UserError(f"{located.where(*path, 'read')}: {error}") from None
    return Source(
        name=base.name,
        domain=domain,
        collection=base.collection or base.name,
        read=base.read,
        root=yaml_file.beside(located.file, base.root),
        path=base.path,
        reader=reader,
        written={
            **base.model_dump(exclude_none=True),
            "domain": domain,
            "collection": base.collection or base.name,
            **options,
        },
    )


def _check_mix(mix: Mix, sources: Sequence[Source], steps: Sequence[StepEntry], located: Located) -> None:
    available = rules.flatten(pa.schema([*document.BASE, pa.field("read", document.READ)]))
    available |= {f"{e.name}.{s.name}": s.type for e in steps for s in e.step.signals}
    for name, sql in mix.groups.items():
        where = located.where("mix", "groups", name)
        _check_name(name, located, ("mix", "groups", name), "a group's name")
        rules.check_columns(rules.parse(name, sql, where), available)
    if mix.weights == "natural":
        return
    domains = {s.domain for s in sources} | set(mix.groups)
    for domain in mix.weights:
        if domain not in domains:
            where = located.where("mix", "weights", domain)
            raise UserError(f"{where}: no source has the domain {domain!r}\n  {nearest(domain, domains)}")
    if not math.fsum(mix.weights.values()) > 0:
        raise UserError(f"{located.where('mix', 'weights')}: all weights are 0\n  expected one above 0 at least")


def _steps(located: Located, catalogue: Mapping[str, str | type], store_raw: bool) -> tuple[StepEntry, ...]:
    entries: list[StepEntry] = []
    available = rules.flatten(pa.schema([*document.BASE, pa.field("read", document.READ)]))
    places: list[tuple[str, yaml_file.Path]] = []
    columns = {*document.BASE.names, "read"}
    for i, item in enumerate(located.tree.get("steps") or []):
        entry, path = _step(i, item, located, catalogue)
        places.append((entry.name, path))
        _check_unique(places, located, "step")
        for column in entry.step.reads:
            if column not in columns:
                raise UserError(
                    f"{located.where(*path)}: {entry.name} reads {column!r}, which no step before it gives\n"
                    f"  put the step {column!r} before it"
                )
        if isinstance(entry.step, GlobalStep):
            for name, sql in entry.step.expressions().items():
                option = (*path, name.removeprefix("@"))
                rules.check_columns(rules.parse(name, sql, located.where(*option)), available, any_type=True)
        columns.add(entry.name)
        for signal in entry.step.signals:
            available[f"{entry.name}.{signal.name}"] = signal.type
        for rule in entry.parsed:
            rules.check_columns(rule, available)
        entries.append(entry)
    if not store_raw:
        _check_scrubbed(entries)
    return tuple(entries)


def _step(i: int, item: Any, located: Located, catalogue: Mapping[str, str | type]) -> tuple[StepEntry, yaml_file.Path]:
    entry = {item: None} if isinstance(item, str) else item
    kinds = [k for k in entry if k not in _BESIDE] if isinstance(entry, dict) else []
    if len(kinds) != 1:
        got = f"the keys {', '.join(kinds)}" if kinds else repr(item)
        raise UserError(
            f"{located.where('steps', i)}: is {got}\n"
            "  expected one step with its options, such as `language: {model: lid.176}`; only `keep:` and `where:` may "
            "follow it"
        )
    kind = kinds[0]
    path: yaml_file.Path = ("steps", i, kind)
    cls = find_class(kind, catalogue, located, path, "step")
    if not issubclass(cls, (MapStep, GlobalStep)):
        raise UserError(
            f"{located.where(*path)}: {cls.__name__} is no step\n  expected a subclass of MapStep or GlobalStep"
        )
    options = entry[kind] or {}
    if not isinstance(options, dict):
        raise UserError(f"{located.where(*path)}: is {options!r}\n  expected the step's options as a mapping")
    step = build(cls, options, located, path, f"the step {kind!r}")
    if not _SQL_NAME.fullmatch(step.name) or step.name in _TAKEN:
        raise UserError(
            f"{located.where(*path, 'name')}: a step cannot be named {step.name!r}\n"
            f"  expected letters, digits and '_' (rules name it in SQL), and none of {', '.join(sorted(_TAKEN))}"
        )
    try:
        step = anchor(step, step.inputs(), located.file, must_exist=False)
        step = anchor(step, step.models(), located.file, must_exist=True)
        if isinstance(step, GlobalStep) and step.prior_run is not None:
            step = anchor(step, [step.prior_run], located.file, must_exist=False)
        require(f"step {step.name}", step.packages())
        step.check()  # after its paths are anchored: a check may look at its files
    except UserError as error:
        raise UserError(f"{located.where(*path)}: {error}") from None
    keep = _where(i, _keep(i, kind, step, entry.get("keep"), located), entry.get("where"), located)
    parsed = tuple(rules.parse(n, sql, located.where("steps", i, "keep", n)) for n, sql in keep.items())
    target = user_target(kind, located.file) if kind not in catalogue else f"{cls.__module__}:{cls.__qualname__}"
    return StepEntry(step, kind, target, keep, parsed, options, located.where(*path).split(": ")[0]), path


def _keep(i: int, kind: str, step: MapStep | GlobalStep, given: Any, located: Located) -> dict[str, str]:
    """The step's own rules with the file's laid over them; null takes one away."""
    merged = dict(step.rules())
    if given is None:
        return merged
    if not isinstance(given, dict):
        where = located.where("steps", i, "keep")
        raise UserError(f'{where}: is {given!r}\n  expected rules by name: {{{step.name}: "SQL"}}')
    for name, sql in given.items():
        where = located.where("steps", i, "keep", name)
        if sql is None:
            if name not in merged:
                raise UserError(f"{where}: {kind} has no rule {name!r} to take away\n  {nearest(name, merged)}")
            del merged[name]
        elif isinstance(sql, str):
            merged[name] = sql
        else:
            raise UserError(f"{where}: is {sql!r}\n  expected SQL in quotes, or null to take the rule away")
    return merged


def _where(i: int, keep: dict[str, str], condition: Any, located: Located) -> dict[str, str]:
    """The rules, asked of those documents only for which the SQL of `where:` is TRUE; all others pass."""
    if condition is None:
        return keep
    where = located.where("steps", i, "where")
    if not isinstance(condition, str):
        raise UserError(f"{where}: is {condition!r}\n  expected SQL in quotes, such as \"domain = 'web'\"")
    rules.parse("where", condition, where)
    return {name: f"NOT coalesce(({condition}), FALSE) OR ({sql})" for name, sql in keep.items()}


def _check_scrubbed(entries: Sequence[StepEntry]) -> None:
    """A phase ends at a global step and after a quantile, and what it held is then stored: pii has to come before."""
    scrubber = next((i for i, e in enumerate(entries) if isinstance(e.step, MapStep) and e.step.scrubs), None)
    for e in entries[: scrubber or 0]:
        ends = isinstance(e.step, GlobalStep) or any(r.quantiles for r in e.parsed)
        if ends and scrubber is not None:
            why = "needs all documents" if isinstance(e.step, GlobalStep) else "has a rule with a quantile"
            raise UserError(
                f"{e.line}: {e.name} {why}, so text would be stored before {entries[scrubber].name} has scrubbed it\n"
                f"  put {entries[scrubber].name} before {e.name}, or set store_raw: true"
            )

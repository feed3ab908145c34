"""Defines the schema of a pipeline file, and `Pipeline`, the checked result that the engine runs.

`load_pipeline` makes a `Pipeline` from a file; nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from curation.config.resources import ORDINARY, Resources
from curation.config.rules import ParsedRule
from curation.config.where_condition import limit_rule
from curation.core.schema import Section
from curation.core.yaml_lines import Path, YamlTree, escape_variables, lay_references
from curation.step import GlobalStep, MapStep, Reader


class Mix(Section):
    """Share of each domain in the training tokens: weights, or `natural` (in proportion to the tokens of each)."""

    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | Literal["natural"] = "natural"
    budget: Annotated[int, Field(gt=0)] | None = None  # tokens in all; null: everything once
    # how often a document may be read, in trainings too; null: once if there is a budget, else as often as they like
    max_epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    groups: dict[str, str] = Field(
        default_factory=dict
    )  # name -> SQL: documents for which it is TRUE have this domain, the first one's
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0  # above 1: small domains weigh more
    shortfall: Literal["refuse", "redistribute"] = "refuse"  # a domain that lacks tokens for its share


class TrainTokenizer(Section):
    """A tokenizer trained on a sample of the curated text."""

    kind: Literal["bpe"] = "bpe"
    vocab: Annotated[int, Field(ge=257, le=1 << 20)] = 32768  # 256 bytes and EOS at the least
    sample_bytes: Annotated[int, Field(gt=0)] = 200_000_000


FILES = ("path", "tiktoken", "sentencepiece")  # keys of a tokenizer that name a file


class Tokenizer(Section):
    """Exactly one of these: train one, or load a tokenizer.json, a tiktoken file or a SentencePiece model; `eos` names
    the end-of-text token of a loaded tokenizer, if it is not one of the usual names."""

    train: TrainTokenizer | None = None
    path: str | None = None
    tiktoken: str | None = None
    sentencepiece: str | None = None
    eos: str | None = None

    @property
    def file(self) -> str | None:
        """The file to load; its kind is recognised by its content."""
        return self.path or self.tiktoken or self.sentencepiece


class Shards(Section):
    """How shards are cut."""

    tokens_per_shard: Annotated[int, Field(gt=0, le=1 << 30)] = 50_000_000


class Engine(Section):
    """Sizes of tasks and batches, on which the result does not depend, and the CPU level, on which it does."""

    task_bytes: Annotated[int, Field(ge=1 << 10)] | None = (
        None  # target size of a task, in stored bytes; null: by the input's size
    )
    batch_rows: Annotated[int, Field(gt=0, le=1 << 16)] = 8192  # documents a step sees at once at the most
    # what all machines of the run have and none goes beyond (core/cpu_level.py); null: all must be like the driver's
    cpu_level: Literal["x86-64-v2", "x86-64-v3", "x86-64-v4"] | None = None


class File(Section):
    """The top level of a pipeline file."""

    name: str | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 17
    sources: Annotated[list[dict[str, Any]], Field(min_length=1)]
    exclude: list[str] = Field(default_factory=list)
    steps: list[Any] = Field(default_factory=list)
    mix: Mix = Mix()
    tokenizer: Tokenizer | None = None
    shards: Shards = Shards()
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.01
    retention: Literal["all", "kept", "none"] = "all"
    store_raw: bool = False
    quantiles: str | None = None
    engine: Engine = Engine()


class SourceFile(Section):
    """What every source has; the other keys are options of its reader."""

    name: str
    read: str
    path: str
    root: str = "."
    domain: str | None = None
    collection: str | None = None
    licence: str | None = None  # for the data card: an SPDX name or a sentence
    origin: str | None = None  # for the data card: where the files are from


@dataclass(frozen=True)
class Source:
    """Files of one kind that become documents of one domain."""

    name: str
    domain: str
    collection: str
    read: str  # the reader's word in the catalogue
    root: str  # absolute, or a URL
    path: str  # glob below the root
    reader: Reader
    written: Mapping[str, Any]  # as in the file


@dataclass(frozen=True)
class StepEntry:
    """A step of the pipeline, its options checked, and the rules that hold after it."""

    step: MapStep | GlobalStep
    kind: str  # the word in the file
    target: str  # "module:Class" or "/path/file.py:Class", for `step_options.load_class` on another machine
    rules: Mapping[str, str]  # name -> SQL, in the order in which they are evaluated
    parsed: tuple[ParsedRule, ...]
    options: Mapping[str, Any]  # as in the file
    line: str  # file:line
    resources: Resources = ORDINARY  # of a task that runs it

    @property
    def name(self) -> str:
        return self.step.name


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file, checked."""

    file: str
    name: str
    seed: int
    sources: tuple[Source, ...]
    exclude: tuple[str, ...]  # absolute paths or URLs
    steps: tuple[StepEntry, ...]
    mix: Mix
    tokenizer: Tokenizer | None
    shards: Shards
    validation: float
    retention: Literal["all", "kept", "none"]
    store_raw: bool
    quantiles: str | None
    engine: Engine
    tree: YamlTree

    def stored(self) -> dict[str, Any]:
        """What pipeline.yaml holds: `resolved`, with `${VAR}` where a string in the file has it. Names are as they are,
        because folders and ledger rows are called by them, and so is the licence."""
        references: dict[Path, str] = {}
        for path, text in self.tree.references.items():
            match path:
                case ("name",) | ("sources", int(), "name" | "domain" | "collection" | "licence"):
                    continue
                case ("steps", int(), "keep" | "where", *_):
                    continue  # below: a rule is stored with the condition that limits it
                case ("steps", int(), "resources", *_):
                    references[path] = text
                case ("steps", int(i), _, *below):
                    references["steps", i, "options", *below] = text
                case _:
                    references[path] = text
        for i, entry in enumerate(self.steps):
            at: Path = ("steps", i)
            condition = self.tree.references.get((*at, "where"))
            for name, sql in entry.rules.items():
                rule = self.tree.references.get((*at, "keep", name))
                if condition is not None or rule is not None:
                    references[*at, "rules", name] = self._written_rule(i, name, sql, rule, condition)
        stored: dict[str, Any] = lay_references(self.resolved(), references)
        return stored

    def _written_rule(self, i: int, name: str, sql: str, rule: str | None, condition: str | None) -> str:
        """A rule as it is stored, with `${VAR}` in it. `rule`, `condition`: their texts in the file, where those have
        it."""
        written = self.tree.root["steps"][i]
        where = condition or escape_variables(written.get("where") or "")
        alone = (written.get("keep") or {}).get(name) or dict(self.steps[i].step.rules()).get(name) or sql
        rule = rule or escape_variables(alone)
        return limit_rule(rule, where) if where else rule

    def resolved(self) -> dict[str, Any]:
        """Plain data with every default and override in place. Paths are as in the file, so that a pipeline moved
        to another folder is the same one."""
        paths = self.tree.root.get("tokenizer") or {}
        written_tokenizer = {k: paths[k] for k in FILES if paths.get(k)}
        return {
            "name": self.name,
            "seed": self.seed,
            "sources": [dict(s.written) for s in self.sources],
            "exclude": list(self.tree.root.get("exclude") or []),
            "steps": [
                {
                    "step": e.kind,
                    "name": e.name,
                    "options": dict(e.options),
                    "rules": dict(e.rules),
                    "scrubs": isinstance(e.step, MapStep) and e.step.scrubs,
                }
                | ({"resources": e.resources.model_dump(exclude_unset=True)} if e.resources != ORDINARY else {})
                for e in self.steps
            ],
            "mix": self.mix.model_dump(),
            "tokenizer": self.tokenizer and {**self.tokenizer.model_dump(), **written_tokenizer},
            "shards": self.shards.model_dump(),
            "validation": self.validation,
            "retention": self.retention,
            "store_raw": self.store_raw,
            "quantiles": self.tree.root.get("quantiles"),
            "engine": self.engine.model_dump(),
        }

"""Defines the file of `gristmill mix search`: shards, proxy training, mixes to try, objective.

    data: runs/crawl
    proxy: proxy.yaml            # a training file, or its keys inline
    runs: 32
    objective: mean
    confirm: {seeds: 5}

Relative paths are relative to the file.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from curation.core import yaml_lines
from curation.core.schema import Section, validate
from pipelines.experiments.mix.mixing_laws import FAMILIES, require_packages


class ObjectiveConfig(Section):
    """What is optimized: the mean validation loss (weights over any validation sets, also those of
    proxy.data.validation), the worst of them, or a score of proxy.evaluate.tasks."""

    kind: Literal["mean", "worst", "metric"] = "mean"
    weights: dict[str, Annotated[float, Field(ge=0)]] | None = None  # of validation sets; default: all equal
    metric: str | None = None  # kind metric: its name, such as arc.accuracy
    maximise: bool = False  # kind metric: larger is better

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> ObjectiveConfig:
        if (self.kind == "metric") != (self.metric is not None):
            raise ValueError("kind: metric needs the key metric, and other kinds must not have it")
        if self.kind == "metric" and self.weights is not None:
            raise ValueError("kind: metric is a single score and takes no weights")
        if self.maximise and self.kind != "metric":
            raise ValueError("maximise is only for kind: metric; losses are minimized")
        if self.weights is not None and not sum(self.weights.values()):
            raise ValueError("every weight is 0")
        return self


class ConfirmConfig(Section):
    """Runs that check the recommendation: each seed trains every mix from the same initial weights."""

    seeds: Annotated[int, Field(ge=0)] = 5
    against: tuple[Literal["natural", "prior", "uniform"], ...] = ("natural", "prior")
    # further mixes to compare with: name -> shares
    mixes: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> ConfirmConfig:
        taken = sorted(set(self.mixes) & {"recommended", "natural", "prior", "uniform"})
        if taken:
            raise ValueError(f"confirm.mixes: {', '.join(taken)} is a reserved name; choose another")
        return self


class Settings(Section):
    """A search file."""

    data: str
    proxy: dict[str, Any] | str
    objective: ObjectiveConfig = ObjectiveConfig()
    prior: Literal["natural", "uniform"] | dict[str, Annotated[float, Field(ge=0)]] = "natural"
    design: Literal["dirichlet", "grid", "one_factor"] = "dirichlet"
    runs: Annotated[int, Field(ge=4)] = 32
    refine: Annotated[float, Field(ge=0, lt=1)] = 0.6  # share of the runs that refine around the predicted optimum
    temperatures: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.0, 1.0)
    families: tuple[str, ...] | None = None
    budget: Annotated[float, Field(gt=0)] | None = None  # tokens of the training that the mix is for
    max_epochs: Annotated[float, Field(gt=0)] | None = None  # of that training; together with budget it caps the shares
    confirm: ConfirmConfig = ConfirmConfig()
    resamples: Annotated[int, Field(ge=0)] = 100
    early_stop: bool = True
    cpus: Annotated[float, Field(gt=0)] = 1.0  # Ray CPUs per proxy
    gpus: Annotated[float, Field(ge=0)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 17
    _references: dict[yaml_lines.Path, str] = PrivateAttr(default_factory=dict)  # of an inline proxy

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        unknown = sorted(set(self.families or ()) - set(FAMILIES))
        if unknown:
            raise ValueError(f"unknown family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
        if (self.budget is None) != (self.max_epochs is None):
            raise ValueError("budget and max_epochs must be given together: they cap the share of a domain")
        return self


def load(path: str) -> Settings:
    """Raises UserError with file, line, key, value and what was expected."""
    tree = yaml_lines.load(path)
    folder = os.path.dirname(os.path.abspath(path))
    for key in ("data", "proxy"):
        if isinstance(tree.root, dict) and isinstance(tree.root.get(key), str) and "://" not in tree.root[key]:
            tree.root[key] = os.path.join(folder, tree.root[key])
    settings = validate(Settings, tree.root, tree)
    settings._references.update(tree.references_below("proxy"))
    require_packages(settings.families)
    return settings

"""Defines what a task of a step needs of a machine: CPUs, memory, GPUs."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from curation.core.schema import Section

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30,
          "TIB": 1 << 40}  # fmt: skip
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")


class Resources(Section):
    """What a task takes while it runs. The executor gives it a machine that has so much free; nothing limits it to
    that."""

    cpus: Annotated[float, Field(gt=0, le=4096, allow_inf_nan=False)] = 1
    memory: int | str | None = None  # bytes, or a size such as 4GB; null: what the engine assumes of any task
    gpus: Annotated[float, Field(ge=0, le=1024, allow_inf_nan=False)] = 0

    @field_validator("memory")
    @classmethod
    def _bytes(cls, value: int | str | None) -> int | None:
        if isinstance(value, str):
            found = _SIZE.fullmatch(value)
            unit = _UNITS.get(found[2].upper()) if found else None
            value = int(float(found[1]) * unit) if found and unit else 0
        if value is not None and value < 1 << 20:
            raise ValueError("is not a size of 1 MiB or more\n  expected bytes, or a number with a unit, such as 4GB")
        return value

    @field_validator("gpus")
    @classmethod
    def _whole(cls, value: float) -> float:
        if value > 1 and not float(value).is_integer():  # Ray has no 1.5 GPUs: a part is of one of them
            raise ValueError("is a part of several GPUs\n  expected a whole number, or a part of one, such as 0.5")
        return value

    @property
    def memory_bytes(self) -> int | None:
        """The memory declared, None if there is none."""
        assert not isinstance(self.memory, str)  # the validator has parsed it
        return self.memory

    def tasks_on(self, cpus: float, memory: float, gpus: float) -> int:
        """How many tasks fit on a machine of this size at once. A machine that does not say its memory has enough."""
        fit = [cpus / self.cpus]
        fit += [gpus / self.gpus] if self.gpus else []
        fit += [memory / self.memory_bytes] if self.memory_bytes and memory else []
        return int(min(fit) + 1e-9)

    def __str__(self) -> str:
        parts = [f"cpus: {self.cpus:g}"]
        parts += [f"memory: {self.memory_bytes / 10**9:.3g}GB"] if self.memory_bytes else []
        parts += [f"gpus: {self.gpus:g}"] if self.gpus else []
        return ", ".join(parts)


ORDINARY = Resources()

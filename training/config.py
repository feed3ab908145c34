"""The training file: YAML, typed once here, with errors that name file, line and key.

    model: {preset: demo}
    data: {sequence: 256, weights: {web: 0.7, code: 0.3}}
    batch: {windows: 16, micro: 8}
    iterations: 300

Everything has a default but `iterations`. Unknown keys, wrong types and figures that do not fit together are refused
before any work starts. What a run resolved to is written to its train.yaml.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curation.core.errors import UserError

# Sizes as published: GPT-2 small with Llama's parts; Llama 3.2 1B and 3B; Llama 3 8B (Dubey et al. 2024, table 3).
# toy is for tests; demo trains a few hundred iterations in two minutes on two cores.
PRESETS: dict[str, dict[str, Any]] = {
    "toy": {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "ffn": 192, "tied": True},
    "demo": {"layers": 4, "width": 256, "heads": 8, "kv_heads": 4, "ffn": 704, "tied": True},
    "10m": {"layers": 8, "width": 320, "heads": 5, "kv_heads": 5, "ffn": 896, "tied": True},
    "124m": {"layers": 12, "width": 768, "heads": 12, "kv_heads": 12, "ffn": 2048, "tied": True},
    "1b": {"layers": 16, "width": 2048, "heads": 32, "kv_heads": 8, "ffn": 8192, "tied": True, "rope_theta": 500_000.0},
    "3b": {"layers": 28, "width": 3072, "heads": 24, "kv_heads": 8, "ffn": 8192, "tied": True, "rope_theta": 500_000.0},
    "8b": {
        "layers": 32,
        "width": 4096,
        "heads": 32,
        "kv_heads": 8,
        "ffn": 14336,
        "tied": False,
        "rope_theta": 500_000.0,
    },
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class ModelSection(_Strict):
    """The model's sizes: a preset, single figures over it, or all of them. The vocabulary is the tokenizer's."""

    preset: str | None = "demo"
    layers: Count
    width: Count
    heads: Count
    kv_heads: Count
    ffn: Count
    tied: bool
    rope_theta: Annotated[float, Field(gt=0)] = 10_000.0
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    qk_norm: bool = False  # queries and keys are normalised by head

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        name = value.get("preset", "demo")
        if name is None:
            return value
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
        return {"preset": name, **PRESETS[name], **value}

    @model_validator(mode="after")
    def _fits(self) -> ModelSection:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} over {self.heads} heads must be a whole, even head width")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        return self


Weights = dict[str, Annotated[float, Field(ge=0)]]


class DataChange(_Strict):
    """What is another from iteration `at` on (counted from 0); what is not named stays."""

    at: Count
    weights: Weights | None = None
    sequence: Count | None = None
    windows: Count | None = None  # of a global batch


class DataConfig(_Strict):
    """What is read. `block`: the unit of the data order, a multiple of every `sequence` (default: the longest one)."""

    sequence: Count = 256
    block: Count | None = None
    weights: Weights | None = None  # default: the manifest's mix
    max_epochs: Annotated[float, Field(gt=0)] | None = None  # default: the manifest's cap
    changes: tuple[DataChange, ...] = ()  # over the iterations: mix, sequence length, batch
    validation: dict[str, str] = {}  # further sets: name -> a run of the same tokenizer
    cache: Count = 1024  # MiB held of far-away shards, a process

    @model_validator(mode="after")
    def _fits(self) -> DataConfig:
        sequences = [self.sequence, *(c.sequence for c in self.changes if c.sequence is not None)]
        block = self.block or max(sequences)
        for sequence in sequences:
            if block % sequence:
                raise ValueError(f"sequence {sequence} does not divide block {block}")
        at = [c.at for c in self.changes]
        if at != sorted(set(at)):
            raise ValueError(f"changes must stand in the order of their iterations, each once; they are at {at}")
        return self


class BatchConfig(_Strict):
    """Windows in an iteration, and how many of them go through the model at once."""

    windows: Count = 16
    micro: Count | None = None  # default: all

    @model_validator(mode="after")
    def _fits(self) -> BatchConfig:
        if self.micro is not None and self.windows % self.micro:
            near = sorted(
                {self.windows // self.micro * self.micro, (self.windows // self.micro + 1) * self.micro} - {0}
            )
            raise ValueError(
                f"micro {self.micro} does not divide windows {self.windows}; "
                f"windows {' or '.join(map(str, near))} would fit"
            )
        return self


class OptimizerConfig(_Strict):
    """AdamW for everything, or Muon for the blocks' matrices and AdamW for the rest. See `optim.py`."""

    kind: Literal["adamw", "muon"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    betas: tuple[Share, Share] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    # What does not shrink. GPT-2's embedding decays, which is the default here; OLMo 2's does not.
    no_decay: tuple[Literal["norms", "biases", "embeddings"], ...] = ("norms", "biases")
    momentum: Share = 0.95  # Muon's
    clip: Annotated[float, Field(gt=0)] = 1.0  # largest norm of the gradient


class ScheduleConfig(_Strict):
    """The learning rate over iterations; see `optim.learning_rate`."""

    kind: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup: Annotated[int, Field(ge=0)] | None = None  # iterations; default: a twentieth
    decay: Share = 0.2  # wsd: share of the iterations in which it falls
    form: Literal["linear", "sqrt", "cosine"] = "linear"  # wsd: how it falls
    final: Share = 0.1  # the last learning rate over the highest


class EvaluateConfig(_Strict):
    """Loss on the validation split: before the first iteration, every so many and after the last."""

    every: Count = 50
    windows: Count | None = 64  # a domain, the first ones; null: all
    tasks: tuple[str, ...] = ()  # JSONL files scored as well; see docs/evaluation.md
    task_limit: Count | None = 200  # of each, the first lines; null: all


class CheckpointConfig(_Strict):
    """A checkpoint before the first iteration, every so many and after the last.

    The last `keep` stay, every one whose iteration `keep_every` divides, and the one that the guard calls good.
    """

    every: Count = 100
    keep: Count = 2
    keep_every: Count | None = None
    background: bool = True  # written while training goes on; false: training waits, memory for no second copy


class GuardConfig(_Strict):
    """What is done about a loss or gradient that falls out of the frame; see `guard.py` and docs/training.md."""

    # watch: say so; skip: and leave the update out; rollback: and go back once it is confirmed, and mask who did it
    action: Literal["off", "watch", "skip", "rollback"] = "rollback"
    window: Annotated[int, Field(ge=16)] = 128  # accepted iterations that median and MAD are taken over
    least: Annotated[int, Field(ge=8)] = 32  # accepted iterations before anything but NaN is out of the frame
    z: Annotated[float, Field(gt=0)] = 8.0  # robust standard deviations above the median
    confirm: Count = 3  # anomalies ...
    within: Count = 10  # ... among so many iterations make a spike
    good_after: Count = 20  # accepted iterations after which a checkpoint is good
    blame_z: Annotated[float, Field(gt=0)] = 8.0  # a document's, among the documents around the spike
    largest_share: Share = 0.01  # of the training documents; more masked, and the run stops

    @model_validator(mode="after")
    def _fits(self) -> GuardConfig:
        if self.confirm > self.within:
            raise ValueError(f"confirm {self.confirm} anomalies within {self.within} iterations can never be")
        if self.least > self.window:
            raise ValueError(f"least {self.least} is more than the window of {self.window} holds")
        return self


class ParallelConfig(_Strict):
    """How ranks share the model: `shard` of them hold one copy (default: all); more ranks than that hold replicas."""

    shard: Count | None = None
    reduce: Literal["fp32", "bf16"] = "fp32"  # the type in which gradients are summed over ranks


class TrainConfig(_Strict):
    """A whole training file."""

    iterations: Count
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 17
    model: ModelSection = Field(default_factory=lambda: ModelSection(**PRESETS["demo"]))
    data: DataConfig = DataConfig()
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    z_loss: Annotated[float, Field(ge=0)] = 0.0
    # auto: bf16 where the processor multiplies it natively, else fp32
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = None  # default: torch's own choice
    deterministic: bool = False  # also on a GPU; a CPU is in any case
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    guard: GuardConfig = GuardConfig()
    parallel: ParallelConfig = ParallelConfig()
    init_from: str | None = None  # a run or a checkpoint whose weights this one starts from
    quarantine: str | None = None  # a file that blamed documents are appended to; curation reads it
    recompute: bool = False  # blocks run again in backward instead of keeping what they made: less memory, more work
    compile: bool = False  # torch.compile: a graph a block, and of the loss its passes
    log_to: tuple[Literal["wandb", "mlflow"], ...] = ()  # besides TensorBoard and the run's own JSONL
    log_every: Count = 10  # iterations between looks at the device: the log, the guard's decisions, a wish to stop
    hang_after: Annotated[float, Field(gt=0)] | None = 1800.0  # seconds without an iteration; then the process ends

    def stages(self) -> list[tuple[int, int, int]]:
        """(iterations, windows of a global batch, sequence) one after the other; `data.changes` makes several."""
        ends = [*(min(c.at, self.iterations) for c in self.data.changes), self.iterations]
        found, begin, windows, sequence = [], 0, self.batch.windows, self.data.sequence
        for end, change in zip(ends, (*self.data.changes, None), strict=True):
            if end > begin:
                found.append((end - begin, windows, sequence))
            if change is not None:
                begin, windows, sequence = end, change.windows or windows, change.sequence or sequence
        return found

    def dump(self) -> str:
        """YAML of all values, as train.yaml holds it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load(path: str, overrides: Mapping[str, Any] | Sequence[str] = ()) -> TrainConfig:
    """Reads and checks a training file; `overrides` are `{"optimizer.lr": 3e-4}` or `["optimizer.lr=3e-4"]`.

    Raises UserError with file, line, key, value and what was expected.
    """
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this training file: {error}") from error
    return parse(text, path, overrides)


def parse(text: str, name: str = "<config>", overrides: Mapping[str, Any] | Sequence[str] = ()) -> TrainConfig:
    """As `load`, from a string; `name` stands for the file in errors."""
    lines: dict[tuple[str, ...], int] = {}
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        value = yaml.safe_load(text) if node is not None else {}
    except yaml.YAMLError as error:
        raise UserError(f"{name}: not YAML: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{name}: a training file is a mapping of keys, this is a {type(value).__name__}")
    _index(node, (), lines, name)
    for key, new in _pairs(overrides):
        _set(value, key, new, lines)
    try:
        return TrainConfig.model_validate(value)
    except ValidationError as error:
        raise UserError("\n".join(_say(name, lines, detail) for detail in error.errors())) from error


def _index(node: yaml.Node | None, at: tuple[str, ...], lines: dict[tuple[str, ...], int], name: str) -> None:
    """The line of every key; a key written twice is refused (YAML would silently take the last)."""
    if isinstance(node, yaml.MappingNode):
        for key, below in node.value:
            place = (*at, str(key.value))
            line = key.start_mark.line + 1
            if place in lines:
                raise UserError(
                    f"{name}:{line}: {'.'.join(place)} stands here a second time (first on line {lines[place]})"
                )
            lines[place] = line
            _index(below, place, lines, name)


def _pairs(overrides: Mapping[str, Any] | Sequence[str]) -> Iterable[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        yield from overrides.items()
        return
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals:
            raise UserError(f"--set {item}: expected key=value, as in optimizer.lr=3e-4")
        try:
            yield key.strip(), yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {item}: the value is not YAML: {error}") from error


def _set(value: dict[str, Any], key: str, new: Any, lines: dict[tuple[str, ...], int]) -> None:
    *above, last = parts = key.split(".")
    for part in above:
        inner = value.get(part)
        if not isinstance(inner, dict):
            inner = value[part] = {}
        value = inner
    value[last] = new
    lines[tuple(parts)] = 0


def _say(name: str, lines: dict[tuple[str, ...], int], detail: Any) -> str:
    """One error of pydantic's as `file:line: key: what is wrong (value)`."""
    place = tuple(str(part) for part in detail["loc"])
    known = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in lines), ())
    line = lines.get(known)
    where = f"{name}: --set" if line == 0 else f"{name}:{line}" if line else name
    key = ".".join(place) or "the file"
    if detail["type"] == "extra_forbidden":
        expected = _keys(place[:-1])
        return f"{where}: unknown key {key}" + (f"; here are known: {', '.join(expected)}" if expected else "")
    if detail["type"] == "missing":
        return f"{where}: {key} is missing"
    given = "" if isinstance(detail["input"], (dict, BaseModel)) else f" (got {detail['input']!r})"
    return f"{where}: {key}: {detail['msg'].removeprefix('Value error, ')}{given}"


def _keys(place: tuple[str, ...]) -> list[str]:
    model: Any = TrainConfig
    for part in place:
        model = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
    return list(model.model_fields)

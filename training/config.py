"""The training file: YAML, typed once here, with errors that name file, line and key.

    model: {preset: demo}
    data: {seq_len: 256, weights: {web: 0.7, code: 0.3}}
    batch: {global_size: 16, micro_size: 8}
    steps: 300

Everything has a default but `steps`. Unknown keys, wrong types and figures that do not fit together are refused
before any work starts. What a run resolved to is written to its train.yaml.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from curation.core.errors import UserError
from curation.core.renamed_keys import TRAINING_KEYS, renamed


# Sizes as published: GPT-2 small with Llama's parts; Llama 3.2 1B and 3B; Llama 3 8B (Dubey et al. 2024, table 3).
# toy is for tests; demo trains a few hundred steps in two minutes on two cores.
def _sizes(
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    num_kv_heads: int,
    intermediate_size: int,
    tie_embeddings: bool,
    rope_theta: float = 10_000.0,
) -> dict[str, Any]:
    return dict(locals())


PRESETS: dict[str, dict[str, Any]] = {
    "toy": _sizes(2, 64, 4, 2, 192, True),
    "demo": _sizes(4, 256, 8, 4, 704, True),
    "10m": _sizes(8, 320, 5, 5, 896, True),
    "124m": _sizes(12, 768, 12, 12, 2048, True),
    "1b": _sizes(16, 2048, 32, 8, 8192, True, rope_theta=500_000.0),
    "3b": _sizes(28, 3072, 24, 8, 8192, True, rope_theta=500_000.0),
    "8b": _sizes(32, 4096, 32, 8, 14336, False, rope_theta=500_000.0),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class ModelSection(_Strict):
    """The model's sizes: a preset, single figures over it, or all of them. The vocabulary is the tokenizer's."""

    preset: str | None = "demo"
    num_layers: Count
    hidden_size: Count
    num_heads: Count
    num_kv_heads: Count  # groups of query heads that share keys and values (Ainslie et al. 2023); divides num_heads
    intermediate_size: Count  # inner width of the SwiGLU feed-forward
    tie_embeddings: bool  # the output head is the embedding matrix
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
            raise ValueError(f"no preset {name!r}; the presets are {', '.join(PRESETS)}")
        return {"preset": name, **PRESETS[name], **value}

    @model_validator(mode="after")
    def _fits(self) -> ModelSection:
        if self.hidden_size % self.num_heads or (self.hidden_size // self.num_heads) % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} divided by num_heads {self.num_heads} must be an even whole number"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads {self.num_kv_heads} does not divide num_heads {self.num_heads}")
        return self


Weights = dict[str, Annotated[float, Field(ge=0)]]


class DataChange(_Strict):
    """What is another from step `at` on (counted from 0); what is not named stays."""

    at: Count
    weights: Weights | None = None
    seq_len: Count | None = None
    global_size: Count | None = None  # sequences in a global batch


class DataConfig(_Strict):
    """What is read. `shuffle_block`: tokens shuffled as a unit, a multiple of each `seq_len` (the longest)."""

    seq_len: Count = 256
    shuffle_block: Count | None = None
    weights: Weights | None = None  # default: the manifest's mix
    max_epochs: Annotated[float, Field(gt=0)] | None = None  # default: the manifest's cap
    changes: tuple[DataChange, ...] = ()  # over the steps: mix, sequence length, batch
    validation: dict[str, str] = {}  # further sets: name -> a run of the same tokenizer
    cache: Count = 1024  # MiB held of far-away shards, a process

    @model_validator(mode="after")
    def _fits(self) -> DataConfig:
        lengths = [self.seq_len, *(c.seq_len for c in self.changes if c.seq_len is not None)]
        block = self.shuffle_block or max(lengths)
        for length in lengths:
            if block % length:
                raise ValueError(f"seq_len {length} does not divide shuffle_block {block}")
        at = [c.at for c in self.changes]
        if at != sorted(set(at)):
            raise ValueError(f"changes must stand in the order of their steps, each once; they are at {at}")
        return self


class BatchConfig(_Strict):
    """Windows in a step, and how many of them go through the model at once."""

    global_size: Count = 16
    micro_size: Count | None = None  # default: all

    @model_validator(mode="after")
    def _fits(self) -> BatchConfig:
        size, micro = self.global_size, self.micro_size
        if micro is not None and size % micro:
            near = [n for n in (size // micro * micro, (size // micro + 1) * micro) if n]
            raise ValueError(
                f"micro_size {micro} does not divide global_size {size}; "
                f"global_size {' or '.join(map(str, near))} would fit"
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
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0  # gradients are clipped to this global norm


class ScheduleConfig(_Strict):
    """The learning rate over steps; see `optim.learning_rate`."""

    kind: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] | None = None  # default: a twentieth of all steps
    decay_fraction: Share = 0.2  # wsd: the fraction of all steps in which the rate decays
    decay_type: Literal["linear", "sqrt", "cosine"] = "linear"  # wsd: how it decays
    min_lr_ratio: Share = 0.1  # the last learning rate divided by the highest


class EvaluateConfig(_Strict):
    """Loss on the validation split: before the first step, every so many and after the last."""

    every: Count = 50
    sequences: Count | None = 64  # the first so many of each domain; null: all
    tasks: tuple[str, ...] = ()  # JSONL files scored as well; see docs/evaluation.md
    task_limit: Count | None = 200  # of each, the first lines; null: all


class CheckpointConfig(_Strict):
    """A checkpoint before the first step, every so many and after the last.

    The last `keep` stay, every one whose step `keep_every` divides, and the one that the guard calls good.
    """

    every: Count = 100
    keep: Count = 2
    keep_every: Count | None = None
    background: bool = True  # written while training goes on; false: training waits, memory for no second copy


class GuardConfig(_Strict):
    """What is done about a loss or gradient that falls out of the frame; see `guard.py` and docs/training.md."""

    # watch: say so; skip: and leave the update out; rollback: and go back once it is confirmed, and mask who did it
    action: Literal["off", "watch", "skip", "rollback"] = "rollback"
    window: Annotated[int, Field(ge=16)] = 128  # accepted steps that median and MAD are taken over
    warmup_steps: Annotated[int, Field(ge=8)] = 32  # accepted steps before anything but NaN is an anomaly
    z_threshold: Annotated[float, Field(gt=0)] = 8.0  # robust standard deviations above the median
    spike_count: Count = 3  # so many anomalies ...
    spike_window: Count = 10  # ... among so many steps are a spike
    good_after: Count = 20  # accepted steps after which a checkpoint is good
    blame_z: Annotated[float, Field(gt=0)] = 8.0  # a document's, among the documents around the spike
    max_masked_fraction: Share = 0.01  # of the training documents; if more are masked, the run stops

    @model_validator(mode="after")
    def _fits(self) -> GuardConfig:
        if self.spike_count > self.spike_window:
            raise ValueError(f"spike_count {self.spike_count} is larger than spike_window {self.spike_window}")
        if self.warmup_steps > self.window:
            raise ValueError(f"warmup_steps {self.warmup_steps} is larger than window {self.window}")
        return self


class ParallelConfig(_Strict):
    """How ranks share the model: `dp_shard` of them hold one copy (default: all), further ones replicas."""

    dp_shard: Count | None = None
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"  # the type in which gradients are summed over ranks


class TrainConfig(_Strict):
    """A whole training file."""

    steps: Count
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
    exclude_list: str | None = None  # JSONL file to append the documents to that caused spikes; `exclude:` in curation
    # full: blocks keep only their input and run again in backward (Chen et al. 2016): less memory, a third more work
    activation_checkpointing: Literal["none", "full"] = "none"
    compile: bool = False  # torch.compile: a graph a block, and of the loss its passes
    log_to: tuple[Literal["wandb", "mlflow"], ...] = ()  # besides TensorBoard and the run's own JSONL
    log_every: Count = 10  # steps between looks at the device: the log, the guard's decisions, a wish to stop
    hang_after: Annotated[float, Field(gt=0)] | None = 1800.0  # seconds without a step; then the process ends

    def stages(self) -> list[tuple[int, int, int]]:
        """(steps, windows of a global batch, sequence) one after the other; `data.changes` makes several."""
        ends = [*(min(c.at, self.steps) for c in self.data.changes), self.steps]
        found, begin, windows, sequence = [], 0, self.batch.global_size, self.data.seq_len
        for end, change in zip(ends, (*self.data.changes, None), strict=True):
            if end > begin:
                found.append((end - begin, windows, sequence))
            if change is not None:
                begin, windows, sequence = end, change.global_size or windows, change.seq_len or sequence
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
        if note := renamed(detail["loc"], TRAINING_KEYS):
            return f"{where}: {key}: {note}"
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

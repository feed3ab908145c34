"""The schema of a training file: keys, defaults and presets.

    model: {preset: demo}
    data: {seq_len: 256, weights: {web: 0.7, code: 0.3}}
    batch: {global_size: 16, micro_size: 8}
    steps: 300

Everything has a default but `steps`. Unknown keys, wrong types and values that do not fit together are refused before
any work starts, with file, line and key. The resolved configuration of a run is written to its train.yaml.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from curation.core import yaml_lines
from curation.core.errors import UserError
from curation.core.renamed_keys import TRAINING_KEYS, refuse_renamed
from curation.core.schema import Section, validate
from curation.core.yaml_lines import (
    Path,
    YamlTree,
    parse_value,
    remember_references,
    replace_variables,
    set_value,
    split_override,
)


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


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class ModelSection(Section):
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
    # Rows of embedding and head, if more than the tokenizer's vocabulary: many published models are padded
    pad_vocab: Count | None = None

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

    def sizes(self, vocab: int) -> dict[str, Any]:
        """The fields of `ModelConfig`, for a tokenizer's vocabulary. Raises UserError for a pad_vocab below it."""
        if self.pad_vocab is not None and self.pad_vocab < vocab:
            raise UserError(f"model.pad_vocab: {self.pad_vocab} is less than the tokenizer's vocabulary, {vocab}")
        return {"vocab_size": self.pad_vocab or vocab, **self.model_dump(exclude={"preset", "pad_vocab"})}


Weights = dict[str, Annotated[float, Field(ge=0)]]


class DataChange(Section):
    """Changes mix, sequence length or batch from step `at` on (counted from 0); keys left out keep their value."""

    at: Count
    weights: Weights | None = None
    seq_len: Count | None = None
    global_size: Count | None = None  # sequences in a global batch


class DataConfig(Section):
    """Which tokens are read, and in what order."""

    seq_len: Count = 256  # input tokens of a sequence
    shuffle_block: Count | None = None  # tokens shuffled as a unit, a multiple of each seq_len; default: the longest
    weights: Weights | None = None  # default: the manifest's mix
    max_epochs: Annotated[float, Field(gt=0)] | None = None  # default: the manifest's cap
    changes: tuple[DataChange, ...] = ()  # in the order of their steps
    # Further validation sets: name -> a curation run with the same tokenizer
    validation: dict[str, str] = Field(default_factory=dict)
    cache: Count = 1024  # MiB of remote shards that a process keeps in memory

    @model_validator(mode="after")
    def _fits(self) -> DataConfig:
        lengths = [self.seq_len, *(c.seq_len for c in self.changes if c.seq_len is not None)]
        block = self.shuffle_block or max(lengths)
        for length in lengths:
            if block % length:
                raise ValueError(f"seq_len {length} does not divide shuffle_block {block}")
        at = [c.at for c in self.changes]
        if at != sorted(set(at)):
            raise ValueError(f"changes must be in the order of their steps, each step once; they are at {at}")
        return self


class BatchConfig(Section):
    """Sequences in a training step, over all ranks, and how many a rank passes through the model at once."""

    global_size: Count = 16
    micro_size: Count | None = None  # default: all; smaller values accumulate gradients

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


class OptimizerConfig(Section):
    """AdamW for everything, or Muon for the blocks' matrices and AdamW for the rest; see optim/optimizers.py."""

    kind: Literal["adamw", "muon"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    betas: tuple[Share, Share] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    # Parameters without weight decay. GPT-2's embedding decays, which is the default here; OLMo 2's does not.
    no_decay: tuple[Literal["norms", "biases", "embeddings"], ...] = ("norms", "biases")
    momentum: Share = 0.95  # of Muon
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0  # gradients are clipped to this global norm


class ScheduleConfig(Section):
    """The learning rate over the steps; see optim/lr_schedule.py."""

    kind: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] | None = None  # default: a twentieth of all steps
    decay_fraction: Share = 0.2  # wsd: the fraction of all steps in which the rate decays
    decay_type: Literal["linear", "sqrt", "cosine"] = "linear"  # wsd: how it decays
    min_lr_ratio: Share = 0.1  # the last learning rate divided by the highest


class EvaluateConfig(Section):
    """Evaluates on the validation split: before the first step, every `every` steps and after the last."""

    every: Count = 50
    sequences: Count | None = 64  # of each domain, the first ones; null: all
    tasks: tuple[str, ...] = ()  # JSONL files of benchmark tasks to score as well; see docs/evaluation.md
    task_limit: Count | None = 200  # lines of each file, the first ones; null: all


class CheckpointConfig(Section):
    """Saves a checkpoint before the first step, every `every` steps and after the last.

    Kept are the last `keep`, those whose step is a multiple of `keep_every`, and the one that the guard calls good.
    """

    every: Count = 100
    keep: Count = 2
    keep_every: Count | None = None
    background: bool = True  # written while training continues; false: training waits, and needs no memory for a copy


class GuardConfig(Section):
    """What to do about anomalous losses and gradients; see stability/spike_detection.py and docs/training.md."""

    # watch: log anomalies; skip: also leave their updates out; rollback: also roll back from a confirmed spike and mask
    # the documents that caused it
    action: Literal["off", "watch", "skip", "rollback"] = "rollback"
    # Both count from the start of the run, and anew from each planned change
    window: Annotated[int, Field(ge=16)] = 128  # accepted steps over which median and MAD are computed
    warmup_steps: Annotated[int, Field(ge=8)] = 32  # accepted steps before anything but NaN is an anomaly
    z_threshold: Annotated[float, Field(gt=0)] = 8.0  # robust standard deviations above the median
    max_skips: Count = 20  # anomalies in a row after which the new level is accepted as usual
    spike_count: Count = 3  # anomalies ...
    spike_window: Count = 10  # ... within so many steps are a loss spike
    good_after: Count = 20  # accepted steps after which a checkpoint is good
    blame_z: Annotated[float, Field(gt=0)] = (
        8.0  # robust standard deviations above quiet documents that blame a document
    )
    max_masked_fraction: Share = 0.01  # of the training documents; if more are masked, the run stops

    @model_validator(mode="after")
    def _fits(self) -> GuardConfig:
        if self.spike_count > self.spike_window:
            raise ValueError(f"spike_count {self.spike_count} is larger than spike_window {self.spike_window}")
        if self.warmup_steps > self.window:
            raise ValueError(f"warmup_steps {self.warmup_steps} is larger than window {self.window}")
        return self


class ParallelConfig(Section):
    """How the model is sharded: `dp_shard` ranks share one copy (default: all); further ranks hold replicas."""

    dp_shard: Count | None = None
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"  # type in which gradients are summed over ranks


class TrainConfig(Section):
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
    deterministic: bool = False  # bit-equal results on a GPU too; on a CPU they always are
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    guard: GuardConfig = GuardConfig()
    parallel: ParallelConfig = ParallelConfig()
    init_from: str | None = None  # a run or a checkpoint whose weights to start from
    # A run or a checkpoint to go on from with everything: moments, step, data position. Schedule and mix may differ
    branch_from: str | None = None
    exclude_list: str | None = (
        None  # JSONL file that documents which caused spikes are appended to; curation's `exclude:`
    )
    # full: blocks keep only their input and run again in backward (Chen et al. 2016): less memory, a third more work
    activation_checkpointing: Literal["none", "full"] = "none"
    compile: bool = False  # torch.compile, for each block and for the loss
    log_to: tuple[Literal["wandb", "mlflow"], ...] = ()  # besides TensorBoard and the run's own JSONL
    log_every: Count = 10  # steps between readings of the device: for logs, rollbacks and requests to stop
    hang_after: Annotated[float, Field(gt=0)] | None = (
        1800.0  # seconds without progress after which the process ends; null: never
    )

    @model_validator(mode="after")
    def _one_parent(self) -> TrainConfig:
        if self.init_from is not None and self.branch_from is not None:
            raise ValueError("init_from takes weights alone and branch_from everything; give one of them")
        return self

    def stages(self) -> list[tuple[int, int, int]]:
        """(steps, global_size, seq_len) of each stretch of the run; `data.changes` makes several."""
        ends = [*(min(c.at, self.steps) for c in self.data.changes), self.steps]
        found, begin, size, length = [], 0, self.batch.global_size, self.data.seq_len
        for end, change in zip(ends, (*self.data.changes, None), strict=True):
            if end > begin:
                found.append((end - begin, size, length))
            if change is not None:
                begin, size, length = end, change.global_size or size, change.seq_len or length
        return found

    _references: dict[Path, str] = PrivateAttr(default_factory=dict)  # texts of the file that have ${VAR} in them

    def __eq__(self, other: object) -> bool:
        """Whether all values are equal, however the files had them."""
        return isinstance(other, TrainConfig) and self.model_dump() == other.model_dump()

    @property
    def references(self) -> Mapping[Path, str]:
        """The strings of the file that have `${VAR}` in them, as written, by path."""
        return self._references

    def written(self) -> dict[str, Any]:
        """All values as plain data, for files and logging services: strings have `${VAR}` where the file has it."""
        made: dict[str, Any] = yaml_lines.lay_references(self.model_dump(mode="json"), self._references)
        return made

    def dump(self) -> str:
        """YAML of `written`, as train.yaml holds it."""
        return yaml_lines.dump(self.written())


def load(path: str, overrides: Mapping[str, Any] | Sequence[str] = ()) -> TrainConfig:
    """Reads and checks a training file; `overrides` are `{"optimizer.lr": 3e-4}` or `["optimizer.lr=3e-4"]`.

    Raises UserError with file, line, key, value and what was expected.
    """
    return _check(yaml_lines.load(path), overrides)


def parse(
    text: str,
    name: str = "<config>",
    overrides: Mapping[str, Any] | Sequence[str] = (),
    references: Mapping[Path, str] | None = None,
) -> TrainConfig:
    """As `load`, from a string; `name` is the file that errors name. references: by path, what `written` has instead of
    a string of the text, for a text that holds the values of `${VAR}` (see `references` of TrainConfig)."""
    tree = yaml_lines.parse(text, name)
    tree.references.update(references or {})
    return _check(tree, overrides)


def _check(tree: YamlTree, overrides: Mapping[str, Any] | Sequence[str]) -> TrainConfig:
    """The configuration of a tree, with the overrides laid over it."""
    if tree.root is None:
        tree.root = {}
    if not isinstance(tree.root, dict):
        raise UserError(f"{tree.file}: is a {type(tree.root).__name__}\n  expected the keys of a training file")
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            set_value(tree, tuple(key.split(".")), value, f"--set {key}={value}")
    else:
        for given in overrides:
            key, text, place = split_override(given)
            path = tuple(key.split("."))
            set_value(tree, path, parse_value(replace_variables(text, place, os.environ), place), place)
            remember_references(tree, path, text, os.environ)
    refuse_renamed(tree, TRAINING_KEYS)
    config = validate(TrainConfig, tree.root, tree)
    config._references.update(tree.references)
    return config

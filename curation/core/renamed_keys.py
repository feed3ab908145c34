"""Old names of configuration keys and commands, so that an error can say what replaced them.

The only file that may hold old names. It goes at version 1.0.

A key is written as its path without list indexes: `steps.where` stands beside a step's name, and
`steps.minhash_dedup.num_bands` is an option of that step. The value is what the error offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from curation.core.errors import UserError
from curation.core.yaml_lines import Path, YamlTree

PIPELINE_KEYS: dict[str, str] = {
    "quarantine": "exclude",
    "steps.only": "where",
    "steps.c4_lines": "c4_line_filter",
    "steps.exact_dedup.against": "prior_run",
    "steps.minhash_dedup.against": "prior_run",
    "steps.minhash_dedup.bands": "num_bands",
    "steps.minhash_dedup.rows": "rows_per_band",
}

TRAINING_KEYS: dict[str, str] = {
    "iterations": "steps",
    "model.width": "hidden_size",
    "model.ffn": "intermediate_size",
    "model.layers": "num_layers",
    "model.heads": "num_heads",
    "model.kv_heads": "num_kv_heads",
    "model.tied": "tie_embeddings",
    "data.sequence": "seq_len",
    "data.block": "shuffle_block",
    "data.changes.sequence": "seq_len",
    "data.changes.windows": "global_size",
    "batch.windows": "global_size",
    "batch.micro": "micro_size",
    "optimizer.clip": "max_grad_norm",
    "schedule.warmup": "warmup_steps",
    "schedule.decay": "decay_fraction",
    "schedule.form": "decay_type",
    "schedule.final": "min_lr_ratio",
    "evaluate.windows": "sequences",
    "guard.least": "warmup_steps",
    "guard.z": "z_threshold",
    "guard.confirm": "spike_count",
    "guard.within": "spike_window",
    "guard.largest_share": "max_masked_fraction",
    "parallel.shard": "dp_shard",
    "parallel.reduce": "reduce_dtype",
    "quarantine": "exclude_list",
    "recompute": "activation_checkpointing",
}

# Commands of the command line, without `gristmill`
COMMANDS: dict[str, str] = {
    "forget": "delete",
    "order": "data inspect-step (with --step) or data verify-order (with --verify)",
    "trace": "data trace-token",
    "seen": "data find-document",
}


def renamed(path: Sequence[str | int], names: Mapping[str, str]) -> str | None:
    """The sentence for the path of an old key, such as "`only` was renamed to `where`"; None for any other path."""
    if not path or isinstance(path[-1], int):  # an item of a list: its key was named already
        return None
    key = ".".join(str(part) for part in path if not isinstance(part, int))
    return f"`{key.rpartition('.')[2]}` was renamed to `{names[key]}`" if key in names else None


def refuse_renamed(tree: YamlTree, names: Mapping[str, str], further: Iterable[Path] = ()) -> None:
    """Raises UserError that names every old key of a file and what replaced it.

    further  paths that are not keys of the tree but count as such, say a step written without options
    """
    found = [(path, message) for path in [*tree.places, *further] if (message := renamed(path, names))]
    if found:
        raise UserError("\n".join(f"{tree.where(*path)}: {message}" for path, message in found))

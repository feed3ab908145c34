"""Where a training run is: steps done, sequences and tokens read, and the order of its data."""

from __future__ import annotations

from dataclasses import dataclass

from curation.shards import Manifest
from training.checkpoint.save_load import Checkpoint
from training.config import TrainConfig
from training.data.data_order import OrderLog
from training.data.data_schedule import new_data_order, resume_data_order
from training.data.dataset import TokenDataset


@dataclass(frozen=True)
class TrainState:
    """Steps done, sequences and tokens read, and the data order, from which all that follows is computed."""

    step: int
    sequences: int
    tokens: int
    order: OrderLog

    def after(self, first: int, last: int) -> TrainState:
        """The state after a step that read the sequences first..last-1."""
        tokens = (last - first) * self.order.segment_at(first).seq_len
        return TrainState(self.step + 1, last, self.tokens + tokens, self.order)


def data_order(
    config: TrainConfig, manifest: Manifest, saved: Checkpoint | None
) -> tuple[TokenDataset, OrderLog, float]:
    """The data, its order and the largest rounding error of a mix; what a checkpoint has read stays as it was."""
    settings = (manifest, config.data, config.seed, config.batch.global_size, config.steps)
    if saved is None:
        return new_data_order(*settings)
    return resume_data_order(*settings, OrderLog.from_dict(saved.state["order"]), saved.state["sequences"])

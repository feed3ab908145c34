"""Sets up the ranks (processes) of a training run and shards the model over them.

The model is sharded with FSDP2 (`fully_shard`): every rank keeps a share of each weight, gradient and moment in fp32
and gathers a block when it is needed. With `parallel.dp_shard` smaller than the number of ranks the mesh has two
dimensions (HSDP): shards inside a group, replicas across groups. A single process needs and uses none of this.

Types are the same on any number of ranks: autocast decides them, and FSDP gathers the blocks in the compute type that
autocast would cast them to. Embedding, last norm and head are gathered in fp32, as one process has them: in 16 bits the
gradients of a frequent token's rows would be summed in 16 bits. FSDP casts no inputs, or the rotation's tables and the
residual stream would be in 16 bits. (docs/training.md has the table of types.)

Gradients are *summed* over ranks, and the loss is divided by the targets of the whole batch, so that masked documents
and uneven ranks get the right weight. torchrun and Ray set the environment that `init_ranks` reads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.experimental import implicit_replication

from curation.core.errors import UserError
from training.config import TrainConfig
from training.model.transformer import Model, ModelConfig

T = TypeVar("T")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run. All methods but `first` are collective: every rank must call them."""

    rank: int
    world: int
    device: torch.device
    mesh: DeviceMesh | None = None  # None: one process, nothing is sharded
    host: dist.ProcessGroup | None = None  # gloo, for Python objects
    files: dist.ProcessGroup | None = None  # gloo, for the thread that writes checkpoints

    @property
    def first(self) -> bool:
        return self.rank == 0

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Sums over ranks, in place and on the device; the host does not wait for it."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_reduce_max(self, *scalars: Tensor) -> tuple[Tensor, ...]:
        """Makes scalars that all ranks computed, up to rounding, equal to the bit; NaN becomes infinity."""
        if self.world == 1:
            return scalars
        packed = torch.stack([s.double() for s in scalars]).nan_to_num(nan=torch.inf, posinf=torch.inf)
        dist.all_reduce(packed, dist.ReduceOp.MAX)
        return tuple(packed.unbind())

    def broadcast_from_rank0(self, compute: Callable[[], T]) -> T:
        """Runs a function on rank 0 and returns its result on every rank; its exception is raised on every rank."""
        if self.world == 1:
            return compute()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = compute()
            except Exception as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0, group=self.host)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]  # type: ignore[no-any-return]

    def any_rank(self, ask: Callable[[], bool]) -> Callable[[], bool]:
        """Starts to ask whether `ask` is true on any rank; the function returned waits for the answer.

        It is the host that asks: the device does not wait, nor does the host for what it does in between. One rank asks
        only when the answer is wanted.
        """
        if self.world == 1:
            return ask
        answer = torch.tensor([ask()], dtype=torch.uint8)
        asked = dist.all_reduce(answer, dist.ReduceOp.MAX, group=self.host, async_op=True)
        return lambda: bool(asked.wait() and answer.item())

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier(group=self.host)


@contextlib.contextmanager
def init_ranks(device: str, dp_shard: int | None) -> Iterator[Ranks]:
    """The ranks of this launch: one under plain python, WORLD_SIZE under torchrun, the workers under Ray Train.

    Raises UserError where `parallel.dp_shard` does not divide the number of ranks, and for tasks of Slurm that do not
    know of each other.
    """
    ours = not dist.is_initialized()
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if ours and "WORLD_SIZE" not in os.environ and tasks.isdigit() and int(tasks) > 1:
        raise UserError(
            f"Slurm runs {tasks} tasks here (SLURM_NTASKS), and each would be a training of its own. Start one "
            "torchrun a node, which starts the ranks: srun --ntasks-per-node=1 torchrun --nproc-per-node GPUS ... "
            "(docs/training.md); for a training of one process set WORLD_SIZE=1"
        )
    world = int(os.environ.get("WORLD_SIZE", "1")) if ours else dist.get_world_size()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local) if device == "cuda" else torch.device("cpu")
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world == 1:
        yield Ranks(0, 1, place)
        return
    if ours:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "cpu:gloo")
    try:
        size = dp_shard or world
        if world % size:
            raise UserError(f"parallel.dp_shard {size} does not divide the number of ranks, {world}")
        shape, names = ((world,), ("shard",)) if size == world else ((world // size, size), ("replicate", "shard"))
        mesh = init_device_mesh(device, shape, mesh_dim_names=names)
        yield Ranks(dist.get_rank(), world, place, mesh, dist.new_group(backend="gloo"), dist.new_group(backend="gloo"))
    finally:
        if ours:
            dist.destroy_process_group()


def build_model(model_config: ModelConfig, config: TrainConfig, ranks: Ranks) -> Model:
    """The initialised model on this rank's device; with several ranks it is sharded, and no rank holds all of it."""
    if ranks.mesh is None:
        model = Model(model_config)
        model.init_weights(config.seed)
        model.to(ranks.device)
        return _prepare(model, config)
    with torch.device("meta"):
        model = _prepare(Model(model_config), config)
    compute = None if config.precision == "fp32" else TYPES[config.precision]
    reduce = TYPES[config.parallel.reduce_dtype]
    in_block = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=reduce, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mesh=ranks.mesh, mp_policy=in_block)
    # embedding, last norm and head: gathered for all of forward
    fully_shard(model, mesh=ranks.mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=reduce))
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no pre-multiplied sum
    model.to_empty(device=ranks.device)
    if model_config.tie_embeddings:
        model.head.weight = model.embedding.weight
    with implicit_replication():  # each rank draws a whole matrix and keeps its rows
        model.init_weights(config.seed)
    return model


def _prepare(model: Model, config: TrainConfig) -> Model:
    """Activation checkpointing and compiling, which come before sharding."""
    model.activation_checkpointing = config.activation_checkpointing == "full"
    if config.compile:
        model.compile_blocks()
    return model


def gather_weights(model: Model) -> None:
    """Makes single layers of a sharded model usable: only a complete forward pass gathers embedding and head.

    Call it under `autocast`, like any forward pass of a sharded model.
    """
    if isinstance(model, FSDPModule):
        one = torch.zeros(1, 1, dtype=torch.int64, device=model.norm.weight.device)
        with torch.no_grad():
            model(one, one, one)


def reshard_weights(model: Model) -> None:
    """Frees what a forward pass without a backward pass has gathered; until then the parameters are not the shards."""
    if isinstance(model, FSDPModule):
        model.reshard()


def autocast(config: TrainConfig, ranks: Ranks) -> AbstractContextManager[Any]:
    """The types of a forward pass, the same on any number of ranks: products in `precision`, the rest in fp32."""
    if config.precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(ranks.device.type, TYPES[config.precision])


def eager(config: TrainConfig) -> AbstractContextManager[Any]:
    """Runs compiled blocks uncompiled: for inputs of many shapes, such as tasks and single documents.

    torch compiles one graph per shape and one for any shape, and stops a run that needs more than a few others.
    """
    return torch.compiler.set_stance("force_eager") if config.compile else contextlib.nullcontext()


def full_tensor(value: Tensor) -> Tensor:
    """The complete tensor where `value` is sharded, else `value`."""
    return value.full_tensor() if isinstance(value, DTensor) else value

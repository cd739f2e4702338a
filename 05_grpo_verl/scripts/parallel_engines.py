"""One forward and backward pass of verl's own engines, each in a layout of processes, to be laid side by side.

    passes = run_layout(Layout("tensor", engine="megatron", tensor=2), model, batch)     # one Pass for each process

verl reads its environment when this file is imported (verl_environment).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import verl.workers.engine  # noqa: F401  # the engines register themselves
from parallel_processes import in_processes
from parallel_traffic import Interval, Sent, recorded_stages, recorded_traffic
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils
from verl.workers.config import (
    FSDPEngineConfig,
    FSDPOptimizerConfig,
    HFModelConfig,
    McoreEngineConfig,
    McoreOptimizerConfig,
)
from verl.workers.engine import EngineRegistry
from verl_layout import TRANSFORMER_ON_CPU


@dataclass(frozen=True)
class Layout:
    """How a model is cut. The engine fsdp2 knows `sequence`, megatron the two others."""

    name: str
    engine: str  # fsdp2 | megatron
    attention: str = "sdpa"
    sequence: int = 1  # parts of each sequence, each process holding its shard of every weight (Ulysses)
    tensor: int = 1  # parts of each layer
    pipeline: int = 1  # parts of the stack of layers

    @property
    def processes(self) -> int:
        return self.sequence * self.tensor * self.pipeline

    @property
    def is_packed(self) -> bool:
        """Whether the sequences of a micro batch lie in one row, which Ulysses needs."""
        return self.attention == "packed" or self.sequence > 1


@dataclass(frozen=True)
class Batch:
    """Sequences, and for each token how much its log-probability weighs in the loss."""

    tokens: list[torch.Tensor]  # each (length,)
    weights: list[torch.Tensor]  # each (length,); 0 where a token does not count
    micro_batch: int  # sequences in one pass


@dataclass
class Pass:
    """What one process saw."""

    log_probs: list[torch.Tensor]  # of each sequence (length,); empty where the process has no output
    gradients: dict[str, torch.Tensor]  # whole, under transformers' names; of process 0
    grad_norm: float
    held: dict[str, tuple[int, ...]]  # shape of each weight in this process, under the engine's names
    sent: list[Sent] = field(default_factory=list)
    stages: list[Interval] = field(default_factory=list)


def run_layout(layout: Layout, model: Path | str, batch: Batch) -> list[Pass]:
    """A forward and backward pass and an optimizer step in each process of the layout.

    Raises:
        RuntimeError: see in_processes.
    """
    return in_processes(layout.processes, _pass, layout, model, batch)


def _pass(layout: Layout, model: Path | str, batch: Batch) -> Pass:
    engine = new_engine(layout, model, batch.micro_batch)
    engine.initialize()
    seen: list[torch.Tensor] = []

    def loss(model_output: dict, data: TensorDict, dp_group: Any = None) -> tuple[torch.Tensor, dict]:
        log_probs = model_output["log_probs"]
        seen.extend(part.detach().clone() for part in log_probs.unbind())
        return -(log_probs.values() * data["loss_mask"].values()).sum() / len(batch.tokens), {}

    with engine.train_mode():  # which forgets the gradients at its end
        engine.optimizer_zero_grad()
        with recorded_traffic() as sent, recorded_stages() as stages:
            engine.forward_backward_batch(data_of(layout, batch), loss)
        gradients = _gradients(engine, layout)
        norm = float(engine.optimizer_step())
    held = {name: tuple(_local(value).shape) for name, value in _weights(engine, layout)}
    return Pass(seen, gradients if dist.get_rank() == 0 else {}, norm, held, list(sent), list(stages))


def new_engine(layout: Layout, model: Path | str, micro_batch: int) -> Any:
    """verl's engine for a layout, not yet initialised."""
    packed = layout.is_packed
    config = HFModelConfig(
        path=str(model),
        use_remove_padding=packed,
        enable_gradient_checkpointing=False,
        override_config={"attn_implementation": layout.attention},
    )
    config.model_type = "language_model"
    common = {
        "forward_only": False,
        "use_remove_padding": packed,
        "use_dynamic_bsz": False,
        "micro_batch_size_per_gpu": micro_batch,
    }
    if layout.engine == "megatron":
        engine_config = McoreEngineConfig(
            tensor_model_parallel_size=layout.tensor,
            pipeline_model_parallel_size=layout.pipeline,
            vanilla_mbridge=True,
            sequence_parallel=False,
            use_distributed_optimizer=False,
            override_transformer_config=dict(TRANSFORMER_ON_CPU),
            **common,
        )
        optimizer = McoreOptimizerConfig(lr=1e-3, total_training_steps=10, lr_decay_steps=10)
    else:
        engine_config = FSDPEngineConfig(
            strategy=layout.engine,
            ulysses_sequence_parallel_size=layout.sequence,
            use_torch_compile=False,
            use_no_sync_for_gradient_accumulation=False,  # as in verl's configuration, not the dataclass
            mixed_precision={"param_dtype": "fp32"},
            **common,
        )
        optimizer = FSDPOptimizerConfig(lr=1e-3, total_training_steps=10)
    return EngineRegistry.new(
        model_type="language_model",
        backend=layout.engine,
        model_config=config,
        engine_config=engine_config,
        optimizer_config=optimizer,
        checkpoint_config=CheckpointConfig(),
    )


def data_of(layout: Layout, batch: Batch) -> TensorDict:
    """The batch in verl's form, with what its engines want to know besides."""

    def ragged(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    columns = {
        "input_ids": ragged(batch.tokens),
        "position_ids": ragged([torch.arange(len(tokens)) for tokens in batch.tokens]),
        "loss_mask": ragged(batch.weights),
    }
    data = TensorDict(columns, batch_size=len(batch.tokens))
    tensordict_utils.assign_non_tensor(
        data,
        temperature=1.0,
        use_remove_padding=layout.is_packed,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=batch.micro_batch,
        calculate_entropy=False,
        use_fused_kernels=False,
    )
    return data


def _weights(engine: Any, layout: Layout) -> list[tuple[str, torch.Tensor]]:
    modules = engine.module if layout.engine == "megatron" else [engine.module]
    return [pair for module in modules for pair in module.named_parameters()]


def _local(value: torch.Tensor) -> torch.Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def _gradients(engine: Any, layout: Layout) -> dict[str, torch.Tensor]:
    """Whole gradients under transformers' names. All processes ask together, since they gather them."""
    if layout.engine != "megatron":
        return {name: value.grad.full_tensor().clone() for name, value in _weights(engine, layout)}
    # mbridge gathers weights and gives them transformers' names, so gradients stand in their place for a moment.
    with torch.no_grad():
        kept = [(value, value.detach().clone()) for _, value in _weights(engine, layout)]
        for value, _ in kept:
            value.copy_(value.main_grad)
        gathered = {name: value.clone() for name, value in engine.bridge.export_weights(engine.module)}
        for value, weight in kept:
            value.copy_(weight)
    return gathered

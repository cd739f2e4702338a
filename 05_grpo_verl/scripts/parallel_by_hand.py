"""Tensor and pipeline parallelism in a few lines of torch each, next to the whole model: to see that nothing else is done.

Both run in each of two processes of a process group, and give the gradients that the process holds.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from transformers import PreTrainedModel

Gradients = dict[str, Tensor]
# A matrix cut by rows of its output, then one cut by its input: between the two each process has its own heads (or its own
# part of the MLP), and only their sum has to be exchanged (Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053, section 3).
TENSOR_PLAN = {
    "self_attn.q_proj": ColwiseParallel(),
    "self_attn.k_proj": ColwiseParallel(),
    "self_attn.v_proj": ColwiseParallel(),
    "self_attn.o_proj": RowwiseParallel(),
    "mlp.gate_proj": ColwiseParallel(),
    "mlp.up_proj": ColwiseParallel(),
    "mlp.down_proj": RowwiseParallel(),
}


def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean negative log-probability of each next token; (sequences, length, vocabulary) and (sequences, length)."""
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def whole_model(model: PreTrainedModel, tokens: Tensor) -> Gradients:
    """What the others are compared with: one process, everything."""
    next_token_loss(model(input_ids=tokens).logits, tokens).backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def tensor_parallel(model: PreTrainedModel, tokens: Tensor) -> Gradients:
    """Every layer cut over all processes; embedding, norms and head stay whole in each."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("tensor",))
    for layer in model.model.layers:
        parallelize_module(layer, mesh, TENSOR_PLAN)
    next_token_loss(model(input_ids=tokens).logits, tokens).backward()
    return {name: _whole(weight.grad) for name, weight in model.named_parameters()}


def _whole(gradient: Tensor) -> Tensor:
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


class Stage(nn.Module):
    """Some layers in a row; the first stage has the embedding as well, the last one the norm and the head."""

    def __init__(self, model: PreTrainedModel, rank: int, stages: int):
        super().__init__()
        layers = len(model.model.layers) // stages
        self.layers = model.model.layers[rank * layers : (rank + 1) * layers]
        self.rotary = model.model.rotary_emb
        self.embedding = model.model.embed_tokens if rank == 0 else None
        self.norm, self.head = (model.model.norm, model.lm_head) if rank == stages - 1 else (None, None)

    def forward(self, given: Tensor) -> Tensor:
        """Tokens (sequences, length) or hidden states (sequences, length, size); gives hidden states or logits."""
        hidden = self.embedding(given) if self.embedding else given
        positions = torch.arange(hidden.shape[1]).unsqueeze(0)
        turned = self.rotary(hidden, positions)
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=turned, position_ids=positions, attention_mask=None)
        return self.head(self.norm(hidden)) if self.head else hidden


def pipeline_parallel(model: PreTrainedModel, tokens: Tensor, micro_batches: int) -> Gradients:
    """The layers cut into as many stages as there are processes, which work on different micro batches at the same time.

    A tied head and embedding are two copies here, each with its part of the gradient.
    """
    rank, stages = dist.get_rank(), dist.get_world_size()
    mine = Stage(model, rank, stages)
    stage = PipelineStage(mine, rank, stages, torch.device("cpu"))
    schedule = Schedule1F1B(stage, n_microbatches=micro_batches, loss_fn=next_token_loss)
    schedule.step(*([tokens] if rank == 0 else []), **({"target": tokens} if rank == stages - 1 else {}))
    names = {id(weight): name for name, weight in model.named_parameters()}
    return {names[id(weight)]: weight.grad for weight in mine.parameters()}

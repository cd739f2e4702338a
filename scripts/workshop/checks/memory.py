"""Memory arithmetic: what a device has to hold to train a model with GRPO or DPO, before a machine is paid for.

    estimate(SHAPES["Qwen3-4B"], read_recipe("recipes/full.yaml"), devices=4).total

Five things take memory: parameters, gradients, optimizer state, activations and the KV cache of the rollouts. The
first three are exact (a test compares them with what processes really hold); the other two are counted from the
tensors that PyTorch keeps, to within a tenth. Not counted: the framework itself (0.5-1 GB with CUDA, 0.6 GB on CPU),
fragmentation, and vLLM, which takes the share of the device that the recipe gives it. memory_checks.py adds these.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workshop.folders import SCRIPTS

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4_BYTES = 0.5 + 0.127 / 8  # half a byte, and 0.127 bits of scales (QLoRA, section 3: double quantization)
GB = 1e9
FRAMEWORK_BYTES = 1.5 * GB  # CUDA, NCCL, fragmentation: what no recipe can change
# TRL never holds the logits of a whole batch: its fused head computes a tile of so many tokens and words at a time, in place
# (trl 1.16, kernels/chunked_logprob.py and trainer/utils.py). Unsloth cuts them too.
_TILE_TOKENS, _TILE_WORDS = 4096, 32768


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a Llama-like model: a decoder with gated MLPs and grouped key and value heads."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool = True  # input and output embedding are one matrix
    attention_bias: bool = False  # Qwen2: a bias on query, key and value
    head_norms: bool = False  # Qwen3: a norm on each query and key head
    positions: int | None = None  # tokens of the longest sequence that it was made for; None: it does not say

    @classmethod
    def read(cls, config: Path | str | dict[str, Any]) -> "ModelShape":
        """From a model's config.json (Llama, Qwen2 or Qwen3)."""
        if not isinstance(config, dict):
            config = json.loads(Path(config).read_text(encoding="utf-8"))
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config["num_key_value_heads"],
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            tied=config["tie_word_embeddings"],
            attention_bias=config["model_type"] == "qwen2",
            head_norms=config["model_type"] == "qwen3",
            positions=config.get("max_position_embeddings"),
        )

    @property
    def linear_weights(self) -> int:
        """Weights of one layer's seven matrices: those that adapters sit on and that NF4 packs."""
        attention = self.hidden * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer."""
        biases = self.head_size * (self.heads + 2 * self.kv_heads) if self.attention_bias else 0
        norms = 2 * self.hidden + (2 * self.head_size if self.head_norms else 0)
        return self.linear_weights + biases + norms

    @property
    def parameters(self) -> int:
        """All parameters; a shared embedding counts once."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + embeddings + self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Of the matrix that words are looked up in."""
        return self.vocabulary * self.hidden

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of LoRA adapters of that rank on every matrix of every layer."""
        query, key = self.heads * self.head_size, self.kv_heads * self.head_size
        sides = 2 * (self.hidden + query) + 2 * (self.hidden + key) + 3 * (self.hidden + self.intermediate)
        return self.layers * rank * sides


# The numbers of each model's config.json on the Hugging Face Hub.
SHAPES = {
    **{
        config.parent.name: ModelShape.read(config)
        for config in sorted((SCRIPTS / "assets").glob("*/config.json"))
    },
    "SmolLM2-135M": ModelShape(30, 576, 1536, 9, 3, 64, 49152, positions=8192),
    "Qwen3-0.6B": ModelShape(28, 1024, 3072, 16, 8, 128, 151936, head_norms=True, positions=40960),
    "Qwen3-1.7B": ModelShape(28, 2048, 6144, 16, 8, 128, 151936, head_norms=True, positions=40960),
    "Qwen3-4B": ModelShape(36, 2560, 9728, 32, 8, 128, 151936, head_norms=True, positions=40960),
    "Qwen3-8B": ModelShape(36, 4096, 12288, 32, 8, 128, 151936, tied=False, head_norms=True, positions=40960),
    "Qwen3-14B": ModelShape(
        40, 5120, 17408, 40, 8, 128, 151936, tied=False, head_norms=True, positions=40960
    ),
    "Qwen3-32B": ModelShape(
        64, 5120, 25600, 64, 8, 128, 151936, tied=False, head_norms=True, positions=40960
    ),
    "Llama-3.2-1B": ModelShape(16, 2048, 8192, 32, 8, 64, 128256, positions=131072),
    "Llama-3.1-8B": ModelShape(32, 4096, 14336, 32, 8, 128, 128256, tied=False, positions=131072),
    "Llama-3.3-70B": ModelShape(80, 8192, 28672, 64, 8, 128, 128256, tied=False, positions=131072),
}


_PACKAGED = {"pypi:smollm2": "SmolLM2-135M"}
_KINDS = ("llama", "qwen2", "qwen3")  # what ModelShape.read counts rightly


def shape_of(spec: str, config: dict[str, Any] | None = None) -> ModelShape | None:
    """The shape of the model that a recipe's base_model names: by its name, else by its config.json; None: not known."""
    name = _PACKAGED.get(spec, spec.rpartition("/")[2].rpartition(":")[2])
    known = SHAPES.get(name) or SHAPES.get(name.removesuffix("-Instruct").removesuffix("-Base"))
    if known or config is None or config.get("model_type") not in _KINDS:
        return known
    try:
        return ModelShape.read({"tie_word_embeddings": config["model_type"] != "llama"} | config)
    except KeyError:
        return None


@dataclass(frozen=True)
class Memory:
    """Bytes on each device at the moment of a training step when most is held."""

    parameters: float
    gathered: float  # whole copies of weights in use
    gradients: float
    optimizer: float
    activations: float
    kv_cache: float  # during generation, when activations are not held

    @property
    def total(self) -> float:
        """What has to fit: activations and KV cache are never held at the same time."""
        states = self.parameters + self.gathered + self.gradients + self.optimizer
        return states + max(self.activations, self.kv_cache)


def estimate(
    shape: ModelShape, recipe: dict[str, Any], *, devices: int, prompt_tokens: int = 128, sharded: bool = True
) -> Memory:
    """Bytes on each of `devices` devices when `shape` is trained with GRPO as `recipe` (a recipe file's content) says.

    Args:
        prompt_tokens: of the longest prompt.
        sharded: False is plain data parallelism (DDP): every device holds everything.

    Raises:
        KeyError: the recipe says no per_device_train_batch_size or max_completion_length.
    """
    batch, answer = int(recipe["per_device_train_batch_size"]), int(recipe["max_completion_length"])
    # Without an engine, the completions of all accumulation steps are generated at once.
    at_once = batch * int(
        recipe.get("steps_per_generation") or recipe.get("gradient_accumulation_steps") or 1
    )
    compute = _compute_bytes(recipe)
    return Memory(
        **_states(shape, recipe, devices, sharded),
        activations=activation_bytes(shape, batch * (prompt_tokens + answer), compute, _checkpointing(recipe))
        + head_bytes(shape, batch * answer, compute),
        kv_cache=0.0
        if recipe.get("use_vllm")
        else kv_cache_bytes(shape, at_once * (prompt_tokens + answer), compute),
    )


def dpo_estimate(shape: ModelShape, recipe: dict[str, Any], *, devices: int, sharded: bool = True) -> Memory:
    """The same for DPO: `per_device_train_batch_size` pairs are twice as many sequences of `max_length` tokens.

    The reference takes nothing where the adapters can be switched off, or where it was asked before training
    (precompute_ref_log_probs); else it is a second copy of the weights.

    Raises:
        KeyError: the recipe says no per_device_train_batch_size or max_length.
    """
    tokens = 2 * int(recipe["per_device_train_batch_size"]) * int(recipe["max_length"])
    states = _states(shape, recipe, devices, sharded)
    if not recipe.get("lora_rank") and not recipe.get("precompute_ref_log_probs"):
        states["parameters"] *= 2
    compute = _compute_bytes(recipe)
    return Memory(
        **states,
        activations=activation_bytes(shape, tokens, compute, _checkpointing(recipe))
        + head_bytes(shape, tokens, compute),
        kv_cache=0.0,
    )


def _states(shape: ModelShape, recipe: dict[str, Any], devices: int, sharded: bool) -> dict[str, float]:
    """Bytes on each device that training holds all the time: those that sharding divides, and what is gathered."""
    rank, share = int(recipe.get("lora_rank") or 0), devices if sharded else 1
    fsdp = recipe.get("fsdp_config") or {}
    compute = _compute_bytes(recipe)
    stored = BYTES[recipe.get("dtype", "float32")]
    # Under bf16 FSDP2 keeps what is trained in float32 (master weights) and casts what it gathers.
    trained_bytes = 4 if recipe.get("bf16") else stored
    trained = shape.adapter_parameters(rank) if rank else shape.parameters
    frozen = _frozen_bytes(shape, stored, recipe.get("quantization")) if rank else 0.0
    gradients = trained * trained_bytes
    moment = trained if "8bit" in str(recipe.get("optim", "")) else gradients
    unit = max(shape.layer_parameters, shape.embedding_parameters) * compute
    whole = shape.parameters * compute
    if not sharded:
        gathered = 0.0
    else:
        gathered = min(2 * unit, whole) if fsdp.get("reshard_after_forward", True) else whole
    return {
        "parameters": (frozen + trained * trained_bytes) / share,
        "gathered": gathered,
        "gradients": gradients / share,
        "optimizer": 2 * moment / share,  # AdamW: mean and mean square of each gradient
    }


def _compute_bytes(recipe: dict[str, Any]) -> int:
    """Bytes of a number in the forward pass."""
    return 2 if recipe.get("bf16") else 4


def _checkpointing(recipe: dict[str, Any]) -> bool:
    fsdp = recipe.get("fsdp_config") or {}
    return bool(fsdp.get("activation_checkpointing") or recipe.get("gradient_checkpointing"))


def whole_model_bytes(shape: ModelShape, dtype: str, quantization: str | None = None) -> float:
    """A model as an evaluation loads it: all weights in `dtype`, or the layers' matrices in 4 bits."""
    return _frozen_bytes(shape, BYTES[dtype], quantization)


def _frozen_bytes(shape: ModelShape, stored: int, quantization: str | None) -> float:
    linear = shape.layers * shape.linear_weights
    return (shape.parameters - linear) * stored + linear * (NF4_BYTES if quantization else stored)


def kv_cache_bytes(shape: ModelShape, tokens: int, bytes_each: int) -> float:
    """Keys and values of every layer for so many tokens (all sequences of a batch together)."""
    return 2.0 * shape.layers * shape.kv_heads * shape.head_size * tokens * bytes_each


def activation_bytes(shape: ModelShape, tokens: int, bytes_each: int, checkpointing: bool = False) -> float:
    """What the backward pass needs of the decoder layers: one layer's tensors, and with checkpointing only its input."""
    query, key = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    # What goes in and its normalised form, in float32; what comes out.
    norms = 2 * shape.hidden * (2 * 4 + bytes_each)
    attention = 2 * (query + key) * bytes_each  # query, key, value and the heads' output
    if shape.head_norms:
        attention += 2 * (query + key) * 4
    mlp = 4 * shape.intermediate * bytes_each  # gate, its activation, up and their product
    layer = tokens * (norms + attention + mlp)
    if not checkpointing:
        return shape.layers * layer
    return shape.layers * tokens * shape.hidden * bytes_each + layer


def head_bytes(shape: ModelShape, tokens: int, bytes_each: int) -> float:
    """The tile of logits that TRL's fused head works on, of so many scored tokens (all sequences of a batch together)."""
    return float(min(tokens, _TILE_TOKENS) * min(shape.vocabulary, _TILE_WORDS) * bytes_each)

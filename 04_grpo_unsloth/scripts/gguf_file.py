"""A model as one GGUF file, the format of llama.cpp and Ollama: weights in 8 bits, tokenizer and chat template.

Unsloth's own `save_pretrained_gguf` calls llama.cpp's converter. Where that is missing it runs apt-get, clones
llama.cpp from GitHub and compiles it, which a job without a network cannot, and which a job should not do unasked.
llama.cpp's Python package `gguf` writes the format too; here that is done for three architectures. llama.cpp (as in
xllamacpp 2026.10) read the tiny model's file and answered 95 of 100 problems right, transformers reads it in export.py.
"""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
Q8_0 = gguf.GGMLQuantizationType.Q8_0
BLOCK = 32  # weights that share a scale in Q8_0


class GgufError(Exception):
    """The model or its tokenizer is of a kind that cannot be written; the message says which."""


def write_gguf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Writes matrices in Q8_0 (8 bits and a scale for each 32 weights) and the rest in float32.

    Raises:
        GgufError: another architecture, or a tokenizer that llama.cpp does not know.
    """
    config = model.config
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise GgufError(f"Cannot write a GGUF of architecture '{config.model_type}' (can: {known}).")
    arch = ARCHITECTURES[config.model_type]
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    _add_sizes(writer, config)
    ends = model.generation_config.eos_token_id
    writer.add_eos_token_id(ends[0] if isinstance(ends, list) else ends)
    _add_tokenizer(writer, tokenizer, config.vocab_size)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # a reader takes the embedding
        if config.model_type == "llama":
            weight = _interleaved(name, weight, config)
        matrix = weight.detach().float().cpu().numpy()
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if matrix.ndim == 2 and matrix.shape[1] % BLOCK == 0:
            writer.add_tensor(gguf_name, gguf.quants.quantize(matrix, Q8_0), raw_dtype=Q8_0)
        else:
            writer.add_tensor(gguf_name, matrix.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Byte-level BPE, the only kind here; `pre` is llama.cpp's name for how a text is cut before the merges."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    texts = {number: text for text, number in tokenizer.get_vocab().items()}
    special = {token["id"] for token in content["added_tokens"] if token["special"]}
    kinds = [gguf.TokenType.CONTROL if n in special else gguf.TokenType.NORMAL for n in range(size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(content))
    writer.add_token_list([texts.get(number, f"[unused{number}]") for number in range(size)])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def _pre_tokenizer(content: dict) -> str:
    steps = content["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    if content["model"]["type"] == "BPE":
        if kinds == ["ByteLevel"]:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
            return "smollm"  # each digit alone, then GPT-2's pattern
        if kinds == ["Split", "ByteLevel"]:
            return "qwen2"
    raise GgufError(
        f"No name of llama.cpp's is known here for a tokenizer of {content['model']['type']}, {kinds}."
    )


def _interleaved(name: str, weight: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Llama's query and key rows in llama.cpp's order: it turns neighbours by an angle, transformers turns halves."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = heads.get(name.split(".")[-2])
    if count is None:
        return weight
    return weight.reshape(count, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)

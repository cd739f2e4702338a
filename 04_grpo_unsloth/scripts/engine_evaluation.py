"""pass@1 through the vLLM engine that Unsloth keeps beside the policy, where a recipe has one (use_vllm: true).

The engine takes about nine tenths of the GPU as it is loaded, and Standby gives them back only once training generates.
What is left would not hold the KV cache of transformers' generate; the engine has one of its own. It computes with the
policy's own base weights and gets the adapters with each call, the way Unsloth gives them to it for TRL's rollouts, so
what is measured is what is trained. A sleeping engine wakes by itself when it is asked (unsloth_zoo 2026.10.9,
vllm_utils.py: patch_vllm_enable_sleep_mode, load_lora).
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from rl import evaluation
from rl.generation import Generated, Messages
from rl.tasks import Row
from rl.templates import render
from transformers import PreTrainedTokenizerBase


def evaluate(
    policy: PeftModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row], **options: Any
) -> evaluation.Evaluation:
    """rl.evaluation.evaluate, with the policy's engine if it has one."""
    generate = generate_with_engine if hasattr(policy, "vllm_engine") else None
    return evaluation.evaluate(policy, tokenizer, rows, generate=generate, **options)


def generate_with_engine(
    policy: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[Generated]:
    """One completion for each conversation, as rl.generation.generate makes them: temperature 0 is greedy, otherwise the
    model's own distribution is sampled, and the length counts the end token.

    vLLM's tokens include the end token, and it calls an answer that reached the limit finished by "length" (vLLM's
    v1/core/sched/utils.py: check_stop looks for the end token first).
    """
    from vllm import SamplingParams  # in requirements-gpu.txt only

    texts = [render(tokenizer, prompt, chat_template_kwargs=chat_template_kwargs) for prompt in prompts]
    asked = [{"prompt_token_ids": ids} for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    # A seed for each request, or all prompts of a batch would be answered with the same random numbers.
    sampling = [
        SamplingParams(temperature=temperature, max_tokens=max_new_tokens, seed=(seed << 16) + place)
        for place in range(len(asked))
    ]
    # The folder gets the adapters' configuration; their values go from tensor to tensor.
    folder = Path(tempfile.gettempdir()) / "evaluated_adapters"
    adapters = policy.load_lora(str(folder), load_tensors=True)
    answers = policy.vllm_engine.generate(
        asked, sampling_params=sampling, use_tqdm=False, lora_request=adapters
    )
    completions = [answer.outputs[0] for answer in answers]
    return [
        Generated(
            text=tokenizer.decode(list(completion.token_ids), skip_special_tokens=True),
            tokens=len(completion.token_ids),
            cut_off=completion.finish_reason == "length",
        )
        for completion in completions
    ]

"""Writes optimizer steps of GRPO down in full, so that a notebook can work them out again by hand (lesson/by_hand.py).

    trainer = recording_trainer([1, 2], config)(model=policy, args=config, ...)  # in place of GRPOTrainer(...)

leaves steps/step_0001.npz and steps/step_0002.npz among the job's outputs: what TRL computed the step's loss from, and
what it logged for the step. Training is not changed: nothing random is drawn and no number altered, so a run without
the record ends with the same weights, bit by bit. What was recorded before an interruption is lost with the machine.

Read beside TRL 1.16, trl/trainer/grpo_trainer.py, of which the methods below see what comes in and goes out.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from job.arguments import RecipeError
from job.container import output_data_dir
from rl.answers import completion_text
from trl import GRPOConfig, GRPOTrainer

FOLDER = "steps"  # below output_data_dir()
# Of the trainer's config: all that the loss depends on. What by_hand.py does not compute, it refuses by its value here.
SETTINGS = (
    "loss_type",
    "importance_sampling_level",
    "beta",
    "temperature",
    "num_generations",
    "num_iterations",
    "steps_per_generation",
    "max_completion_length",
    "scale_rewards",
    "multi_objective_aggregation",
    "delta",
    "top_entropy_quantile",
    "off_policy_mask_threshold",
    "use_bias_correction_kl",
    "entropy_coef",
    "use_adaptive_entropy",
)


def recording_trainer(record_steps: Sequence[int], config: GRPOConfig) -> Callable[..., GRPOTrainer]:
    """What to call in place of GRPOTrainer, with the same arguments, to have these optimizer steps (from 1) written down.

    Raises:
        RecipeError: with this config a step could not be worked out from its record; said before anything is computed.
    """
    problems = []
    if config.logging_steps != 1:
        problems.append(
            f"a step is compared with what was logged for it alone: set logging_steps to 1, not {config.logging_steps}."
        )
    if config.steps_per_generation % config.gradient_accumulation_steps:
        problems.append(
            "the completions of a recorded step have to come from one generation: make steps_per_generation "
            f"({config.steps_per_generation}) a multiple of gradient_accumulation_steps "
            f"({config.gradient_accumulation_steps})."
        )
    if problems:
        raise RecipeError("\n".join(f"record_steps: {problem}" for problem in problems))
    return functools.partial(RecordingGRPOTrainer, record_steps=record_steps)


class RecordingGRPOTrainer(GRPOTrainer):
    """A GRPOTrainer that also writes down the optimizer steps (from 1) in `record_steps`; see `recording_trainer`."""

    def __init__(self, *args: Any, record_steps: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._record_steps = frozenset(record_steps)
        self._generation: dict[str, Any] = {}  # the newest generation batch, of all processes
        self._rows: list[dict[str, Any]] = []  # the completions of the step so far, of all processes

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return batch
        # TRL shuffles a generation batch and deals it out to several steps; each completion keeps its number.
        first = len(inputs) * self.accelerator.process_index
        batch["position"] = torch.arange(first, first + len(inputs), device=batch["completion_ids"].device)
        rows = zip(inputs, _loss_mask(batch).sum(1).tolist(), strict=True)
        known = gather_object([(row["question"], row["answer"], length) for row, length in rows])
        # TRL keeps, for its table of completions, those of the newest generation batch on all processes.
        self._generation = {
            "problems": [problem for problem, _, _ in known],
            "answers": [answer for _, answer, _ in known],
            "lengths": np.array([length for *_, length in known]),
            "completions": [completion_text(completion) for completion in self._logs["completion"]],
            "rewards": np.array([list(self._logs["rewards"][name]) for name in self.reward_func_names]).T,
            "advantages": np.array(self._logs["advantages"], dtype=np.float32),
        }
        return batch

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple:
        logps, entropies, aux_loss = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if entropies is not None:  # asked for with the policy's own forward pass, the one that has gradients
            self._forward = logps.detach(), entropies.detach()
        return logps, entropies, aux_loss

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        if self.model.training and self.state.global_step + 1 in self._record_steps:
            self._rows += gather_object(list(self._completions(inputs)))
        return loss

    def _completions(self, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """This process's completions in one forward pass, with numbers for each of their tokens."""
        policy, entropy = self._forward
        columns = {
            "mask": _loss_mask(inputs),
            "policy": policy,
            "entropy": entropy,
            # TRL leaves it out where the policy that sampled is the one that is updated: the ratio is then 1.
            "sampler": inputs.get("old_per_token_logps", policy),
            "reference": inputs.get("ref_per_token_logps"),
            # With vLLM: the policy that sampled, as the trainer computes it, over the same as the engine did.
            "engine_ratio": inputs.get("importance_sampling_ratio"),
        }
        numbers = {
            name: values.expand_as(policy).float().cpu().numpy()
            for name, values in columns.items()
            if values is not None
        }
        for i, ids in enumerate(inputs["completion_ids"]):
            # One that was cut off may be masked as a whole; it fills all places.
            length = int(inputs["completion_mask"][i].sum()) or len(ids)
            yield {
                "position": int(inputs["position"][i]),
                "process": self.accelerator.process_index,
                "micro_batch": self._rows[-1]["micro_batch"] + 1 if self._rows else 0,
                "tokens": [self._tokenizer.decode([token]) for token in ids[:length].tolist()],
                **{name: values[i] for name, values in numbers.items()},
            }

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)  # adds TRL's metrics to `logs`, which history.jsonl has too
        if self._rows and self.accelerator.is_main_process:
            self._write(logs)
        self._rows = []

    def _write(self, logs: dict[str, float]) -> Path:
        rows, step = self._rows, self.state.global_step
        settings = {name: getattr(self.args, name) for name in SETTINGS} | {
            "epsilon_low": self.epsilon_low,
            "epsilon_high": self.epsilon_high,
            "gradient_accumulation_steps": self.current_gradient_accumulation_steps,
            "reward_names": self.reward_func_names,
            "reward_weights": self.reward_weights.tolist(),
            "router_aux_loss": self.aux_loss_enabled,
        }
        texts = {
            "number": step,
            "settings": settings,
            "logged": {name: value for name, value in logs.items() if isinstance(value, int | float)},
            "tokens": [row["tokens"] for row in rows],
        }
        arrays = {
            name: np.array([row[name] for row in rows]) for name in ("position", "process", "micro_batch")
        }
        for name in ("mask", "policy", "sampler", "reference", "entropy", "engine_ratio"):
            if name in rows[0]:
                arrays[name] = _padded([row[name] for row in rows])
        arrays["mask"] = arrays["mask"].astype(bool)
        for name, value in self._generation.items():
            (arrays if isinstance(value, np.ndarray) else texts)[name] = value
        path = output_data_dir() / FOLDER / f"step_{step:04d}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, texts=np.array(json.dumps(texts)), **arrays)
        return path


def _loss_mask(batch: dict[str, Any]) -> torch.Tensor:
    """Which tokens the loss counts, (completions, tokens): those that the policy wrote itself."""
    return batch["completion_mask"] * batch.get("tool_mask", 1)


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of different lengths as one array, with zeros behind their ends: processes pad to different lengths."""
    table = np.zeros((len(rows), max(map(len, rows))), rows[0].dtype)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table

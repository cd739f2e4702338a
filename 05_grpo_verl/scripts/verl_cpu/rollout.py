"""Rollouts by transformers' generate(), under the name `hf`: `actor_rollout_ref.rollout.name: hf`.

One server (a Ray actor) beside each training process takes prompts as token ids and gives completions with the log
probability of each token, as verl's servers on vLLM do. Before each step the actor pushes its weights here. Requests
that arrive together are generated in one batch.
"""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from verl.workers.rollout.base import _ROLLOUT_REGISTRY, BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

NAME = "hf"
GATHER_S = 0.05  # a batch waits for more requests until none has come for so long
Request = tuple[list[int], dict[str, Any], asyncio.Future]


def register() -> None:
    """Make the rollout `hf` known: the replica by its registry, the actor's side by the table beside it."""
    RolloutReplicaRegistry.register(NAME, lambda: Replica)
    # There is no function to register this side with (0.9.1), only the table.
    _ROLLOUT_REGISTRY[(NAME, "async")] = f"{__name__}.{WeightSender.__name__}"


class Server:
    """A model that answers token ids with token ids."""

    def __init__(self, config: Any, model_path: str, rank: int) -> None:
        torch.manual_seed(config.seed + rank)
        self._response_length = config.response_length
        self._longest = config.prompt_length + config.response_length
        self._tokenizer = AutoTokenizer.from_pretrained(model_path)
        self._model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
        self._waiting: list[Request] = []
        self._worker: asyncio.Task | None = None
        self._step: int | None = None

    async def update_weights(self, weights: dict[str, torch.Tensor], step: int | None) -> None:
        """Take the actor's weights of a step. A tied head has none of its own; any other difference is an error."""
        missing, unexpected = self._model.load_state_dict(weights, strict=False)
        tied = set(self._model.all_tied_weights_keys)
        if unexpected or set(missing) - tied:
            raise ValueError(f"these weights are not the model's: missing {missing}, unexpected {unexpected}")
        self._step = step

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **media: Any
    ) -> TokenOutput:
        """One completion; verl calls this once for each, many at a time."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((list(prompt_ids), dict(sampling_params), answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while await self._gathered():
            first = self._settings(self._waiting[0])
            batch = [request for request in self._waiting if self._settings(request) == first]
            self._waiting = [request for request in self._waiting if self._settings(request) != first]
            prompts, limits = [prompt for prompt, _, _ in batch], [self._limit(request) for request in batch]
            try:
                outputs = await asyncio.to_thread(self._complete, prompts, limits, *first)
            except Exception as error:  # to whoever asked, and this worker goes on with the next batch
                outputs = [error] * len(batch)
            for (_, _, answer), output in zip(batch, outputs, strict=True):
                if answer.cancelled():
                    continue
                answer.set_exception(output) if isinstance(output, Exception) else answer.set_result(output)
        self._worker = None

    async def _gathered(self) -> int:
        """How many requests wait, once no more come."""
        count = -1
        while count != len(self._waiting):
            count = len(self._waiting)
            await asyncio.sleep(GATHER_S)
        return count

    def _settings(self, request: Request) -> tuple[float, float, int]:
        """Temperature, top-p and top-k: a batch shares them."""
        _, asked, _ = request
        return asked.get("temperature", 1.0), asked.get("top_p", 1.0), max(0, asked.get("top_k") or 0)

    def _limit(self, request: Request) -> int:
        """Most new tokens, as verl's servers on vLLM reckon them: what is longer verl would cut off."""
        prompt, asked, _ = request
        left = min(self._response_length, self._longest - len(prompt))
        return asked.get("max_tokens") or asked.get("max_new_tokens") or left

    @torch.no_grad()
    def _complete(
        self, prompts: list[list[int]], limits: list[int], temperature: float, top_p: float, top_k: int
    ) -> list[TokenOutput]:
        width, pad, end = max(map(len, prompts)), self._tokenizer.pad_token_id, self._tokenizer.eos_token_id
        config = GenerationConfig(
            do_sample=temperature > 0,
            temperature=temperature or 1.0,
            top_p=top_p,
            top_k=top_k,
            max_new_tokens=max(limits),
            pad_token_id=pad,
            eos_token_id=end,
            return_dict_in_generate=True,
            output_scores=True,
        )
        output = self._model.generate(
            input_ids=torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts]),
            attention_mask=torch.tensor(
                [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
            ),
            generation_config=config,
        )
        tokens = output.sequences[:, width:]  # (prompts, new tokens)
        scores = torch.stack(output.scores, dim=1).log_softmax(-1)  # (prompts, new tokens, vocabulary)
        log_probs = scores.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        results = []
        for row, row_log_probs, limit in zip(tokens.tolist(), log_probs.tolist(), limits, strict=True):
            length = min(row.index(end) + 1 if end in row else len(row), limit)
            results.append(
                TokenOutput(
                    token_ids=row[:length],
                    log_probs=row_log_probs[:length],
                    stop_reason="completed",
                    extra_fields={"global_steps": self._step},
                )
            )
        return results

    async def nothing(self, *args: Any, **kwargs: Any) -> None:
        """Memory is not handed between training and generation on a CPU, and no request is ever cut short."""

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = nothing
    abort_all_requests = resume_generation = start_profile = stop_profile = nothing


class Replica(RolloutReplica):
    """Starts the server on the host of its training process."""

    def rollout_worker_use_gpu(self) -> bool:
        return False

    async def launch_servers(self) -> None:
        node = await self.workers[0].__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id())
        server = (
            ray.remote(Server)
            .options(
                name=f"hf_server_{self.replica_rank}",
                num_cpus=0,
                max_concurrency=self.max_concurrency,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False),
            )
            .remote(self.config, self.model_config.path, self.replica_rank)
        )
        await server.nothing.remote()
        self.servers, self._server_handle, self._server_address = [server], server, f"hf-{self.replica_rank}"


class WeightSender(BaseRollout):
    """In the training process: hands the actor's weights to its server."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        if self.config.tensor_model_parallel_size != 1:
            raise ValueError("rollout hf holds a whole model: set rollout.tensor_model_parallel_size to 1")
        self._server = f"hf_server_{int(os.environ['RANK']) if replica_rank == -1 else replica_rank}"

    async def update_weights(
        self,
        weights: Iterator[tuple[str, torch.Tensor]],
        global_steps: int | None = None,
        wire_format: str = "named_tensors",
        **kwargs: Any,
    ) -> None:
        # Every process walks through all weights, since gathering a shard is something that all do together.
        whole = {name: tensor.detach().float().cpu().clone() for name, tensor in weights}
        await ray.get_actor(self._server).update_weights.remote(whole, global_steps)

    async def resume(self, tags: list[str]) -> None:
        pass

    async def release(self) -> None:
        pass

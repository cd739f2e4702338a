"""verl's synchronous trainer with six things added: rewards by name, a word on completions that failed, complete checkpoints,
a time cap, a watch for steps that never end, shorter polling.

verl logs the mean of the summed reward during training, and the parts only in validation. It learns from what there is when
completions have failed. Its checkpoints lie where each process wrote them. It does not know when the job will be ended (only its older trainer looks at a date, that of a
block of reserved machines). And it looks only every two seconds whether the completions of a step are there.
"""

import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import ray
import transfer_queue
from job.checkpoints import delete_older
from job.container import print_line
from job.stalls import StepClock
from job.time_cap import Pace, is_capped
from omegaconf import DictConfig, OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer
from verl_checkpoints import close_checkpoint
from verl_history import write_step
from verl_stacks import ask_all

# verl's 2 s, which are no setting (0.9.1), are nothing in a step of minutes and most of a tiny one.
POLL_S = 0.05
HEAD = {"node:__internal_head__": 0.001}  # a resource that only the head of a Ray cluster has


class WorkshopTrainer(PPOTrainerSync):
    """What a learner wants to see at each step of verl's own trainer."""

    peak_rss_mb = 0.0
    checkpoints_kept: int | None = None

    def on_train_begin(self) -> None:
        """Raises job.time_cap.TimeCapError: there is no time for a step."""
        super().on_train_begin()
        # verl deletes older ones once its own files are written, when the new one is not marked as whole yet, on the first host
        # alone, and those of this run only. So it is done here.
        self.checkpoints_kept = self.config.trainer.max_actor_ckpt_to_keep
        self.config.trainer.max_actor_ckpt_to_keep = self.config.trainer.max_critic_ckpt_to_keep = None
        # A checkpoint, then its merged model, then the model of the job.
        self._pace = Pace(self.config.time_cap.evaluation_seconds, saves=3)
        if is_capped() and self._pace.is_over():
            raise self._pace.error()
        self._clock = StepClock(others=ask_all)
        self._clock.begins(self.global_steps - 1)

    def on_train_end(self) -> None:
        super().on_train_end()
        self._clock.ends()

    def on_validate_end(self) -> None:
        super().on_validate_end()
        if hasattr(self, "_clock"):  # verl may validate before it trains
            self._clock.alive()

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> KVBatchMeta:
        self._clock.step_begins()
        began = time.perf_counter()
        batch = super().step(metrics, timing_raw)
        self._learned = batch, metrics, timing_raw | {"step": time.perf_counter() - began}
        asked = self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n
        if warning := missing_line(list(completions_of(batch)), asked, self.global_steps):
            print_line(warning)
        self._clock.step_ends(self.global_steps)
        self._pace.step_ended()
        if is_capped() and self._pace.is_short() and self.global_steps < self.total_training_steps:
            print_line(self._pace.stop_line(self.global_steps, self.total_training_steps))
            self.total_training_steps = self.global_steps  # for verl's loop this step is the last, then
            if self.global_steps % self.config.trainer.save_freq:  # or verl saves now
                with marked_timer("save_checkpoint", timing_raw):
                    self._save_checkpoint()
        return batch

    def _build_replay_buffer(self) -> ReplayBuffer:
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = POLL_S
        return buffer

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float], **kwargs: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, **kwargs)
        completions = completions_of(batch)
        keys = list(completions)
        data = transfer_queue.kv_batch_get(
            keys=keys, partition_id=batch.partition_id, select_fields=["extra_fields"]
        )
        scores = [dict(fields["reward_extra_info"]) for fields in list(data["extra_fields"])]
        metrics.update(reward_metrics(keys, scores))
        longest = self.config.data.max_response_length
        metrics["completions/clipped_ratio"] = clipped_ratio(list(completions.values()), longest)
        if self.peak_rss_mb:
            metrics["peak_rss_mb"] = self.peak_rss_mb

    def _save_checkpoint(self) -> None:
        self._pace.save_begins()
        super()._save_checkpoint()
        folder = Path(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")
        # verl logs a step after it has saved it: a job that ends in between, and is started again, has the step from here.
        batch, metrics, timing = self._learned
        row, epoch = dict(metrics), (self.global_steps - 1) // self.steps_per_epoch
        self._compute_metrics(batch, row, timing, global_steps=self.global_steps, epoch=epoch)
        write_step(folder, self.global_steps, row)
        made_of = OmegaConf.to_container(self.config.fingerprints)
        # In one training process of each host: it has imported what that takes, and a new one would have to.
        on_each_host = self.actor_rollout_wg.workers[:: self.config.trainer.n_gpus_per_node]
        close = [
            worker.__ray_call__.remote(lambda process: close_checkpoint(folder, made_of))
            for worker in on_each_host
        ]
        self.peak_rss_mb = max(ray.get(close))
        kept = self.checkpoints_kept
        ray.get(
            [
                worker.__ray_call__.remote(lambda process: delete_older(folder, kept))
                for worker in on_each_host
            ]
        )
        self._pace.save_ended()
        self._clock.alive()


def completions_of(batch: KVBatchMeta) -> dict[str, int]:
    """The tokens of each completion of a batch, by its key (<group>_<number>_<turn>), without verl's padding."""
    tagged = zip(batch.keys, batch.tags, strict=True)
    return {key: tag["response_len"] for key, tag in tagged if not tag.get("is_padding", False)}


def missing_line(keys: list[str], asked: int, step: int) -> str | None:
    """What to say of a step whose batch, with these keys, has fewer completions than the `asked`; None if it has them all."""
    found = len({key.rpartition("_")[0] for key in keys})
    if found >= asked:
        return None
    return (
        f"[warning] Step {step} learns from {found} of {asked} completions: the others failed, most likely in a reward that "
        "raised. The log has the error of each above, after 'Error in _run_prompt'."
    )


def clipped_ratio(lengths: list[int], longest: int) -> float:
    """Share of completions as long as is allowed: those that were cut off, and any whose end came with the last token.

    Args:
        lengths: in tokens, of all turns of a conversation and what tools answered.
        longest: data.max_response_length.
    """
    return sum(length >= longest for length in lengths) / len(lengths)


def reward_metrics(keys: list[str], scores: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each named reward, and the share of groups in which all completions earned the same.

    Args:
        keys: a completion's key is <group>_<number>_<turn>.
        scores: what `rl.rewards.compute_score` gave each: {"score": the sum, "accuracy": 1.0, ...}; NaN of a reward
            without an opinion, which its mean leaves out.

    Returns:
        TRL's names: {"rewards/accuracy/mean": ..., "frac_reward_zero_std": ...}.
    """
    groups = defaultdict(set)
    for key, score in zip(keys, scores, strict=True):
        groups[key.split("_")[0]].add(score["score"])
    named: dict[str, list[float]] = {name: [] for name in scores[0] if name != "score"}
    for score in scores:
        for name, opinions in named.items():
            if not math.isnan(score[name]):
                opinions.append(score[name])
    return {
        **{f"rewards/{name}/mean": sum(found) / len(found) for name, found in named.items() if found},
        "frac_reward_zero_std": sum(len(found) == 1 for found in groups.values()) / len(groups),
    }


@ray.remote(num_cpus=1)
class TaskRunner(TaskRunnerV1.__ray_metadata__.modified_class):
    """verl's task runner, with the trainer above under the name that the configuration asks for."""

    def run(self, config: DictConfig) -> None:
        """Train; returns when all steps are done."""
        # Ray sends this class with copies of what it refers to; the import finds the modules themselves.
        import verl_trainer
        from verl.trainer.ppo.v1 import trainer_base

        trainer_base.TRAINER_REGISTRY["sync"] = verl_trainer.WorkshopTrainer
        super().run(config)


def train(config: DictConfig, evaluation_seconds: float) -> None:
    """Lets verl train, its task runner on the head, where the job's outputs are; returns when all steps are done, or as many
    as the job's time cap allows, with time for an evaluation left.

    What goes wrong is raised as it was: Ray wraps an error once for each process that it passed through.
    """
    OmegaConf.update(config, "time_cap", {"evaluation_seconds": evaluation_seconds}, force_add=True)
    try:
        run_ppo(config, TaskRunner.options(resources=HEAD))
    except ray.exceptions.RayTaskError as error:
        original: BaseException = error
        while isinstance(original, ray.exceptions.RayTaskError) and original.cause is not original:
            original = original.cause
        raise original from error

"""GRPO with verl's own trainer, on a Ray cluster of all the job's hosts. `launchers.RayCluster` runs this on its head.

    train.py --config recipes/tiny.yaml --overrides '["trainer.total_training_steps=20", "job.eval_samples=1"]'

The script checks the recipe, evaluates the base model, lets verl train, merges the shards of the last checkpoint into
one model for transformers, and evaluates that. A job that is started again goes on from its newest whole checkpoint.
verl: Sheng et al. 2024, https://arxiv.org/abs/2409.19256; GRPO: Shao et al. 2024, https://arxiv.org/abs/2402.03300.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import ray
from job.checkpoints import newest_complete
from job.container import channel, checkpoint_dir, host_count, model_dir, output_data_dir
from job.failure import report_failure
from job.models import load_tokenizer, local_source, save_model
from job.summary import write_record
from job.tracking import finish_tracking, log_evaluation, start_tracking
from rl.evaluation import Evaluation, Generate, evaluate
from rl.rewards import compute_score
from rl.tasks import Row, fingerprint, read_rows
from transformers import PreTrainedModel
from verl_arguments import VerlJob
from verl_data import write_data
from verl_keys import Settings
from verl_recipe import read_verl_recipe

# Environment that verl and its libraries read, in every process, when they are imported. Those of CPU: see verl_cpu.
VARIABLES = {"PYTHONPATH": str(Path(__file__).resolve().parent), "TQDM_DISABLE": "1", "TQ_NUM_THREADS": "1"}
ON_CPU = {"VERL_USE_EXTERNAL_MODULES": "verl_cpu", "VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cuda"}


def read_arguments() -> tuple[VerlJob, Settings]:
    """The recipe of the command line: its section `job`, and verl's nested settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="the recipe")
    parser.add_argument("--overrides", type=json.loads, default=[], help='JSON list of "key=value"')
    arguments = parser.parse_args()
    return read_verl_recipe(arguments.config, arguments.overrides)


def measure(
    name: str, model: PreTrainedModel, job: VerlJob, rows: list[Row], seed: int, generate: Generate | None
) -> Evaluation:
    """The common evaluation, logged as `name`; `generate` completes prompts where the model has tools."""
    result = evaluate(
        model,
        load_tokenizer(job.base_model),
        rows,
        samples=job.eval_samples,
        max_new_tokens=job.eval_max_new_tokens,
        batch_size=job.eval_batch_size,
        seed=seed,
        generate=generate,
    )
    log_evaluation(name, result)
    return result


def main() -> None:
    job, settings = read_arguments()
    train_rows, test_rows = read_rows(channel("train")), read_rows(channel("test"))[: job.eval_problems]

    variables = {**VARIABLES, **(ON_CPU if job.device == "cpu" else {})}
    os.environ.update(variables)
    from verl.trainer.main_ppo import run_ppo
    from verl_checkpoints import free_gpus, merged_model, open_model
    from verl_config import evaluation_generate, trainer_config
    from verl_history import History
    from verl_timeline import write_timeline
    from verl_trainer import task_runner

    checkpoint = newest_complete(checkpoint_dir(), prefix="global_step_")
    history = History(checkpoint)
    trainer = {
        "default_local_dir": str(checkpoint_dir()),
        "resume_mode": "resume_path" if checkpoint else "disable",
        "resume_from_path": checkpoint and str(checkpoint),
        "logger": ["file"],  # verl_history carries it on to the job's log, MLflow and W&B
        "project_name": job.experiment,
        "experiment_name": job.recipe,
    }
    variables |= {"VERL_FILE_LOGGER_PATH": str(history.file)}
    source = local_source(job.base_model)
    given = {
        "actor_rollout_ref": {"model": {"path": source}},
        "data": write_data(train_rows, test_rows, Path(tempfile.mkdtemp())),
        "trainer": trainer,
        "ray_kwargs": {"ray_init": {"runtime_env": {"env_vars": variables}}},
    }
    slots = int(os.environ["RAY_SLOTS_PER_HOST"])
    config = trainer_config(job, settings, hosts=host_count(), gpus_per_host=slots, given=given)
    generate = evaluation_generate(config)
    # Of a reward that raises verl says only that there are no trajectories to learn from; so it is tried here first.
    row, reward_kwargs = train_rows[0], config.reward.custom_reward_function.reward_kwargs
    compute_score(row["task"], "<answer>0</answer>", row["answer"], **reward_kwargs)

    start_tracking(job, job, data_fingerprint=fingerprint(train_rows))
    dtype = "float32" if job.device == "cpu" else "bfloat16"
    # Nothing refers to the model after this line: verl's processes need the GPUs that it is on.
    before = measure("before", open_model(source, dtype), job, test_rows, config.data.seed, generate)
    free_gpus()

    started = time.perf_counter()
    with history.following(steps=config.trainer.total_training_steps):
        try:
            run_ppo(config, task_runner)
        except ray.exceptions.RayTaskError as error:
            raise original_error(error) from error
    train_seconds = time.perf_counter() - started
    write_timeline(output_data_dir() / "timeline.jsonl")

    trained = merged_model(checkpoint_dir(), dtype)
    after = measure("after", trained, job, test_rows, config.data.seed, generate)
    save_model(trained, load_tokenizer(job.base_model), model_dir(), base_spec=job.base_model)
    write_record(
        job,
        before,
        after,
        trainer="verl.PPOTrainer",
        processes=host_count() * slots,
        seed=config.data.seed,
        steps=history.rows[-1]["step"],
        tokens=sum(row["tokens"] for row in history.trained),
        peak_rss_mb=max(row.get("peak_rss_mb", 0.0) for row in history.rows),
        train_seconds=train_seconds,
    )
    finish_tracking()


def original_error(error: BaseException) -> BaseException:
    """What really went wrong: Ray wraps an error once for each process that it passed through."""
    while isinstance(error, ray.exceptions.RayTaskError) and error.cause is not error:
        error = error.cause
    return error


if __name__ == "__main__":
    with report_failure():
        main()

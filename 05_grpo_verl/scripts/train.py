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
from typing import Any

import ray
from job.base_evaluation import base_evaluation
from job.checkpoints import newest_complete
from job.container import channel, checkpoint_dir, host_count, model_dir, output_data_dir, print_line
from job.failure import report_failure
from job.fingerprints import fingerprints
from job.models import load_tokenizer, local_source, save_model
from job.summary import write_record
from job.time_cap import is_capped, time_for
from job.tracking import finish_tracking, log_evaluation, start_tracking
from rl.evaluation import Evaluation, evaluate
from rl.rewards import compute_score
from rl.tasks import Row, fingerprint, read_rows
from rl.templates import opening
from rl.verifiers import get_verifier
from verl_arguments import VerlJob
from verl_data import check_rows, data_columns, fitting_rows, write_data
from verl_environment import environment
from verl_keys import TEMPLATE, Settings, value_of
from verl_recipe import check_source, read_verl_recipe


def read_arguments() -> tuple[VerlJob, Settings]:
    """The recipe of the command line: its section `job`, and verl's nested settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="the recipe")
    parser.add_argument("--overrides", type=json.loads, default=[], help='JSON list of "key=value"')
    arguments = parser.parse_args()
    return read_verl_recipe(arguments.config, arguments.overrides)


def main() -> None:
    job, settings = read_arguments()
    verifier, tokenizer = get_verifier(job.verifier), load_tokenizer(job.base_model)
    train_rows, test_rows = read_rows(channel("train")), read_rows(channel("test"))[: job.eval_problems]

    variables = environment(job.device, engine=value_of(settings, "model_engine"))
    os.environ.update(variables)
    from verl_checkpoints import free_gpus, merged_model, open_model, step_of
    from verl_config import evaluation_generate, evaluation_tools, fill_in, trainer_config
    from verl_deaths import ended_when_a_process_dies
    from verl_history import History
    from verl_timeline import write_timeline
    from verl_trainer import train

    slots, template = int(os.environ["RAY_SLOTS_PER_HOST"]), value_of(settings, TEMPLATE)
    opened = opening(tokenizer, template)
    config = trainer_config(job, settings, hosts=host_count(), gpus_per_host=slots, opening=opened)
    tools = evaluation_tools(config)
    schemas = [tool.schema for tool in tools]
    train_rows = fitting_rows(tokenizer, train_rows, settings, use="training", tools=schemas)
    if config.trainer.val_before_train or config.trainer.test_freq > 0:
        fitting_rows(tokenizer, test_rows, settings, use="verl's own validation", tools=schemas)
    epochs = check_rows(settings, len(train_rows))
    # Of a reward that raises verl says only that there are no trajectories to learn from; so it is tried here first.
    row, reward_kwargs = train_rows[0], config.reward.custom_reward_function.reward_kwargs
    columns = data_columns(row)["extra_info"]
    compute_score(row["task"], "<answer>0</answer>", row["answer"], columns, **reward_kwargs)

    made_of = fingerprints(job, train_rows, seed=config.data.seed, reward_weights=job.reward_weights)
    made_of["tools"] = ", ".join(schema["function"]["name"] for schema in schemas) or "none"
    checkpoint = newest_complete(checkpoint_dir(), prefix="global_step_", fingerprints=made_of)
    history = History(checkpoint)
    source = local_source(job.base_model)
    check_source(source, job.base_model, hosts=host_count())
    variables |= {"VERL_FILE_LOGGER_PATH": str(history.file)}
    config = fill_in(
        config,
        job,
        model=source,
        data=write_data(train_rows, test_rows, Path(tempfile.mkdtemp())),
        epochs=epochs,
        checkpoint=checkpoint,
        made_of=made_of,
        variables=variables,
    )
    decoding = {
        "verifier": verifier,
        "samples": job.eval_samples,
        "max_new_tokens": job.eval_max_new_tokens,
        "batch_size": job.eval_batch_size,
        "seed": config.data.seed,
        "chat_template_kwargs": template,
        "generate": evaluation_generate(config, tools),
    }
    start_tracking(job, job, data_fingerprint=fingerprint(train_rows))
    dtype = "float32" if job.device == "cpu" else "bfloat16"

    def measure_base(rows: list[Row], **how: Any) -> Evaluation:
        # Nothing refers to the model after this line: verl's processes need the GPUs that it is on.
        return evaluate(open_model(source, dtype, name=job.base_model), tokenizer, rows, **how)

    before = base_evaluation(measure_base, test_rows, job, made_of, **decoding)
    log_evaluation("before", before)
    free_gpus()

    steps, done, started = config.trainer.total_training_steps, step_of(checkpoint), time.perf_counter()
    if done < steps:
        with history.following(steps, before), ended_when_a_process_dies():
            train(config, before.seconds)
        write_timeline(output_data_dir() / "timeline.jsonl")
    else:
        print_line(f"{checkpoint.name} holds all {steps} steps: nothing is left to train.")
        ray.init(runtime_env={"env_vars": variables})
    train_seconds = time.perf_counter() - started

    reached = max(done, history.last_step if is_capped() else steps)
    trained = merged_model(checkpoint_dir() / f"global_step_{reached}", dtype)
    in_time = time_for(before.seconds + history.save_seconds)
    after = evaluate(trained, tokenizer, test_rows, **decoding) if in_time else None
    log_evaluation("after", after)
    save_model(trained, tokenizer, model_dir(), base_spec=job.base_model)
    write_record(
        job,
        before,
        after,
        trainer="verl.PPOTrainer",
        processes=host_count() * slots,
        seed=config.data.seed,
        steps=reached,
        asked=steps if reached < steps else None,
        tokens=sum(row["tokens"] for row in history.trained),
        peak_rss_mb=max((row.get("peak_rss_mb", 0.0) for row in history.rows), default=0.0),
        train_seconds=train_seconds,
    )
    finish_tracking()


if __name__ == "__main__":
    with report_failure():
        main()

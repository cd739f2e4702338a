"""03_grpo_trl_fsdp: its recipes, and its train.py in real processes: layouts, adapters, interruptions.

The jobs get SM_* folders as on SageMaker, and a few completions a step; those that others are compared with are started
by torchrun.
"""

import random
from pathlib import Path

import pytest
from harness import ROOT, ScriptJob, run_hosts
from job.recipe import parse_arguments, read_recipe
from own_task import FEW as OWN_TASK
from own_task import check_own_task, write_own_task
from rl.tasks import make_splits, write_splits
from safetensors import safe_open
from workshop.checks.request import read_script

SCRIPTS = ROOT / "03_grpo_trl_fsdp" / "scripts"
ON_CPU = ["--use_cpu", "true", "--bf16", "false"]  # transformers refuses bf16 where no device has it
RECIPES = ["tiny", "smoke", "smoke_gpu", "small", "full"]
STEPS = 8
FEW = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 32,
    "warmup_steps": 0,
    "save_steps": 2,
    "eval_problems": 4,
    "eval_samples": 1,
    "eval_max_new_tokens": 8,
    "report_to": "none",
    "log_completions": False,
}


def of_03(folder: Path, data: dict[str, Path], checkpoints: Path | None = None) -> ScriptJob:
    """A short job of 03's script."""
    return ScriptJob(SCRIPTS / "train.py", folder, data, FEW, checkpoints=checkpoints)


def rewards(job: ScriptJob) -> list[float]:
    return [entry["reward"] for entry in job.history()]


def shards(job: ScriptJob) -> list[dict]:
    return job.output_json("shards.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return write_splits(make_splits("chain_sum", {"train": 64, "test": 4}), folder)


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory) -> ScriptJob:
    """Two processes on one host, all steps, nothing in between."""
    return of_03(tmp_path_factory.mktemp("uninterrupted"), data).run(processes=2, torchrun=True)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_fits_the_pinned_trl(name, tmp_path):
    arguments = ["--config", str(SCRIPTS / f"recipes/{name}.yaml"), "--output_dir", str(tmp_path), *ON_CPU]
    job, config = parse_arguments(read_script(SCRIPTS, "train.py"), arguments)
    assert (job.module, job.recipe) == ("03_grpo_trl_fsdp", name)
    assert len(config.reward_weights) == len(job.rewards)
    assert config.generation_batch_size % config.num_generations == 0
    assert job.eval_max_new_tokens == config.max_completion_length  # what is trained is what is measured
    assert config.fsdp_plugin_args["fsdp_version"] == 2
    assert not config.gradient_checkpointing  # FSDP2 has its own
    # Without vLLM a step is a hundred forward passes, each of which would gather every layer.
    assert config.fsdp_plugin_args["reshard_after_forward"] is config.use_vllm


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_same_shape(name):
    core = set(read_recipe(SCRIPTS / "recipes/tiny.yaml")) - {"log_completions", "num_completions_to_print"}
    assert core <= set(read_recipe(SCRIPTS / f"recipes/{name}.yaml"))


def test_the_layer_to_wrap_is_that_of_the_model():
    """A class name that the model lacks would leave it in one piece: all of it gathered at once."""
    import transformers.models.llama.modeling_llama as llama
    import transformers.models.qwen2.modeling_qwen2 as qwen2
    import transformers.models.qwen3.modeling_qwen3 as qwen3

    models = {"tiny": qwen2, "smoke": qwen2, "smoke_gpu": llama, "small": llama, "full": qwen3}
    for name, module in models.items():
        (layer,) = read_recipe(SCRIPTS / f"recipes/{name}.yaml")["fsdp_config"][
            "transformer_layer_cls_to_wrap"
        ]
        assert hasattr(module, layer), name


@pytest.mark.job
@pytest.mark.timeout(900)
def test_each_process_holds_half(uninterrupted):
    from workshop.checks.memory import SHAPES, estimate

    parts = shards(uninterrupted)
    assert [entry["process"] for entry in parts] == [0, 1]
    assert all(row["kind"] == "DTensor" for entry in parts for row in entry["parameters"])
    predicted = estimate(SHAPES["tiny"], read_recipe(SCRIPTS / "recipes/tiny.yaml"), devices=2)
    for part in ("parameters", "gradients"):
        assert sum(entry["bytes"][part] for entry in parts) == 2 * getattr(predicted, part)
        for entry in parts:  # rows are whole, so the halves may differ by one row
            assert entry["bytes"][part] == pytest.approx(getattr(predicted, part), rel=0.001)
    # AdamW keeps a step counter of four bytes for each parameter besides its two means.
    counters = 4 * sum(len(entry["parameters"]) for entry in parts)
    assert sum(entry["bytes"]["optimizer"] for entry in parts) == 2 * predicted.optimizer + counters


@pytest.mark.job
@pytest.mark.timeout(1200)
def test_two_hosts_give_the_same_numbers_and_one_process_the_same_rewards(uninterrupted, data, tmp_path):
    hosts = [of_03(tmp_path / f"host-{rank}", data) for rank in (0, 1)]
    run_hosts(hosts, max_steps=3, torchrun=True)
    assert rewards(hosts[0]) == rewards(uninterrupted)[:3]

    alone = of_03(tmp_path / "alone", data)
    alone.run(processes=1, fsdp=None, per_device_train_batch_size=16, max_steps=3)
    # The same problems, but other random numbers: with 16 completions a step a mean has a standard error of 0.13.
    differences = [a - b for a, b in zip(rewards(alone), rewards(uninterrupted), strict=False)]
    assert len(differences) == 3 and all(abs(difference) < 0.55 for difference in differences)


@pytest.mark.job
@pytest.mark.timeout(900)
def test_resharding_during_generation_gives_the_same_rewards(uninterrupted, data, tmp_path):
    """Stage 3: every token gathers every layer, so processes that end early must wait for the others."""
    config = {**read_recipe(SCRIPTS / "recipes/tiny.yaml")["fsdp_config"], "reshard_after_forward": True}
    job = of_03(tmp_path, data).run(processes=2, fsdp_config=config, max_steps=3)
    assert rewards(job) == pytest.approx(rewards(uninterrupted)[:3], abs=1e-6)


@pytest.mark.job
@pytest.mark.timeout(900)
@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_adapters_alone_are_trained_and_saved(quantization, data, tmp_path):
    if quantization == "nf4":
        pytest.importorskip("bitsandbytes")
    job = of_03(tmp_path, data)
    job.run(processes=2, lora_rank=4, learning_rate=1e-3, quantization=quantization, max_steps=3)
    rows = shards(job)[0]["parameters"]
    trained = [row for row in rows if row["trainable"]]
    assert trained and all("lora_" in row["name"] and row["kind"] == "DTensor" for row in trained)
    packed = [row for row in rows if row["dtype"] == "uint8"]
    assert bool(packed) == (quantization == "nf4")
    with safe_open(job.model / "adapter" / "adapter_model.safetensors", framework="np") as file:
        assert any(file.get_tensor(name).any() for name in file.keys() if "lora_B" in name)  # noqa: SIM118
    assert (job.model / "model.safetensors").is_file()  # merged

    if not quantization:  # one of both is started again
        return
    again = of_03(tmp_path / "again", data, job.checkpoints)
    again.run(processes=2, lora_rank=4, learning_rate=1e-3, quantization=quantization, max_steps=3)
    assert again.log.count("checkpoint-3 holds all 3 steps") == 1 and again.steps() == []
    for file in ("adapter/adapter_model.safetensors", "model.safetensors"):
        assert again.weights(file) == job.weights(file)


@pytest.mark.job
@pytest.mark.timeout(900)
def test_a_job_started_again_after_its_last_step_saves_the_same_weights(uninterrupted, data, tmp_path):
    again = of_03(tmp_path / "again", data, uninterrupted.checkpoints).run(processes=2)
    assert again.log.count("checkpoint-8 holds all 8 steps") == 1 and again.steps() == []
    assert "does not say which" not in again.log, "the checkpoint lacks a part of what it was made of"
    assert again.weights() == uninterrupted.weights()
    assert again.history() == uninterrupted.history()
    for now, then in zip(shards(again), shards(uninterrupted), strict=True):  # a notebook shows them
        assert now == {**then, "bytes": {**then["bytes"], "gradients": 0}, "rss_mb": now["rss_mb"]}
    assert (
        again.output_json("evaluation_after.json")["greedy"]
        == uninterrupted.output_json("evaluation_after.json")["greedy"]
    )


@pytest.mark.job
@pytest.mark.timeout(900)
def test_an_own_reward_and_an_own_verdict_on_two_processes(tmp_path):
    channels, environment = write_own_task(tmp_path)
    job = of_03(tmp_path / "job", channels)
    job.run(processes=2, environment=environment, **{**OWN_TASK, "per_device_train_batch_size": 16})
    check_own_task(job.history(), job.output_json("evaluation_before.json"))


@pytest.mark.job
@pytest.mark.timeout(1800)
def test_interruptions_at_random_and_during_a_save_change_nothing(uninterrupted, data, tmp_path):
    seed = random.randrange(1000)
    steps = sorted(random.Random(seed).sample(range(1, STEPS - 2), 2))
    checkpoints = tmp_path / "checkpoints"
    for number, step in enumerate(steps):
        job = of_03(tmp_path / f"{number}", data, checkpoints)
        job.kill_when(job.start(processes=2), lambda job=job, step=step: max(job.steps(), default=0) >= step)

    saving = of_03(tmp_path / "saving", data, checkpoints)
    last = checkpoints / f"checkpoint-{STEPS - 2}"
    if not (last / "complete-0.json").exists():
        saving.kill_when(saving.start(processes=2), lambda: last.is_dir() and any(last.iterdir()))
        assert not (last / "complete-0.json").exists(), "the save was over before the job was killed"

    final = of_03(tmp_path / "final", data, checkpoints).run(processes=2)
    assert f"Skipping checkpoint-{STEPS - 2}, which is not whole" in final.log, f"seed {seed}"
    assert final.steps()[0] > 1, "it began again instead of going on"
    assert final.history() == uninterrupted.history(), f"seed {seed}, interrupted at {steps}"
    assert final.weights() == uninterrupted.weights(), f"seed {seed}, interrupted at {steps}"

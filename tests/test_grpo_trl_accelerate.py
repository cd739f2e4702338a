"""02_grpo_trl_accelerate: its recipes, launcher files, without training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from job.recipe import parse_arguments, read_recipe
from workshop.checks.request import read_script

SCRIPTS = Path(__file__).parents[1] / "02_grpo_trl_accelerate" / "scripts"
RECIPES = ["tiny", "smoke", "smoke_gpu", "small", "full"]
ON_CPU = ["--use_cpu", "true", "--bf16", "false"]  # transformers refuses bf16 where no device has it


@pytest.mark.parametrize("name", RECIPES)
def test_grpo_recipe_fits_the_pinned_trl(name, tmp_path):
    arguments = ["--config", str(SCRIPTS / f"recipes/{name}.yaml"), "--output_dir", str(tmp_path), *ON_CPU]
    job, config = parse_arguments(read_script(SCRIPTS, "train.py"), arguments)
    assert (job.module, job.recipe) == ("02_grpo_trl_accelerate", name)
    assert len(config.reward_weights) == len(job.rewards)
    assert config.generation_batch_size % config.num_generations == 0
    assert job.eval_max_new_tokens == config.max_completion_length  # what is trained is what is measured


@pytest.mark.parametrize("name", ["reward_model", "reward_model_gpu"])
def test_reward_model_recipe_fits_the_pinned_trl(name, tmp_path):
    recipe = SCRIPTS / f"recipes/{name}.yaml"
    job, config = parse_arguments(
        read_script(SCRIPTS, "train_reward_model.py"),
        ["--config", str(recipe), "--output_dir", str(tmp_path), *ON_CPU],
    )
    assert job.eval_samples > 1, "pairs need several answers to a problem"
    assert config.max_length > job.eval_max_new_tokens, "prompt and answer have to fit"


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_same_shape(name):
    """A recipe is the only thing that changes between laptop and cluster: the core keys are in each."""
    core = set(read_recipe(SCRIPTS / "recipes/tiny.yaml"))
    assert core <= set(read_recipe(SCRIPTS / f"recipes/{name}.yaml"))


@pytest.mark.parametrize("name", ["cpu", "one_gpu", "multi_gpu"])
def test_accelerate_yaml_is_understood(name):
    path = SCRIPTS / "accelerate" / f"{name}.yaml"
    assert (
        load_config_from_file(str(path)).distributed_type.value
        == yaml.safe_load(path.read_text())["distributed_type"]
    )


@pytest.mark.parametrize("name", ["cpu", "one_gpu", "multi_gpu"])
def test_the_recipe_alone_decides_on_the_precision(name):
    """accelerate hands its own to the script, and transformers takes that where the recipe says bf16: false."""
    assert load_config_from_file(str(SCRIPTS / "accelerate" / f"{name}.yaml")).mixed_precision == "no"


def test_one_gpu_is_the_first_of_several(tmp_path):
    """Or transformers would spread a single process over all of them with nn.DataParallel."""
    script = tmp_path / "script.py"
    script.write_text("import os; print('sees', os.environ['CUDA_VISIBLE_DEVICES'])")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--config_file"]
    done = subprocess.run(
        [*launch, str(SCRIPTS / "accelerate" / "one_gpu.yaml"), str(script)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "0,1,2,3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "sees 0\n", done.stderr

"""Numbers with which nothing, or nothing sensible, would be learned: refused by name, before the job and in it."""

import json
import math

import pytest
from harness import ROOT
from job.arguments import RecipeError
from job.ranges import RANGES, Range
from job.recipe import parse_arguments, setting_problems
from workshop.checks.request import read_script
from workshop.checks.signatures import CONFIGS, load_signature

GRPO, DPO, REWARD = (
    ("02_grpo_trl_accelerate", "train.py"),
    ("01_dpo_trl", "train.py"),
    ("02_grpo_trl_accelerate", "train_reward_model.py"),
)
RLOO, DISTILLED = (
    ("02_grpo_trl_accelerate", "train_rloo.py"),
    ("02_grpo_trl_accelerate", "train_distilled.py"),
)
NONSENSE = [
    *[(GRPO, key, value) for key, values in {
        "reward_weights": ([0, 0], [-1.0, 1.0], [math.nan, 1.0], [0.0], "[0, 0]"),
        "beta": (-1, "nan", math.inf), "top_p": (5, 0, -0.1), "top_k": (-2,), "min_p": (2,), "temperature": (0, -1),
        "repetition_penalty": (0,), "num_iterations": (0, -3), "steps_per_generation": (0,), "num_generations": (1, 0, -8),
        "max_completion_length": (0, -1), "num_train_epochs": (0, -1), "max_steps": (0, -5), "learning_rate": (0, -1e-4, 7, "nan"),
        "epsilon": (0, -0.2), "epsilon_high": (0, -1), "delta": (0.5,), "save_steps": (0, -1), "logging_steps": (0,),
        "save_total_limit": (0,), "weight_decay": (-0.1,), "adam_beta1": (1, -0.1), "adam_beta2": (1.5,), "adam_epsilon": (0,),
        "max_grad_norm": (-1,), "warmup_steps": (-1,), "gradient_accumulation_steps": (0,), "per_device_train_batch_size": (0, -8),
        "seed": (-1,), "top_entropy_quantile": (0, 1.5), "vllm_gpu_memory_utilization": (0, 1.2), "generation_batch_size": (0,),
    }.items() for value in values],
    *[(DPO, key, value) for key, values in {
        "beta": (0, -0.1), "label_smoothing": (0.5, -0.1), "max_length": (0,), "num_train_epochs": (0,), "ld_alpha": (2,),
    }.items() for value in values],
    (REWARD, "max_length", 0), (REWARD, "center_rewards_coefficient", -1), (RLOO, "num_generations", 1), (RLOO, "beta", -0.1),
    (DISTILLED, "beta", 1.5), (DISTILLED, "temperature", 0),
]  # fmt: skip


def problems_of(module: str, script: str, settings: dict) -> list[str]:
    """What preflight finds."""
    found = read_script(ROOT / module / "scripts", script)
    return setting_problems({}, settings, found.reads(load_signature), found.shared(load_signature))


@pytest.mark.parametrize(("where", "key", "value"), NONSENSE)
def test_nonsense_is_refused_before_the_job_and_in_it(where, key, value):
    (problem,) = problems_of(*where, {key: value})
    assert problem.startswith(f"hyperparameter '{key}' is ")
    text = value if isinstance(value, str) else json.dumps(value)
    with pytest.raises(RecipeError, match=f"hyperparameter '{key}' is "):
        parse_arguments(read_script(ROOT / where[0] / "scripts", where[1]), [f"--{key}={text}"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reward_weights", [1.0, 0.0]), ("beta", 0), ("top_p", 1), ("top_k", -1), ("max_steps", -1), ("max_steps", 1), ("max_steps", "5"),
        ("num_train_epochs", 0.1), ("learning_rate", "1e-5"), ("save_steps", 0.25), ("epsilon_high", 5.0), ("seed", 0),
        ("max_grad_norm", 0), ("temperature", 1.3), ("warmup_steps", 0.1), ("save_total_limit", None),
    ],
)  # fmt: skip
def test_what_makes_sense_passes(key, value):
    assert problems_of(*GRPO, {key: value}) == []


@pytest.mark.parametrize("config", CONFIGS)
def test_each_range_is_of_a_setting_and_holds_its_default(config):
    settings = load_signature(config)
    for key, limits in RANGES[config].items():
        assert key in settings, f"{config} has no {key}"
        default = settings[key].default
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert limits.problem([float(default)]) is None, key


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Range(least=1), "1 or more"),
        (Range(above=0), "above 0"),
        (Range(above=0, most=1), "above 0 and at most 1"),
        (Range(least=0, below=0.5), "0 and below 0.5"),
        (Range(least=1, also=(-1,)), "1 or more, or -1"),
    ],
)
def test_a_range_says_what_it_holds(limits, text):
    assert str(limits) == text


@pytest.mark.parametrize(
    "hyperparameters", [["--config", "recipes/tiny.yaml", "--run_name", "--help"], ["--help", "true"]]
)
def test_help_among_hyperparameters_is_no_way_out(hyperparameters, monkeypatch):
    monkeypatch.chdir(ROOT / GRPO[0] / "scripts")
    with pytest.raises(RecipeError, match="'help'"):
        parse_arguments(read_script(ROOT / GRPO[0] / "scripts", GRPO[1]), hyperparameters)
